"""ggml's flash attention alone, for `harness bench attention`: engines/process/turns.py runs it in its own environment.

ggml comes with the package llama-cpp-python; its C interface is called directly. All layers are nodes of one graph, so
that starting its threads is paid once per run.
"""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Callable
from ctypes import POINTER, Structure, byref, c_bool, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

F32, F16 = 0, 1  # ggml's numbers of types
SUCCESS = 0
NODE_BYTES = 2048  # of bookkeeping per tensor, and some
OWN_BYTES = 2**20
SOME_NUMBERS = 2**16


def laid_out(order: dict[str, Any]) -> Callable[[], None] | None:
    """In float16 alone, which is what ggml keeps K and V in by itself."""
    return _ggml().laid_out(order) if order["dtype"] == "float16" else None


@cache
def _ggml() -> Ggml:
    return Ggml()


class InitParams(Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class Plan(Structure):
    """How a graph is computed; what versions of ggml add comes at the end."""

    _fields_ = (
        ("work_size", c_size_t),
        ("work_data", c_void_p),
        ("n_threads", c_int),
        ("threadpool", c_void_p),
        ("abort_callback", c_void_p),
        ("abort_data", c_void_p),
        ("added_since", c_size_t * 8),
    )


class Ggml:
    def __init__(self) -> None:
        spec = find_spec("llama_cpp")
        if spec is None or spec.origin is None:
            raise SystemExit("llama-cpp-python is not installed here")
        folder = Path(spec.origin).parent / "lib"
        # In the order in which they need one another.
        self._base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self._cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
        base, cpu = self._base, self._cpu
        base.ggml_init.argtypes, base.ggml_init.restype = [InitParams], c_void_p
        base.ggml_free.argtypes, base.ggml_free.restype = [c_void_p], None
        base.ggml_new_tensor_4d.argtypes = [c_void_p, c_int, c_int64, c_int64, c_int64, c_int64]
        base.ggml_new_tensor_4d.restype = c_void_p
        base.ggml_get_data.argtypes, base.ggml_get_data.restype = [c_void_p], c_void_p
        base.ggml_nbytes.argtypes, base.ggml_nbytes.restype = [c_void_p], c_size_t
        base.ggml_flash_attn_ext.argtypes = [c_void_p] * 5 + [c_float] * 3
        base.ggml_flash_attn_ext.restype = c_void_p
        base.ggml_new_graph_custom.argtypes = [c_void_p, c_size_t, c_bool]
        base.ggml_new_graph_custom.restype = c_void_p
        base.ggml_build_forward_expand.argtypes, base.ggml_build_forward_expand.restype = [c_void_p, c_void_p], None
        base.ggml_fp32_to_fp16_row.argtypes = [c_void_p, c_void_p, c_int64]
        base.ggml_fp32_to_fp16_row.restype = None
        cpu.ggml_cpu_init.argtypes, cpu.ggml_cpu_init.restype = [], None
        cpu.ggml_graph_plan.argtypes, cpu.ggml_graph_plan.restype = [c_void_p, c_int, c_void_p], Plan
        cpu.ggml_graph_compute.argtypes, cpu.ggml_graph_compute.restype = [c_void_p, POINTER(Plan)], c_int
        cpu.ggml_cpu_init()
        self._context: int | None = None

    def laid_out(self, order: dict[str, Any]) -> Callable[[], None]:
        if self._context is not None:
            self._base.ggml_free(self._context)
        dim, tokens, batch, layers = order["head_dim"], order["context"], order["batch"], order["layers"]
        kv_bytes = 2 * 2 * dim * tokens * order["kv_heads"] * batch
        row_bytes = 2 * 4 * dim * order["query_heads"] * batch
        size = layers * (kv_bytes + row_bytes + 8 * NODE_BYTES) + OWN_BYTES
        self._context = context = self._base.ggml_init(InitParams(size, None, False))
        graph = self._base.ggml_new_graph_custom(context, 4 * layers + 16, False)
        numbers = self._halves()
        for _ in range(layers):
            query = self._tensor(F32, dim, 1, order["query_heads"], batch)
            _fill(self._base.ggml_get_data(query), self._base.ggml_nbytes(query), _floats())
            keys, values = (self._tensor(F16, dim, tokens, order["kv_heads"], batch) for _ in range(2))
            for pages in (keys, values):
                _fill(self._base.ggml_get_data(pages), self._base.ggml_nbytes(pages), numbers)
            node = self._base.ggml_flash_attn_ext(context, query, keys, values, None, 1 / math.sqrt(dim), 0.0, 0.0)
            self._base.ggml_build_forward_expand(graph, node)
        plan = self._cpu.ggml_graph_plan(graph, len(order["cores"]), None)
        scratch = ctypes.create_string_buffer(plan.work_size + 64)
        plan.work_data = ctypes.addressof(scratch)

        def run() -> None:
            if self._cpu.ggml_graph_compute(graph, byref(plan)) != SUCCESS:
                raise SystemExit(f"ggml: its graph failed, with {len(scratch)} bytes of scratch")

        return run

    def _tensor(self, kind: int, *sizes: int) -> int:
        return int(self._base.ggml_new_tensor_4d(self._context, kind, *sizes))

    def _halves(self) -> bytes:
        floats = _floats()
        halves = ctypes.create_string_buffer(len(floats) // 2)
        self._base.ggml_fp32_to_fp16_row(floats, halves, len(floats) // 4)
        return halves.raw


def _floats() -> bytes:
    draw = Random(0)
    return array("f", [draw.gauss(0.0, 1.0) for _ in range(SOME_NUMBERS)]).tobytes()


def _fill(address: int, size: int, pattern: bytes) -> None:
    for first in range(0, size, len(pattern)):
        ctypes.memmove(address + first, pattern, min(len(pattern), size - first))
