"""The real vLLM as an engine of its own, beside our `gpu_only`, which stands for it where vLLM cannot run.

Not here: vLLM itself. It is started from an environment of its own (`make vllm-cpu`, `make vllm-cuda`), because it pins
torch and a hundred other packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.process.adapter import ProcessAdapter, Worker, found_python

if TYPE_CHECKING:
    from engines.core.adapter import EngineAdapter, Site

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = tuple(folder / ".venv-vllm" / "bin" / "python" for folder in (Path(), CHECKOUT))
HOW_TO_GET_IT = "run `make vllm-cpu` (or `make vllm-cuda` on a GPU host), or give python: PATH"
# OpenMP and an allocator that vLLM asks for on a CPU and warns without, where they are found.
PRELOADED = ("lib/libiomp5.so", "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")


@dataclass(frozen=True, slots=True)
class Vllm:
    """The real vLLM, in a process and an environment of its own."""

    python: str = ""  # of vLLM's environment; .venv-vllm here or beside the checkout when not given
    eager: bool = False  # skip torch.compile: starts in seconds instead of a minute, and runs slower
    prefix_caching: bool = False
    engine_args: Mapping[str, Any] = field(default_factory=dict)  # further arguments of vllm.EngineArgs, by their names
    start_limit_s: float = 900.0

    def __post_init__(self) -> None:
        if not self.start_limit_s > 0:
            raise ValueError(f"start_limit_s: must be above 0, not {self.start_limit_s}")

    @staticmethod
    def unavailable() -> str | None:
        return None if found_python("", ENVIRONMENTS) else f"its environment is not here: {HOW_TO_GET_IT}"

    @property
    def runs_model(self) -> bool:
        return True

    def problems(self, backend: str, paced: bool) -> list[str]:
        if backend == "sim":
            return ["is the real one and cannot be simulated; gpu_only stands for it there"]
        if backend == "endpoint":
            return ["runs here; for a server that is already running use kind: openai"]
        if paced:
            return ["is the real one and cannot be paced; set emulation.mode: native"]
        if found_python(self.python, ENVIRONMENTS) is None:
            missing = f"no Python at {self.python}" if self.python else "its environment is not here"
            return [f"{missing}: {HOW_TO_GET_IT}"]
        return []

    def open(self, site: Site) -> EngineAdapter:
        python = found_python(self.python, ENVIRONMENTS)
        assert python is not None, "problems() has been asked"
        settings = {
            "eager": self.eager,
            "prefix_caching": self.prefix_caching,
            "engine_args": dict(self.engine_args),
            "kv_bytes_per_token": site.kv_bytes_per_token,
        }
        environment = _cpu_environment(python, site) if site.backend == "cpu" else {}
        worker = Worker(
            "vllm", python, Path(__file__).with_name("worker.py"), settings, environment, self.start_limit_s
        )
        return ProcessAdapter(worker, site)


def _cpu_environment(python: str, site: Site) -> dict[str, str]:
    """vLLM's own process binds no threads when its engine core is in-process, so the libraries are told beforehand."""
    root = Path(python).parent.parent
    found = [str(path) for path in (root / name for name in PRELOADED) if path.is_file()]
    preload = {"LD_PRELOAD": ":".join(found)} if found else {}
    return {"OMP_NUM_THREADS": str(site.accel_cores), "VLLM_CPU_OMP_THREADS_BIND": "nobind", **preload}
