"""What `harness bench attention` runs beside our kernel: torch's own attention here, others in their environments.

A contender reads the K and V of several layers once per run and says how long that took. All of them get contiguous K
and V, or the pages they like best; none of them is charged for laying them out.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from engines.apex import attention
from engines.core.clock import stopwatch
from engines.ggml.environment import GGML_ENVIRONMENTS
from engines.process.adapter import found_python
from engines.vllm.options import ENVIRONMENTS as VLLM_ENVIRONMENTS
from harness.bench_attention_memory import COLD_BYTES, PAGE_TOKENS, Arena, Shape, dtype_name

RIVAL_BYTES = 2**27  # per run: some of them are thirty times slower
END_WITHIN_S = 10.0
ENGINES = Path(__file__).parent.parent / "engines"
TURNS = ENGINES / "process" / "turns.py"


class Contender(Protocol):
    """`bytes`: of K and V, read per run."""

    impl: str
    bytes: int

    def run(self) -> float:
        """Seconds."""

    def close(self) -> None: ...


class Ours:
    """Layer after layer is submitted to the pool, as an engine does; pages lie in no order."""

    impl = "ours"

    def __init__(self, arena: Arena, shape: Shape, cores: Sequence[int]) -> None:
        pages = shape.batch * (shape.context // PAGE_TOKENS)
        paged = (pages, shape.kv_heads, PAGE_TOKENS, shape.head_dim)
        self._layers = [(keys.view(paged), values.view(paged)) for keys, values in arena.layers(shape, COLD_BYTES)]
        self.bytes = len(self._layers) * shape.bytes(arena.dtype)
        order = torch.randperm(pages, generator=torch.Generator().manual_seed(1)).to(torch.int32)
        self._table = order.view(shape.batch, -1)
        self._contexts = torch.full((shape.batch,), shape.context, dtype=torch.int32)
        self._query = torch.randn(shape.batch, shape.query_heads, shape.head_dim).to(arena.dtype)
        self._out = torch.empty_like(self._query)
        self._scale = shape.head_dim**-0.5
        self._pool = attention.Pool(len(cores), list(cores))

    def run(self) -> float:
        begin_s = stopwatch()
        tickets = [
            attention.submit_decode_attention(
                self._pool, self._query, keys, values, self._table, self._contexts, self._out, self._scale
            )
            for keys, values in self._layers
        ]
        for ticket in tickets:
            self._pool.wait(ticket)
        return stopwatch() - begin_s

    def close(self) -> None:
        self._pool.close()


class Torch:
    """One of torch's ways on contiguous [batch, heads, context, head_dim]."""

    def __init__(self, impl: str, attend: Attend, arena: Arena, shape: Shape, threads: int) -> None:
        self.impl = impl
        self._attend = attend
        whole = (shape.batch, shape.kv_heads, shape.context, shape.head_dim)
        self._layers = [(keys.view(whole), values.view(whole)) for keys, values in arena.layers(shape, RIVAL_BYTES)]
        self.bytes = len(self._layers) * shape.bytes(arena.dtype)
        self._query = torch.randn(shape.batch, shape.query_heads, 1, shape.head_dim).to(arena.dtype)
        self._threads = threads

    @torch.inference_mode()
    def run(self) -> float:
        torch.set_num_threads(self._threads)
        begin_s = stopwatch()
        for keys, values in self._layers:
            self._attend(self._query, keys, values)
        return stopwatch() - begin_s

    def close(self) -> None:
        """Nothing of its own."""


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def sdpa(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(query, keys, values, enable_gqa=query.shape[1] != keys.shape[1])


def two_products(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Two batched matrix products and a softmax; the queries of a group are rows of one product."""
    batch, heads, context, dim = keys.shape
    rows = query.reshape(batch * heads, -1, dim)
    scores = torch.bmm(rows, keys.view(-1, context, dim).transpose(1, 2)) * dim**-0.5
    weights = scores.float().softmax(-1).to(values.dtype)
    return torch.bmm(weights, values.view(-1, context, dim)).view(query.shape)


class Elsewhere:
    """A contender in a process and an environment of its own: one JSON line per order and answer."""

    def __init__(self, impl: str, command: Sequence[str]) -> None:
        self.impl = impl
        self.bytes = 0
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def lay_out(self, shape: Shape, dtype: torch.dtype, cores: Sequence[int]) -> bool:
        """False where it has no such kernel."""
        order = asdict(shape) | {
            "dtype": dtype_name(dtype),
            "layers": shape.layers(dtype, RIVAL_BYTES),
            "cores": list(cores),
        }
        answer = self._ask(order)
        self.bytes = order["layers"] * shape.bytes(dtype)
        return bool(answer["can"])

    def run(self) -> float:
        return float(self._ask({"run": True})["seconds"])

    def close(self) -> None:
        """It stays for the next shape; `end` ends it."""

    def end(self) -> None:
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise RivalEndedError(f"{self.impl}: its process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class RivalEndedError(Exception):
    """The bench goes on without it and says so."""


@dataclass(frozen=True, slots=True)
class Installed:
    impl: str
    command: Sequence[str]


def installed() -> Iterator[Installed]:
    """Rivals whose environments are here."""
    scripts = {
        "ggml": (GGML_ENVIRONMENTS, ENGINES / "ggml" / "attention_worker.py"),
        "vllm": (VLLM_ENVIRONMENTS, ENGINES / "vllm" / "attention_worker.py"),
    }
    for impl, (environments, script) in scripts.items():
        python = found_python("", environments)
        if python is not None:
            yield Installed(impl, [python, "-P", str(TURNS), str(script)])
