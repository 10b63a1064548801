"""What this machine can run and what is missing, in words that say what to do about it. Changes nothing."""

from __future__ import annotations

import importlib
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from harness.environment import allowed_cores, cpu_flags, cpu_model
from harness.gpu import LocalGpu, local_gpus, torch_reaches_gpu
from harness.sizes import format_bytes

State = Literal["ok", "warning", "missing"]
OLDEST_PYTHON = (3, 11)
ENOUGH_MEMORY_BYTES = 4 * 2**30  # the quickstart and the tests


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    state: State
    detail: str


def examine() -> list[Finding]:
    """Machine first, then tools, then the backends these add up to."""
    gpus, no_gpu = local_gpus()
    native = _native()
    torch = _torch()
    findings = [_python(), _cpu(), _memory(), torch, native, _gpu(gpus, no_gpu), *_tools(), *_engines()]
    return [*findings, *_backends(torch, native, gpus)]


def is_fit(findings: list[Finding]) -> bool:
    """Whether everything works that works without a GPU."""
    needed = {"backend sim", "backend cpu"}
    return all(finding.state != "missing" for finding in findings if finding.check in needed)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "missing", f"{version}; at least 3.11 is needed")
    return Finding("python", "ok", version)


def _cpu() -> Finding:
    cores = allowed_cores()
    detail = f"{cpu_model()}, {len(cores)} cores usable, {' '.join(cpu_flags()) or 'no vector extensions known to us'}"
    if len(cores) < 2:
        return Finding("cpu", "warning", f"{detail}; emulation wants a core for the accelerator and one for the host")
    return Finding("cpu", "ok", detail)


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    state: State = "ok" if memory.available >= ENOUGH_MEMORY_BYTES else "warning"
    return Finding("memory", state, f"{format_bytes(memory.available)} free of {format_bytes(memory.total)}")


def _torch() -> Finding:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken installation raises anything
        return Finding("torch", "missing", f"cannot be imported ({_short(error)}); run `make install`")
    return Finding("torch", "ok", str(torch.__version__))


def _native() -> Finding:
    """The C++ host attention, and which instruction set it chose here."""
    try:
        module = importlib.import_module("engines.apex._cpu")
    except Exception as error:
        return Finding("native extension", "missing", f"engines.apex._cpu ({_short(error)}); run `make install`")
    others = ", ".join(sorted(set(module.available_isas()) - {module.get_isa()}))
    return Finding("native extension", "ok", f"kernels for {module.get_isa()} (also here: {others or 'no other'})")


def _gpu(gpus: list[LocalGpu], reason: str) -> Finding:
    if not gpus:
        return Finding("gpu", "warning", f"none: {reason}")
    names = ", ".join(f"{gpu.name} ({format_bytes(gpu.memory_bytes)})" for gpu in gpus)
    return Finding("gpu", "ok", f"{names}, driver {gpus[0].driver}")


def _tools() -> Iterator[Finding]:
    """Only needed to build the extension, so their absence is no fault of an installed package."""
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    yield Finding("C++ compiler", "ok", compiler) if compiler else Finding("C++ compiler", "warning", "none on PATH")
    make = shutil.which("make")
    yield Finding("make", "ok", make) if make else Finding("make", "warning", "none on PATH")


def _engines() -> Iterator[Finding]:
    """One that is missing is a warning: everything else works without it."""
    from harness.engines_here import OK, engines_here

    for engine in engines_here():
        if engine.state == OK:
            yield Finding(f"engine {engine.kind}", "ok", f"{engine.form}, {engine.origin}")
        else:
            yield Finding(f"engine {engine.kind}", "warning", f"{engine.state} ({engine.origin})")


def _backends(torch: Finding, native: Finding, gpus: list[LocalGpu]) -> Iterator[Finding]:
    yield Finding("backend sim", "ok", "needs nothing: numbers are simulated")
    lacking = [finding.check for finding in (torch, native) if finding.state == "missing"]
    if lacking:
        yield Finding("backend cpu", "missing", f"needs {' and '.join(lacking)}")
        yield Finding("backend cuda", "warning", f"needs {' and '.join(lacking)}")
        return
    yield Finding("backend cpu", "ok", "numbers are emulated")
    problem = torch_reaches_gpu() if gpus else "no GPU here"
    yield Finding("backend cuda", "warning" if problem else "ok", problem or "numbers are measured")


def _short(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
