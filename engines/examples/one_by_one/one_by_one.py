"""transformers' own model, one request at a time: no batching, no paging, what everything else should be faster than.

Two halves in one file. The harness imports the options; `engines/process/host.py` opens the engine below them in a
process of its own, under whatever Python `open` names. So neither half imports at the top what only one of them needs.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines.core.adapter import EngineAdapter, Site


@dataclass(frozen=True, slots=True)
class OneByOne:
    """transformers, one request at a time."""

    start_limit_s: float = 120.0

    @staticmethod
    def unavailable() -> str | None:
        return None if find_spec("transformers") else "transformers is not installed: run `pip install transformers`"

    @property
    def runs_model(self) -> bool:
        return True

    def problems(self, backend: str, paced: bool) -> list[str]:
        if backend == "cpu" and not paced:
            return []
        return ["runs on this machine's CPU at its own speed: set backend: cpu and emulation.mode: native"]

    def open(self, site: Site) -> EngineAdapter:
        from engines.process.adapter import ProcessAdapter, Worker

        worker = Worker("one_by_one", sys.executable, Path(__file__), start_limit_s=self.start_limit_s)
        return ProcessAdapter(worker, site)


def open_engine(settings: Mapping[str, Any]) -> Engine:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_grad_enabled(False)
    torch.set_num_threads(max(1, len(settings["cores"])))
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"]))
    return Engine(model, torch.tensor, settings)


class Engine:
    def __init__(self, model: Any, tensor: Any, settings: Mapping[str, Any]) -> None:
        self._model, self._tensor = model, tensor
        self._chunk_tokens = settings["max_batch_tokens"]
        self._waiting: deque[tuple[int, list[int], int, list[int]]] = deque()
        self._left = 0  # tokens that the request being served has still to get
        self.resolved = {  # what it takes of the envelope
            "dtype": str(model.dtype).removeprefix("torch."),
            "max_batch": 1,
            "max_batch_tokens": self._chunk_tokens,
            "accel_kv_tokens": settings["longest_request_tokens"] - 1,  # the last token is never fed back
            "host_kv_tokens": 0,
            "cpu_threads": 0,
            "accel_cores": len(settings["cores"]),
            "weight_bytes": sum(weight.nbytes for weight in model.parameters()),
        }

    @property
    def busy(self) -> bool:
        return bool(self._left or self._waiting)

    def submit(self, request_id: int, token_ids: list[int], max_new_tokens: int, stop_ids: list[int]) -> None:
        self._waiting.append((request_id, token_ids, max_new_tokens, stop_ids))

    def step(self) -> dict[str, Any]:
        """One pass of the model: over a chunk of the prompt, or over the token before the next one."""
        begun_s = time.perf_counter()
        is_new = not self._left
        if is_new:
            self._cache = None
            self._request_id, self._unread, self._left, self._stop_ids = self._waiting.popleft()
        chunk, self._unread = self._unread[: self._chunk_tokens], self._unread[self._chunk_tokens :]
        output = self._model(input_ids=self._tensor([chunk]), past_key_values=self._cache, use_cache=True)
        self._cache = output.past_key_values
        tokens = [] if self._unread else [int(output.logits[0, -1].argmax())]
        for token in tokens:
            self._unread = [token]
            self._left = 0 if token in self._stop_ids else self._left - 1
        return {
            "ids": [self._request_id for _ in tokens],
            "tokens": tokens,
            "finished": [] if self._left else [self._request_id],
            "admitted": [self._request_id] if is_new else [],
            "begun_s": begun_s,
            "ended_s": time.perf_counter(),
        }

    def close(self) -> None:
        """Nothing outlives the process."""
