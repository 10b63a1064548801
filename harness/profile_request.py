"""What `harness profile` is asked for, and whether this machine can do it: said before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast, get_args

import psutil

from engines.model.config import ModelConfig, load_config
from harness.checks import require_native
from harness.costs import DTYPE_BYTES
from harness.environment import allowed_cores
from harness.errors import ConfigError
from harness.experiment import DType
from harness.plan import require_gpu
from harness.profile_file import ProfiledBackend, Setting, shape_of
from harness.profile_grid import Bounds
from harness.sizes import format_bytes
from harness.sizing import HOST_PAGE_TOKENS

KV_BYTES = {"cpu": 2**30, "cuda": 2**33}  # a layer's pages have to exceed the caches by far
HOST_KV_BYTES = 2**29
USUAL_CONTEXT = 2048
SMALLEST = 64  # tokens of a step or a context: below there is nothing to interpolate
MOST_MEMORY = 0.9  # of what is free


@dataclass(frozen=True)
class Request:
    backend: ProfiledBackend
    model: str
    dtype: DType
    accel_cores: int
    max_batch_tokens: int
    max_context: int | None  # None: 2048, or what the model can
    page_tokens: int
    quick: bool
    rounds: int = 0  # as many as the grid asks for
    beside: bool = True  # every op once more while the other units are busy; needs a core for the host

    @cached_property
    def shape(self) -> ModelConfig:
        return load_config(self.model)

    @property
    def kv_bytes_per_token(self) -> int:
        return self.shape.layers * self.shape.kv_bytes_per_token_per_layer(DTYPE_BYTES[self.dtype])

    @cached_property
    def bounds(self) -> Bounds:
        return self._bounds(KV_BYTES[self.backend], self.page_tokens)

    @cached_property
    def host_bounds(self) -> Bounds:
        return self._bounds(HOST_KV_BYTES, HOST_PAGE_TOKENS)

    @property
    def host_threads(self) -> int:
        """Those beside the accelerator's; a GPU leaves all but the one that launches."""
        return len(allowed_cores()) - (self.accel_cores if self.backend == "cpu" else 1)

    def setting(self, rounds: int) -> Setting:
        return Setting(
            backend=self.backend,
            model=self.shape.name,
            shape=shape_of(self.shape),
            dtype=self.dtype,
            accel_cores=self.accel_cores if self.backend == "cpu" else 0,
            host_threads=self.host_threads,
            accel_page_tokens=self.page_tokens,
            host_page_tokens=HOST_PAGE_TOKENS,
            max_batch_tokens=self.bounds.max_batch_tokens,
            max_context=self.bounds.max_context,
            kv_tokens=self.bounds.kv_tokens,
            rounds=rounds,
            grid="quick" if self.quick else "full",
        )

    def _bounds(self, size_bytes: int, page_tokens: int) -> Bounds:
        """Whole pages; at least two requests of the longest context."""
        context = self.max_context or min(USUAL_CONTEXT, self.shape.max_positions)
        tokens = max(size_bytes // (4 if self.quick else 1) // self.kv_bytes_per_token, 2 * context)
        return Bounds(self.max_batch_tokens, context, -(-tokens // page_tokens) * page_tokens, self.quick)


def checked_request(
    out: Path,
    backend: str,
    model: str,
    dtype: str,
    accel_cores: int = 1,
    max_batch_tokens: int = 2048,
    max_context: int | None = None,
    page_tokens: int = 16,
    quick: bool = False,
    beside: bool = True,
    rounds: int = 0,
) -> Request:
    """ConfigError with every reason why it cannot be measured, or not be written."""
    if backend not in get_args(ProfiledBackend):
        raise ConfigError(f"--backend {backend}: nothing runs there that could be measured; use cpu or cuda")
    if dtype not in get_args(DType):
        raise ConfigError(f"--dtype {dtype}: expected one of {', '.join(get_args(DType))}")
    request = Request(
        cast(ProfiledBackend, backend),
        model,
        cast(DType, dtype),
        accel_cores,
        max_batch_tokens,
        max_context,
        page_tokens,
        quick,
        rounds,
        beside,
    )
    problems = [*_mistakes(request, out)]
    if problems:
        raise ConfigError(problems)
    require_native(request.backend)
    if request.backend == "cuda":
        require_gpu()
    return request


def _mistakes(request: Request, out: Path) -> Iterator[str]:
    shape, bounds = request.shape, request.bounds
    if shape.layers < 2:
        yield f"--model {request.model}: has one layer; what lies between two layers cannot be measured"
    if bounds.max_context > shape.max_positions:
        yield f"--max-context {bounds.max_context}: {shape.name} ends at {shape.max_positions}"
    if request.backend == "cpu" and request.accel_cores > len(allowed_cores()):
        yield f"--accel-cores {request.accel_cores}: this process may use {len(allowed_cores())}"
    if out.is_dir() or not out.parent.is_dir():
        yield f"--out {out}: {'is a folder' if out.is_dir() else f'there is no folder {out.parent}'}; name a file"
    needed = shape.weight_bytes(DTYPE_BYTES[request.dtype]) + request.kv_bytes_per_token * (
        bounds.kv_tokens + request.host_bounds.kv_tokens
    )
    free = psutil.virtual_memory().available
    if request.backend == "cpu" and needed > MOST_MEMORY * free:
        yield f"--model {request.model}: needs {format_bytes(needed)}, {format_bytes(free)} are free on this machine"
