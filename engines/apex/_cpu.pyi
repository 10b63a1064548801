"""Types of the native module; the shapes are in engines/apex/attention.py."""

from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Array: TypeAlias = torch.Tensor | NDArray[Any]
Ids: TypeAlias = torch.Tensor | NDArray[np.int32]

CHUNK_TOKENS: int

class PoolError(RuntimeError): ...

class Pool:
    def __init__(self, threads: int, cores: list[int] | None = None, spin_us: int = 50) -> None: ...
    def submit_decode_attention(
        self,
        query: Array,
        key_pages: Array,
        value_pages: Array,
        page_table: Ids,
        context_lens: Ids,
        out: Array,
        scale: float,
        lse: Array | None = None,
    ) -> int: ...
    def done(self, ticket: int) -> bool: ...
    def wait(self, ticket: int) -> None: ...
    def span(self, ticket: int) -> tuple[float, float]: ...
    def time_dispatch(
        self,
        query: Array,
        key_pages: Array,
        value_pages: Array,
        page_table: Ids,
        context_lens: Ids,
        out: Array,
        scale: float,
        repeats: int,
        pause_us: int = 0,
    ) -> list[list[float]]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def busy_s(self) -> float: ...
    @property
    def closed(self) -> bool: ...

def available_isas() -> list[str]: ...
def get_isa() -> str: ...
def set_isa(name: str) -> None: ...
def get_prefetch() -> str: ...
def set_prefetch(mode: str) -> None: ...
def decode_attention(
    query: Array,
    key_pages: Array,
    value_pages: Array,
    page_table: Ids,
    context_lens: Ids,
    out: Array,
    scale: float,
    pool: Pool | None = None,
    lse: Array | None = None,
) -> None: ...
def append_kv(key: Array, value: Array, key_pages: Array, value_pages: Array, page_ids: Ids, offsets: Ids) -> None: ...
def copy_tokens(
    src_pages: Array,
    src_table: Ids | None,
    dst_pages: Array,
    dst_table: Ids | None,
    tokens: int,
    src_start: int = 0,
    dst_start: int = 0,
) -> None: ...
def merge_partials(
    out_a: Array, lse_a: Array, out_b: Array, lse_b: Array, out: Array, lse_out: Array | None = None
) -> None: ...
def time_reading(memory: Array, pattern: str, cores: list[int]) -> tuple[float, int]: ...
