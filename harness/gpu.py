"""Which NVIDIA GPUs this machine has, asked of the driver: no torch, and an answer even where there is no driver."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LocalGpu:
    name: str
    memory_bytes: int
    driver: str


def local_gpus() -> tuple[list[LocalGpu], str]:
    """The GPUs, and when there is none, why."""
    try:
        import pynvml
    except ImportError as error:
        return [], f"nvidia-ml-py is not installed: {error}"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], f"no NVIDIA driver: {error}"
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus = [
            LocalGpu(_text(pynvml.nvmlDeviceGetName(handle)), int(pynvml.nvmlDeviceGetMemoryInfo(handle).total), driver)
            for handle in handles
        ]
        return gpus, "" if gpus else "the driver sees no GPU"
    except pynvml.NVMLError as error:
        return [], f"the NVIDIA driver does not answer: {error}"
    finally:
        pynvml.nvmlShutdown()


def torch_reaches_gpu() -> str:
    """Why torch cannot use CUDA here; empty when it can. Importing torch takes seconds: ask the driver first."""
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported: {error}"
    if not torch.cuda.is_available():
        return f"this torch ({torch.__version__}) cannot use CUDA here"
    return ""


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
