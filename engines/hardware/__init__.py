"""The machines that can be simulated or paced: one YAML file each, every constant with its source.

A machine is data, never code: users add one with a YAML file of their own, by path.
"""

from engines.hardware.catalogue import HardwareError, catalogue_names, load_hardware
from engines.hardware.draws import drawn, uncertain
from engines.hardware.machine import (
    ByShape,
    ByTokens,
    Cpu,
    Disk,
    Gemm,
    Gpu,
    GpuAttention,
    Grade,
    Hardware,
    Interference,
    Link,
    Product,
    SmallOps,
    Source,
)

__all__ = [
    "ByShape",
    "ByTokens",
    "Cpu",
    "Disk",
    "Gemm",
    "Gpu",
    "GpuAttention",
    "Grade",
    "Hardware",
    "HardwareError",
    "Interference",
    "Link",
    "Product",
    "SmallOps",
    "Source",
    "catalogue_names",
    "drawn",
    "load_hardware",
    "uncertain",
]
