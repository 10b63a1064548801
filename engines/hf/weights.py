"""Where the weights are: all on the accelerator, taken away by Accelerate's hooks, or spread by a device map.

Not here: what is computed with them (worker.py, which runs in the same process).
"""

from __future__ import annotations

import importlib
import shutil
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

Settings = Mapping[str, Any]

transformers: Any = importlib.import_module("transformers")


def load(settings: Settings) -> Any:
    wish: dict[str, Any] = {"dtype": getattr(torch, settings["dtype"]), "attn_implementation": settings["attention"]}
    if settings["device_map"]:
        wish |= {"device_map": settings["device_map"], "max_memory": max_memory(settings)}
        wish["offload_folder"] = settings["files"]  # for weights that cannot be used as the model's files have them
    folder, model_class = settings["model"], transformers.AutoModelForCausalLM
    model = model_class.from_pretrained(folder, local_files_only=True, use_safetensors=True, **wish).eval()
    # `generate` takes what we leave open from the folder: end tokens, and penalties that bend even greedy choices.
    model.generation_config = transformers.GenerationConfig()
    if not settings["device_map"]:
        return placed(model, settings)
    if not places(model, settings)["accel"] and settings["backend"] != "cpu":
        raise RuntimeError("device_map: nothing fits on the GPU, so that the CPU would compute; raise max_memory")
    return model


def placed(model: Any, settings: Settings) -> Any:
    """All of it on the accelerator, or nothing but what is being computed with."""
    device, folder = accelerator(settings), settings["files"]
    if settings["offload"] == "none":
        return model.to(device)
    import accelerate

    if settings["offload"] == "cpu":
        return accelerate.cpu_offload(model, execution_device=device)
    needed, free = sum(places(model, settings).values()), shutil.disk_usage(folder).free
    if needed > free:  # the files are mapped: a full disk would end the process without a word
        raise RuntimeError(f"offload: disk needs {needed:,} bytes in {folder}, {free:,} are free; set offload_folder")
    return accelerate.disk_offload(model, folder, execution_device=device)


def max_memory(settings: Settings) -> dict[int | str, int] | None:
    """As given. The accelerator's is what the envelope leaves beside the KV; without any, the host has what is free."""
    if not isinstance(settings["device_map"], str):
        return None
    import psutil
    from accelerate.utils import convert_file_size_to_int

    on_cpu, given = settings["backend"] == "cpu", settings["max_memory"]
    kv_bytes = settings["accel_kv_tokens"] * settings["kv_bytes_per_token"]
    found = {"cpu" if on_cpu else "0": settings["accel_memory_bytes"] - kv_bytes}
    if not on_cpu and not given:
        found["cpu"] = psutil.virtual_memory().available
    sizes = {device: convert_file_size_to_int(size) for device, size in {**found, **given}.items()}
    return {int(device) if device.isdigit() else device: size for device, size in sizes.items()}


def accelerator(settings: Settings) -> torch.device:
    return torch.device("cpu") if settings["backend"] == "cpu" else torch.device("cuda", 0)


def places(model: Any, settings: Settings) -> Counter[str]:
    """Bytes of weights at home on the accelerator, the host and the disk. Tied ones are there once."""
    tied = getattr(model, "all_tied_weights_keys", {})
    found = Counter({"accel": 0, "host": 0, "disk": 0})
    for name, weight in model.named_parameters():
        if name not in tied:
            found[place(name, weight, model, settings)] += weight.nbytes
    return found


def place(name: str, weight: torch.Tensor, model: Any, settings: Settings) -> str:
    if not weight.is_meta:
        return "accel" if weight.device.type == accelerator(settings).type else "host"
    device = settings["offload"]
    if settings["device_map"]:
        above = [module for module in model.hf_device_map if f"{name}.".startswith(f"{module}." if module else "")]
        device = model.hf_device_map[max(above, key=len)]
    return "disk" if device == "disk" else "host"


def largest_visitor_bytes(model: Any) -> int:
    """Weights that are elsewhere come module by module, each with its own, and go again."""
    visits = (
        (weight.nbytes for weight in module.parameters(recurse=False) if weight.is_meta) for module in model.modules()
    )
    return max(map(sum, visits))


def resolved(model: Any, settings: Settings, threads: int) -> dict[str, Any]:
    """What it got, in the words of the fairness table."""
    at, on_cpu = places(model, settings), settings["backend"] == "cpu"
    away = at["host"] + at["disk"]
    found: dict[str, Any] = {
        "accel_kv_tokens": settings["accel_kv_tokens"],
        "accel_kv_bytes": settings["accel_kv_tokens"] * settings["kv_bytes_per_token"],
        "host_kv_tokens": 0,
        "weight_bytes": at.total(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_batch": min(settings["batch"], settings["max_batch"], settings["max_batch_tokens"]),
        "max_batch_tokens": settings["max_batch_tokens"],
        "cpu_threads": 0 if on_cpu or not away else threads,
        "accel_cores": threads if on_cpu else 0,
        "device": accelerator(settings).type,
        "attention": model.config._attn_implementation,
        "batching": "static: a batch runs to its end before the next one starts",
        "offload": settings["offload"],
    }
    if away:
        found["accel_weight_bytes"] = at["accel"] + largest_visitor_bytes(model)
        found |= {"host_weight_bytes": at["host"], "disk_weight_bytes": at["disk"]}
    if settings["device_map"]:
        modules = Counter(str(device) for device in getattr(model, "hf_device_map", {}).values())
        spread = ", ".join(f"{count} modules on {device}" for device, count in modules.items())
        found["device_map"] = spread or f"everything on {model.device}"  # there is no map where nothing is spread
    return found | {name: release(name) for name in ("torch", "transformers", "accelerate")}


def release(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
