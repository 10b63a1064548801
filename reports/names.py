"""What the keys of records are called in the page. The key itself stays at hand as a tooltip; nothing is renamed."""

from __future__ import annotations

import re

_KNOWN = {
    "accel_memory": "Accelerator memory",
    "accel_memory_bytes": "Accelerator memory",
    "host_memory": "Host memory",
    "host_memory_bytes": "Host memory",
    "accel_kv_tokens": "KV tokens, accelerator",
    "accel_kv_blocks": "KV blocks, accelerator",
    "accel_kv_bytes": "KV memory, accelerator",
    "accel_page_tokens": "Tokens per block, accelerator",
    "host_kv_tokens": "KV tokens, host",
    "host_kv_blocks": "KV blocks, host",
    "host_kv_bytes": "KV memory, host",
    "host_page_tokens": "Tokens per block, host",
    "kv_bytes_per_block": "Memory per KV block",
    "weight_bytes": "Weights",
    "workspace_bytes": "Workspace",
    "dtype": "Data type",
    "max_batch": "Largest batch (requests)",
    "max_batch_tokens": "Largest batch (tokens)",
    "cpu_threads": "CPU threads",
    "accel_cores": "Accelerator cores (emulated)",
    "attention": "Attention kernels",
    "attention.accel": "Attention kernels, accelerator",
    "attention.host": "Attention kernels, host",
    "pace": "Emulation",
    "torch": "PyTorch",
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "itl_s": "ITL",
    "e2e_s": "E2E",
    "normalized_latency_s_per_token": "normalized latency",
    "scheduler_us": "scheduler time",
    "prediction_error_percent": "prediction error",
}
_ACRONYMS = {
    word: word.upper() for word in ("kv", "gpu", "cpu", "h2d", "d2h", "slo", "sm", "ttft", "tpot", "itl", "e2e")
}
_UNITS = frozenset({"s", "us", "w", "j", "mhz", "c", "bytes", "percent", "bits"})
_STATISTIC = re.compile(r"mean|max|p\d+")


def title(key: str) -> str:
    """A row's or a field's name: `host_kv_blocks` is `KV blocks, host`, `a.fused_rope` `A, fused rope`."""
    return _KNOWN.get(key) or _upper(", ".join(_words(part) for part in key.split(".")))


def metric(key: str) -> str:
    """A metric's name within a sentence, without its unit."""
    return _KNOWN.get(key) or _words(key)


def _words(key: str) -> str:
    words = key.split("_")
    unit = -2 if len(words) > 2 and _STATISTIC.fullmatch(words[-1]) else -1
    if len(words) > 1 and words[unit] in _UNITS:
        del words[unit]
    return " ".join(_ACRONYMS.get(word, word) for word in words)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
