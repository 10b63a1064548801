"""The GPU collector against a driver that is told what to answer, and against this machine, whatever it has."""

import sys
import time
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.collectors.base import Row, Sampler
from harness.collectors.gpu import READINGS, EnergyPerToken, GpuCollector, energy_per_output_token


class DriverError(Exception):
    pass


class FakeNvml(ModuleType):
    """Two GPUs whose handles are their numbers."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, **refused: str) -> None:
        super().__init__("pynvml")
        self.refused = refused
        self.asked: list[Any] = []
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802 - the driver's names
        self._answer("nvmlInit", None)
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index > 1:
            raise DriverError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=87, memory=40),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 << 30, total=16 << 30),
            "nvmlDeviceGetPowerUsage": 65_000,
            "nvmlDeviceGetTotalEnergyConsumption": 1_500,
            "nvmlDeviceGetClockInfo": 1590,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 4,
            "nvmlDeviceGetTemperature": 61,
        }
        if name not in answers:
            raise AttributeError(name)
        return lambda gpu, *rest: self._answer(name, answers[name], gpu)

    def _answer(self, name: str, answer: Any, gpu: Any = None) -> Any:
        self.asked.append(gpu)
        if name in self.refused:
            raise DriverError(self.refused[name])
        return answer


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_readings_are_in_the_units_of_their_names(nvml: FakeNvml) -> None:
    collector = GpuCollector()
    collector.start()
    assert collector.sample() == {
        "gpu_utilisation_percent": 87.0,
        "gpu_memory_utilisation_percent": 40.0,
        "gpu_memory_used_bytes": float(3 << 30),
        "gpu_power_w": 65.0,
        "gpu_energy_j": 1.5,
        "gpu_sm_clock_mhz": 1590.0,
        "gpu_memory_clock_mhz": 1590.0,
        "gpu_throttle_reasons_bits": 4.0,
        "gpu_temperature_c": 61.0,
    }
    assert collector.unavailable == {}
    collector.close()
    collector.close()
    assert not nvml.is_open


def test_a_missing_counter_or_permission_is_said_in_the_drivers_words(nvml: FakeNvml) -> None:
    nvml.refused = {"nvmlDeviceGetTotalEnergyConsumption": "Not Supported"}
    collector = GpuCollector()
    collector.start()
    assert collector.unavailable == {"gpu_energy_j": "Not Supported"}
    nvml.refused |= {"nvmlDeviceGetPowerUsage": "Insufficient Permissions"}
    assert {"gpu_power_w", "gpu_energy_j"}.isdisjoint(collector.sample())
    assert collector.unavailable["gpu_power_w"] == "stopped answering: Insufficient Permissions"


def test_without_a_driver_every_column_says_so(nvml: FakeNvml) -> None:
    nvml.refused = {"nvmlInit": "NVML Shared Library Not Found"}
    collector = GpuCollector()
    collector.start()
    assert collector.unavailable == dict.fromkeys(READINGS, "no NVIDIA driver: NVML Shared Library Not Found")
    assert collector.sample() == {}
    collector.close()


def test_without_the_library_every_column_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    collector = GpuCollector()
    collector.start()
    assert set(collector.unavailable) == set(READINGS)
    assert collector.unavailable["gpu_power_w"].startswith("nvidia-ml-py is not installed")


@pytest.mark.parametrize(
    ("visible", "index", "asked"), [("1", 0, 1), ("1,0", 1, 0), ("GPU-5a", 0, "GPU-5a"), (" 1 , 0 ", 0, 1)]
)
def test_the_gpu_is_the_one_that_cuda_is_shown(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, visible: str, index: int, asked: object
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    collector = GpuCollector(index)
    collector.start()
    assert nvml.asked[-1] == asked


@pytest.mark.parametrize(("visible", "index"), [("", 0), ("0", 1), (None, 7)])
def test_no_such_gpu(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, visible: str | None, index: int) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    collector = GpuCollector(index)
    collector.start()
    assert collector.unavailable["gpu_power_w"].startswith(f"no GPU {index}: ")
    assert not nvml.is_open


def test_the_warning_of_the_abandoned_package_is_kept_quiet(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pynvml.py").write_text(
        "import warnings\n"
        "warnings.warn('The pynvml package is deprecated. Please install nvidia-ml-py instead.', FutureWarning)\n"
        "def nvmlInit(): raise RuntimeError('none here')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    collector = GpuCollector()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collector.start()
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert collector.unavailable["gpu_power_w"] == "no NVIDIA driver: none here"


def test_this_machine_gives_readings_or_reasons() -> None:
    rows: list[Row] = []
    collector = GpuCollector()
    sampler = Sampler([collector], rows.append, period_s=0.02)
    sampler.start()
    for _ in range(500):
        if rows or collector.unavailable:
            break
        time.sleep(0.01)
    report = sampler.close()
    assert set(report.unavailable) | {column for row in rows for column in row} >= set(READINGS)


def test_energy_from_the_counter_is_measured() -> None:
    rows = [
        {"time_s": 0.0, "gpu_energy_j": 100.0, "gpu_power_w": 9.0},
        {"time_s": 1.0},
        {"time_s": 2.0, "gpu_energy_j": 160.0},
    ]
    assert energy_per_output_token(rows, 30) == EnergyPerToken(2.0, "measured", "the GPU's energy counter")


def test_energy_from_power_is_estimated() -> None:
    # trapezoids: 1 s at 15 W on average, 2 s at 25 W
    rows = [{"time_s": t, "gpu_power_w": w} for t, w in ((0.0, 10.0), (1.0, 20.0), (3.0, 30.0))]
    found = energy_per_output_token(rows, 13)
    assert found.label == "estimated"
    assert found.j_per_output_token == pytest.approx(65 / 13)


@pytest.mark.parametrize(
    ("rows", "tokens", "why"),
    [
        ([{"time_s": 0.0}], 10, "neither an energy counter nor power samples"),
        ([{"time_s": 0.0, "gpu_energy_j": 1.0}, {"time_s": 1.0, "gpu_energy_j": 2.0}], 0, "no output tokens"),
    ],
)
def test_energy_may_be_unavailable(rows: list[dict[str, float]], tokens: float, why: str) -> None:
    assert energy_per_output_token(rows, tokens) == EnergyPerToken(None, "unavailable", why)
