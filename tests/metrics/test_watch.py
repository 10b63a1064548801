"""The watch beside a cell: samples on disk, energy with its label, and a reason for whatever could not be had."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from harness.collectors import watch
from harness.collectors.base import Row, Sampler
from harness.collectors.gpu import GpuCollector
from harness.collectors.watch import ENERGY, MachineWatch, Watched
from results.store import read_samples


class Meter:
    """A GPU that draws 50 W, seen through its counter, its power, or neither."""

    def __init__(self, columns: tuple[str, ...], fail: Callable[[], None] = lambda: None) -> None:
        self.columns = columns
        self.unavailable: dict[str, str] = {}
        self._fail = fail
        self._began_s = time.monotonic()

    def start(self) -> None: ...

    def sample(self) -> Row:
        self._fail()
        readings = {"gpu_energy_j": 1000 + 50 * (time.monotonic() - self._began_s), "gpu_power_w": 50.0}
        return {column: readings[column] for column in self.columns}

    def close(self) -> None: ...


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def watched(cell_dir: Path, *collectors: Meter, seconds: float = 0.5) -> tuple[Watched, float]:
    """What the watch says, and how long it watched."""
    machine = MachineWatch(cell_dir, watching=True, collectors=collectors)
    begin_s = time.monotonic()
    machine.start(time.monotonic)
    time.sleep(seconds)
    found = machine.close()
    assert machine.close() is found
    return found, time.monotonic() - begin_s


def test_energy_of_a_counter_is_measured(tmp_path: Path) -> None:
    found, seconds = watched(tmp_path, Meter(("gpu_energy_j", "gpu_power_w")))
    assert ENERGY not in found.metrics
    per_token = found.per_output_token(10)
    assert 0 < per_token.metrics[ENERGY] <= 5.0 * seconds
    assert per_token.notes == (f"{ENERGY} is measured: the GPU's energy counter; GPU only",)
    assert ENERGY not in per_token.unavailable
    samples = read_samples(tmp_path)
    counted = samples["gpu_energy_j"].dropna()
    assert per_token.metrics[ENERGY] == pytest.approx((counted.iloc[-1] - counted.iloc[0]) / 10)
    assert 0 < found.metrics["sampler_cost_share"] < 0.5


def test_energy_of_power_samples_is_estimated(tmp_path: Path) -> None:
    found, _ = watched(tmp_path, Meter(("gpu_power_w",)))
    per_token = found.per_output_token(10)
    samples = read_samples(tmp_path)
    assert per_token.metrics[ENERGY] == pytest.approx(5 * (samples["time_s"].iloc[-1] - samples["time_s"].iloc[0]))
    assert "is estimated" in per_token.notes[0]


def test_without_a_gpu_the_reason_is_the_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("no such module")

    monkeypatch.setattr("harness.collectors.gpu._import_nvml", missing)
    machine = MachineWatch(tmp_path, watching=True, collectors=[GpuCollector()])
    machine.start(time.monotonic)
    found = machine.close().per_output_token(10)
    assert found.unavailable[ENERGY] == "nvidia-ml-py is not installed: no such module"
    assert found.notes == ()
    assert read_samples(tmp_path).empty


def test_a_simulated_cell_says_that_there_is_no_machine(tmp_path: Path) -> None:
    machine = MachineWatch(tmp_path, watching=False)
    machine.start(time.monotonic)
    found = machine.close().per_output_token(10)
    assert found.unavailable == dict.fromkeys(("samples", ENERGY), "simulated: there is no machine to sample")
    assert not list(tmp_path.iterdir())


def test_what_is_seen_before_serving_does_not_count(tmp_path: Path) -> None:
    machine = MachineWatch(tmp_path, watching=True, collectors=[Meter(("gpu_power_w",))])
    time.sleep(0.3)
    began_s = time.monotonic()
    machine.start(lambda: time.monotonic() - began_s)
    time.sleep(0.25)
    machine.close()
    times_s = read_samples(tmp_path)["time_s"]
    assert 1 <= len(times_s) <= 4
    assert (times_s >= 0).all()


def test_a_collector_that_fails_costs_its_columns_only(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("no sensor")

    found, _ = watched(tmp_path, Meter(("gpu_power_w",)), Meter(("gpu_energy_j",), fail))
    assert found.unavailable == {"gpu_energy_j": "OSError: no sensor"}
    assert "is estimated" in found.per_output_token(1).notes[0]


def test_a_collector_that_hangs_ends_neither_the_run_nor_the_samples(
    tmp_path: Path, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang() -> None:
        released.wait(30)

    monkeypatch.setattr(watch, "Sampler", partial(Sampler, hang_after_s=0.3))
    found, seconds = watched(tmp_path, Meter(("gpu_power_w",)), Meter(("gpu_energy_j",), hang))
    assert seconds < 3
    assert set(found.unavailable) == {"gpu_energy_j"}
    assert len(read_samples(tmp_path)) >= 2


def test_samples_that_cannot_be_written_are_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found, _ = watched(tmp_path / "file", Meter(("gpu_power_w",)))
    assert "cannot be written" in found.unavailable["samples"]
    assert "is estimated" in found.per_output_token(1).notes[0]


def test_a_system_that_gives_no_thread_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    machine = MachineWatch(tmp_path, watching=True)
    machine.start(time.monotonic)
    why = "sampling could not start: can't start new thread"
    assert machine.close().unavailable == {"samples": why, ENERGY: why}
