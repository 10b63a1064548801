"""What the driver of an NVIDIA GPU tells about it, and the energy that an output token took.

Every reading is tried once at the start: what this GPU, driver or user may not give is unavailable, with the driver's
own words. Nothing is imported before that, and no CUDA context is made.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.collectors.base import Row

READINGS: dict[str, Callable[[Any, Any], float]] = {
    "gpu_utilisation_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "gpu_memory_utilisation_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).memory,
    "gpu_memory_used_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "gpu_power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "gpu_energy_j": lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,  # since the driver loaded
    "gpu_sm_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "gpu_memory_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
    "gpu_throttle_reasons_bits": lambda nvml, gpu: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
    "gpu_temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
}


class GpuCollector:
    """One GPU of those in CUDA_VISIBLE_DEVICES, which the driver itself ignores; without it, in PCI order.

    Where GPUs differ, CUDA counts in that order only with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """

    columns = tuple(READINGS)

    def __init__(self, index: int = 0) -> None:
        self.unavailable: dict[str, str] = {}
        self._index = index
        self._nvml: Any = None
        self._gpu: Any = None

    def start(self) -> None:
        try:
            self._nvml = _import_nvml()
            self._nvml.nvmlInit()
        except ImportError as error:
            return self._give_up(f"nvidia-ml-py is not installed: {error}")
        except Exception as error:  # the binding's own classes, known only once it is imported
            return self._give_up(f"no NVIDIA driver: {error}")
        try:
            self._gpu = _handle(self._nvml, self._index, os.environ.get("CUDA_VISIBLE_DEVICES"))
        except Exception as error:
            self.close()
            return self._give_up(f"no GPU {self._index}: {error}")
        for column, read in READINGS.items():
            try:
                read(self._nvml, self._gpu)
            except Exception as error:
                self.unavailable[column] = str(error) or type(error).__name__
        return None

    def sample(self) -> Row:
        row = {}
        for column, read in READINGS.items():
            if column in self.unavailable:
                continue
            try:
                row[column] = float(read(self._nvml, self._gpu))
            except Exception as error:
                self.unavailable[column] = f"stopped answering: {error}"
        return row

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def _give_up(self, why: str) -> None:
        self._nvml = None
        self.unavailable = dict.fromkeys(READINGS, why)


def _import_nvml() -> Any:
    # The abandoned package of that name warns at import; its readings are the same, so the warning helps nobody.
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
    import pynvml

    return pynvml


def _handle(nvml: Any, index: int, visible: str | None) -> Any:
    if visible is None:
        return nvml.nvmlDeviceGetHandleByIndex(index)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if index >= len(names):
        raise LookupError(f"CUDA_VISIBLE_DEVICES names {len(names)} GPUs")
    name = names[index]
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)


# --- energy -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EnergyPerToken:
    """`label`: "measured" by the GPU's counter, "estimated" from power samples, or "unavailable" with the reason."""

    j_per_output_token: float | None
    label: str
    why: str


@dataclass(slots=True)
class EnergyMeter:
    """GPU energy from the first sample to the last, of which no sample has to be kept. The host's is not in it."""

    first_j: float | None = None  # the counter
    last_j: float | None = None
    counts: int = 0
    integral_j: float = 0.0  # of power over time, by trapezoids
    powers: int = 0
    _before: tuple[float, float] = (0.0, 0.0)  # time and power of the last power sample

    def add(self, row: Mapping[str, float]) -> None:
        if "gpu_energy_j" in row:
            self.first_j = row["gpu_energy_j"] if self.first_j is None else self.first_j
            self.last_j = row["gpu_energy_j"]
            self.counts += 1
        if "gpu_power_w" in row:
            now = (row["time_s"], row["gpu_power_w"])
            if self.powers:
                self.integral_j += (now[0] - self._before[0]) * (now[1] + self._before[1]) / 2
            self._before = now
            self.powers += 1

    def per_output_token(self, output_tokens: float, why_not: str = "") -> EnergyPerToken:
        """`output_tokens`: those put out while samples were taken. `why_not`: why there may be no samples at all."""
        if not output_tokens > 0:
            return EnergyPerToken(None, "unavailable", "no output tokens")
        if self.counts >= 2 and self.first_j is not None and self.last_j is not None and self.last_j >= self.first_j:
            return EnergyPerToken((self.last_j - self.first_j) / output_tokens, "measured", "the GPU's energy counter")
        if self.powers >= 2:
            return EnergyPerToken(self.integral_j / output_tokens, "estimated", "power samples, integrated")
        return EnergyPerToken(None, "unavailable", why_not or "neither an energy counter nor power samples")


def energy_per_output_token(rows: Iterable[Mapping[str, float]], output_tokens: float) -> EnergyPerToken:
    """The same over samples that were kept."""
    meter = EnergyMeter()
    for row in rows:
        meter.add(row)
    return meter.per_output_token(output_tokens)
