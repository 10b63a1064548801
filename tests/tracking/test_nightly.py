"""The command that runs a night: what it runs, adds, judges and shows, and the exit code that this comes to.

Experiments are tiny and simulated, and their cells run in this process. A night is made slower where a cell ends: what
the scheduler did, took longer.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import runner
from harness.cell import run_cell
from harness.child import Ending
from harness.tracking import nightly, publishing
from harness.tracking.fitness import GpuReading, Heat, Readings, waited_for, why_unfit
from reports import page
from results.history import History
from results.history_rows import Role
from results.store import write_text
from tests.harness.conftest import VALID
from tests.tracking.conftest import ENGINES, RATE, Call, day

NIGHTS = 12  # enough to be judged
SLOWER = 0.9
QUIET = Readings(busy_share=0.02)
TIMES = ("ttft_s_mean", "tpot_s_mean")


@dataclass
class Cells:
    """What the cells of a run do, in the place of their processes. `run`: (engine, repeat), in order."""

    scaled: dict[str, float] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    run: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, cell_dir: Path, *_: Any, **__: Any) -> Ending:
        spec = json.loads((cell_dir / "spec.json").read_text())
        engine = spec["engine"]["name"]
        self.run.append((engine, spec["repeat"]))
        if engine in self.failing:
            return Ending("killed by signal 9", 0.1)
        with redirect_stdout(io.StringIO()):  # its progress, which is for the process that started it
            told: dict[str, Any] = run_cell(cell_dir).to_json()
        factor = self.scaled.get(engine, 1.0)
        told["metrics"][RATE] *= factor
        for key in TIMES:
            told["metrics"][key] /= factor
        write_text(cell_dir / "summary.json", json.dumps(told))
        return Ending(None, 0.1)


@dataclass(frozen=True)
class Nightly:
    """`harness nightly` on one experiment of two engines."""

    call: Call
    config: Path
    folder: Path
    cells: Cells

    @property
    def db(self) -> Path:
        return self.folder / "history.sqlite"

    @property
    def pages(self) -> Path:
        return self.folder / "pages"

    def __call__(self, number: int, *words: object) -> tuple[int, dict[str, Any]]:
        self.cells.run.clear()
        where = ("--db", self.db, "--out", self.folder / "runs", "--pages", self.pages)
        found = self.call("nightly", "--config", self.config, "--night", day(number), *where, "--json", *words)
        assert found.code != 70, found.err
        return found.code, json.loads(found.out) if found.out else {"error": found.errors}


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Cells:
    found = Cells()
    monkeypatch.setattr(runner, "run_child", found)
    return found


@pytest.fixture
def plain_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their charts take longer than all else here."""

    def write(run_dir: Path) -> Path:
        write_text(run_dir / "report.html", "a report")
        return run_dir / "report.html"

    monkeypatch.setattr(page, "write_report", write)


@pytest.fixture
def a_night(call: Call, cells: Cells, plain_reports: None, tmp_path: Path) -> Nightly:
    return Nightly(call, config(tmp_path), tmp_path, cells)


@pytest.fixture
def known(a_night: Nightly, monkeypatch: pytest.MonkeyPatch) -> Nightly:
    """After enough nights to be judged, without their pages."""
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "publish", lambda night, db, folder, told: folder / "index.html")
        for number in range(NIGHTS):
            code, found = a_night(number)
            assert (code, roles(found)) == (0, ["night", "control"])
    assert set(found["check"]["states"]) == {"ok"}
    return a_night


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets why the machine is unfit for whatever is not simulated; here, for everything."""

    def set_reason(reason: str) -> None:
        monkeypatch.setattr(nightly, "waited_for", lambda backend, patience_s: reason)

    return set_reason


def config(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    values = VALID | {
        "name": name,
        "engines": ENGINES,
        "workloads": [{"kind": "batch", "batch": 24, "prompt": 16, "output": 4}],
        "measure": {"repeats": 1, "seed": 0, "time_limit_s": 60, "draws": 0},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def roles(found: Mapping[str, Any]) -> list[str]:
    return [run["role"] for run in found["runs"]]


# --- nights -----------------------------------------------------------------------------------------------------------


def test_two_nights_in_a_row_have_their_control_and_no_alarm(a_night: Nightly) -> None:
    for number in range(2):
        code, found = a_night(number)
        assert (code, found["exit_code"], found["check"]["findings"]) == (0, 0, [])
        assert roles(found) == ["night", "control"]
        assert a_night.cells.run == [("gpu_only", 0), ("static_partition", 0), ("gpu_only", 0)]
        assert set(found["check"]["states"]) == {"learning"}
    with History.opened(a_night.db) as history:
        (key,) = [key for key in history.series() if key.engine == "gpu_only"]
        values = history.values(key, RATE)
    assert [(each.night, each.role) for each in values] == [
        (day(number), role) for number in range(2) for role in (Role.NIGHT, Role.CONTROL)
    ]
    assert len({each.value for each in values}) == 1  # simulated: the same to the last bit


def test_a_slower_night_is_run_again_at_once_and_the_second_is_a_regression(known: Nightly) -> None:
    known.cells.scaled["static_partition"] = SLOWER
    code, found = known(NIGHTS)
    assert (code, roles(found)) == (0, ["night", "control", "confirmation"])
    assert known.cells.run[3:] == [("static_partition", 0)]  # what looked changed, and nothing else
    (rate,) = [each for each in found["check"]["findings"] if f"/{RATE}@" in each["series"]]
    assert rate["state"] == "confirm"
    assert "so is its rerun" in rate["sentence"]

    for number in range(NIGHTS + 1, NIGHTS + 4):
        code, found = known(number)
        if code:
            break
    assert code == 1
    bad = [each for each in found["check"]["findings"] if each["state"] == "alert"]
    assert {each["series"].split("/")[0] for each in bad} == {"static_partition"}
    assert any(re.search(rf"10\.\d % lower since {day(NIGHTS)}.*\[simulated\]", each["sentence"]) for each in bad)
    assert "A regression is confirmed" in (known.pages / "index.html").read_text()

    [why] = found["why"]
    assert (why["engine"], why["label"], why["pairs"]) == ("static_partition", "simulated", 1)
    assert Path(why["before"]) != Path(why["after"])
    assert why["after"] == found["runs"][0]["run_dir"]
    told = why["waterfall"]
    assert told["change"] / told["before"] == pytest.approx(SLOWER - 1)  # causes add up to it
    assert sum(term["tokens_per_s"] for term in told["terms"]) == pytest.approx(told["change"])
    assert "why.html" in (known.pages / "index.html").read_text()
    assert "static_partition" in (known.pages / "why.html").read_text()


def test_a_slower_night_that_is_not_confirmed_is_none(known: Nightly, monkeypatch: pytest.MonkeyPatch) -> None:
    known.cells.scaled["static_partition"] = SLOWER
    asked = nightly._doubtful

    def recovered(*arguments: Any) -> Any:
        known.cells.scaled.clear()
        return asked(*arguments)

    monkeypatch.setattr(nightly, "_doubtful", recovered)
    code, found = known(NIGHTS)
    assert (code, roles(found)) == (0, ["night", "control", "confirmation"])
    assert found["check"]["findings"] == []


# --- the gate ---------------------------------------------------------------------------------------------------------


def test_an_unfit_machine_is_skipped_and_is_no_regression(a_night: Nightly, reads: Callable[[str], None]) -> None:
    a_night(0)
    reads("load average 9 on 2 cores")
    code, found = a_night(1)
    assert (code, found["runs"], a_night.cells.run) == (3, [], [])
    assert [each["reason"] for each in found["not_run"]] == ["load average 9 on 2 cores"]
    assert {each["state"] for each in found["check"]["findings"]} == {"unfit"}
    with History.opened(a_night.db) as history:
        (skipped,) = history.skipped()
        assert (skipped.night, skipped.reason) == (day(1), "load average 9 on 2 cores")
        assert {key.testbed for key in history.series()} == {skipped.testbed}


def test_what_is_run_on_an_unfit_machine_all_the_same_is_not_judged(
    a_night: Nightly, reads: Callable[[str], None]
) -> None:
    reads("load average 9 on 2 cores")
    code, found = a_night(0, "--force")
    assert (code, roles(found)) == (3, ["night", "control"])
    assert {each["state"] for each in found["check"]["findings"]} == {"unfit"}


@pytest.mark.parametrize(
    ("found", "backend", "reason"),
    [
        (QUIET, "cpu", ""),
        (Readings(0.6), "cpu", "other programs keep 60%"),
        (Readings(0.0, "load average 9"), "cpu", "load average 9"),
        (Readings(0.6, "load average 9"), "sim", ""),
        (Readings(0.0, heats=(Heat("k10temp", 92, 95),)), "cpu", "k10temp is at 92 °C"),
        (Readings(0.0, heats=(Heat("k10temp", 60, 95),)), "cpu", ""),
        (Readings(0.0, gpus=(GpuReading("GPU 0", 0, 0x40),)), "cuda", "slowed down (heat, hardware)"),
        (Readings(0.0, gpus=(GpuReading("GPU 0", 0, 0x04),)), "cuda", ""),  # its power limit, as it is meant to be run
        (Readings(0.0, gpus=(GpuReading("GPU 0", 40, 0),)), "cuda", "40 % busy"),
    ],
)
def test_what_makes_a_machine_unfit(found: Readings, backend: str, reason: str) -> None:
    said = why_unfit(found, backend)
    assert (reason in said) if reason else not said


def test_a_busy_machine_is_waited_for_as_long_as_is_asked() -> None:
    answers = [Readings(0.9), Readings(0.8), QUIET]
    slept: list[float] = []
    assert waited_for("cpu", 60, lambda _: answers.pop(0), slept.append) == ""
    assert len(slept) == 2
    assert "other programs" in waited_for("cpu", sum(slept), lambda _: Readings(0.9), slept.append)
    assert len(slept) == 4


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_failed_cells_are_told_and_are_no_regression(a_night: Nightly) -> None:
    a_night(0)
    a_night.cells.failing.add("static_partition")
    code, found = a_night(1)
    assert code == 4
    assert len(found["failed"]) == 1
    assert re.match(r"static_partition-.*: killed by signal 9 \[simulated\]", found["failed"][0])
    assert {each["state"] for each in found["check"]["findings"]} >= {"lost"}


def test_nothing_is_run_where_one_experiment_is_wrong(a_night: Nightly, tmp_path: Path) -> None:
    code, found = a_night(0, "--config", tmp_path / "nowhere.yaml")
    assert (code, len(found["error"])) == (2, 1)
    assert not a_night.cells.run
    assert not a_night.db.exists()


# --- pages ------------------------------------------------------------------------------------------------------------


def test_the_pages_link_what_is_there(a_night: Nightly, tmp_path: Path) -> None:
    code, found = a_night(0, "--config", config(tmp_path, "second"))
    assert (code, roles(found)) == (0, ["night", "control"] * 2)
    index = (a_night.pages / "index.html").read_text()
    links = re.findall(r'href="([^"]+)"', index)
    assert {"history.html", "runs/tiny.html", "runs/second.html", "runs/tiny-control.html"} <= set(links)
    assert [link for link in links if not (a_night.pages / link).is_file()] == []
    assert "<script" not in index
    bigger = json.loads((a_night.pages / "github-benchmark-bigger.json").read_text())
    assert {entry["name"].rpartition("[")[2] for entry in bigger} == {"simulated]"}
    assert json.loads((a_night.pages / "check.json").read_text())["night"] == day(0)
