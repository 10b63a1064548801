"""Whether this machine may be measured now: idle, cool and not slowed down. What is unfit is no evidence of the code.

A simulation runs on a virtual clock, so that it is never unfit. Reading and judging are apart; what a machine does not
tell (temperatures in a virtual machine, say) is not held against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.environment import allowed_cores, load_warning

WATCHED_S = 2.0
POLL_S = 10.0
MOST_BUSY_SHARE = 0.25  # of all cores: a hosted runner's own services need a tenth
MOST_GPU_BUSY_PERCENT = 5
NEAR_LIMIT_C = 5  # so near to where it slows down, a machine will do so under load
# NVML's reasons that come from heat or from the board, and not from how the card is meant to be run (its power limit).
THROTTLED = {0x08: "hardware slowdown", 0x20: "heat", 0x40: "heat, hardware", 0x80: "power brake"}


@dataclass(frozen=True, slots=True)
class Heat:
    what: str
    now_c: float
    limit_c: float


@dataclass(frozen=True, slots=True)
class GpuReading:
    name: str
    busy_percent: float
    throttle_bits: int


@dataclass(frozen=True, slots=True)
class Readings:
    """`load`: in words, where other work has kept this machine busy for the last minute."""

    busy_share: float
    load: str = ""
    heats: tuple[Heat, ...] = ()
    gpus: tuple[GpuReading, ...] = ()


def why_unfit(found: Readings, backend: str) -> str:
    """Empty where the machine may be measured."""
    return "" if backend == "sim" else "; ".join(_reasons(found, backend))


def waited_for(
    backend: str,
    patience_s: float,
    read: Callable[[str], Readings] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Why it is unfit even after so long; what this command did a minute ago counts as load, and passes."""
    if backend == "sim":
        return ""
    waited_s = 0.0
    while (reason := why_unfit((read or readings)(backend), backend)) and waited_s < patience_s:
        sleep(POLL_S)
        waited_s += POLL_S
    return reason


def readings(backend: str) -> Readings:
    """Takes WATCHED_S. Not the GPUs where the backend leaves them alone."""
    import psutil

    busy_share = psutil.cpu_percent(interval=WATCHED_S) / 100
    gpus, heats = _gpus() if backend == "cuda" else ((), ())
    return Readings(busy_share, load_warning() or "", (*_cpu_heats(), *heats), tuple(gpus))


def _reasons(found: Readings, backend: str) -> Iterator[str]:
    if found.load:
        yield found.load
    if found.busy_share > MOST_BUSY_SHARE:
        cores = len(allowed_cores())
        yield f"other programs keep {found.busy_share:.0%} of {cores} cores busy; at most {MOST_BUSY_SHARE:.0%} may be"
    for heat in found.heats:
        if heat.now_c > heat.limit_c - NEAR_LIMIT_C:
            yield f"{heat.what} is at {heat.now_c:.0f} °C before anything is run, and slows down at {heat.limit_c:.0f}"
    for gpu in found.gpus if backend == "cuda" else ():
        if words := [word for bit, word in THROTTLED.items() if gpu.throttle_bits & bit]:
            yield f"{gpu.name} is slowed down ({', '.join(words)})"
        if gpu.busy_percent > MOST_GPU_BUSY_PERCENT:
            yield f"{gpu.name} is {gpu.busy_percent:.0f} % busy with others' work"


def _cpu_heats() -> Iterator[Heat]:
    import psutil

    if not hasattr(psutil, "sensors_temperatures"):
        return
    for chip, sensors in psutil.sensors_temperatures().items():
        for sensor in sensors:
            if sensor.high and sensor.current is not None:
                yield Heat(f"{chip} {sensor.label}".strip(), sensor.current, sensor.high)


def _gpus() -> tuple[Sequence[GpuReading], Sequence[Heat]]:
    """Nothing of a driver that does not answer: whether there is a GPU is the backend's question."""
    import pynvml as nvml

    found, heats = [], []
    try:
        nvml.nvmlInit()
        for index in range(nvml.nvmlDeviceGetCount()):
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            name = f"GPU {index}"
            bits = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))
            found.append(GpuReading(name, float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu), bits))
            now_c = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
            limit_c = nvml.nvmlDeviceGetTemperatureThreshold(gpu, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
            heats.append(Heat(name, float(now_c), float(limit_c)))
    except nvml.NVMLError:
        pass
    return found, heats
