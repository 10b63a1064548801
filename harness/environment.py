"""The machine a run is made on, for its manifest. Never fails: a fact that cannot be had says so in words."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from harness.gpu import local_gpus

PACKAGES = ("hybrid-harness", "torch", "transformers", "numpy", "scipy", "pandas", "pyarrow", "safetensors")
FLAGS_OF_INTEREST = ("avx2", "f16c", "fma", "avx512f", "avx512bw", "avx512_bf16", "avx512_vnni", "amx_bf16")
UNKNOWN = "unknown"


def machine_facts() -> dict[str, object]:
    gpus, reason = local_gpus()
    facts: dict[str, object] = {
        "cpu": cpu_model(),
        "cpu_flags": cpu_flags(),
        "cores": len(allowed_cores()),
        "memory_bytes": total_memory_bytes(),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "gpus": [asdict(gpu) for gpu in gpus] or f"none: {reason}",
        "load_average": load_average(),
    }
    warning = load_warning()
    return facts | ({"load_warning": warning} if warning else {})


def versions() -> dict[str, object]:
    found: dict[str, object] = {"python": platform.python_version(), "implementation": sys.implementation.name}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> tuple[str | None, bool | None]:
    """(commit, uncommitted changes) of the checkout this code runs from, or (None, None) when it is installed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None, None
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    changes = _git(root, "status", "--porcelain")
    return commit or None, None if changes is None else bool(changes)


def commit_date(commit: str) -> str:
    """ISO, as the checkout that this code runs from has it; empty where that does not know the commit."""
    root = Path(__file__).resolve().parents[1]
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit) or not (root / ".git").exists():
        return ""
    return _git(root, "show", "--no-patch", "--format=%cI", commit) or ""


def allowed_cores() -> list[int]:
    """The cores this process may use, which a container or a job scheduler makes fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def confined(cores: Sequence[int]) -> Iterator[None]:
    """This thread, and threads that it starts meanwhile, on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or UNKNOWN


def cpu_flags() -> list[str]:
    """Those instruction sets that the native kernels care about."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [flag for flag in FLAGS_OF_INTEREST if flag in flags]


def total_memory_bytes() -> int | str:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return UNKNOWN


def load_average() -> float | str:
    """Over the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return UNKNOWN


def load_warning() -> str | None:
    """Said where somebody else's work would be measured as ours."""
    load, cores = load_average(), os.cpu_count() or 1
    if isinstance(load, str) or load <= cores:
        return None
    return f"this machine was busy when the run began: load average {load:g} on {cores} cores; times may be too long"


def _cpuinfo(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
