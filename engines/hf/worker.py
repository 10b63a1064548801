"""transformers' `generate` and Accelerate's hooks, run by engines/process/host.py: one batch after the other.

`generate` runs in a thread of its own, from a batch's first token to its last. A stopping criterion hands over the
tokens of each pass as they come, so that a step here is one token for everybody who still wants one. Nothing that comes
in meanwhile can change the batch, so `generate` is not held up while a step is told.

Prompts that are more than max_batch_tokens together are read in chunks (`prefill_chunk_size`), to keep the budget of a
step. Requests that have ended keep their rows until the batch has: that costs time and KV, and says nothing.
"""

from __future__ import annotations

import importlib
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .weights import Settings, accelerator, largest_visitor_bytes, load, resolved

PAD = 0  # masked, so that any token does
WARM_UP_TOKENS = 8

transformers: Any = importlib.import_module("transformers")


def open_engine(settings: Settings) -> Engine:
    transformers.utils.logging.disable_progress_bar()
    # On `cpu` they are the emulated accelerator; beside a GPU they move weights.
    threads = len(settings["cores"]) if settings["backend"] == "cpu" else settings["host_threads"]
    torch.set_num_threads(threads)
    model = load(settings)
    return Engine(model, settings, resolved(model, settings, threads))


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    request_id: int
    token_ids: Sequence[int]
    new_tokens: int
    stop_ids: frozenset[int] = frozenset()


class Batch:
    """Requests that run together, padded on the left to the longest prompt, and how far they are."""

    def __init__(self, requests: Sequence[Request], page_tokens: int) -> None:
        self.requests = requests
        self.width = max(len(request.token_ids) for request in requests)
        self.new_tokens = max(request.new_tokens for request in requests)
        self.live = list(range(len(requests)))  # rows
        self._page_tokens = page_tokens
        self._passes = 0

    def inputs(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Both [requests, width]; `generate` makes positions of the mask."""
        ids = torch.full((len(self.requests), self.width), PAD)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(self.requests):
            start = self.width - len(request.token_ids)
            ids[row, start:] = torch.tensor(request.token_ids)
            mask[row, start:] = 1
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

    def passed(self, tokens: Sequence[int]) -> dict[str, Any]:
        """What a pass, which has a token for each row, is to those who still want one."""
        rows, is_first = self.live, not self._passes
        facts = {
            "decode_rows": 0 if is_first else len(rows),
            "prefill_rows": len(rows) if is_first else 0,
            "prefill_tokens": sum(len(request.token_ids) for request in self.requests) if is_first else 0,
            "running": len(rows),
            "accel_blocks_used": -(-len(self.requests) * (self.width + self._passes) // self._page_tokens),
        }
        self._passes += 1
        ended = {row for row in rows if self._ends(self.requests[row], tokens[row])}
        self.live = [row for row in rows if row not in ended]
        return {
            "ids": [self.requests[row].request_id for row in rows],
            "tokens": [tokens[row] for row in rows],
            "finished": [self.requests[row].request_id for row in rows if row in ended],
            "facts": facts,
        }

    def _ends(self, request: Request, token: int) -> bool:
        return self._passes == request.new_tokens or token in request.stop_ids


class Engine:
    def __init__(self, model: Any, settings: Settings, resolved: dict[str, Any]) -> None:
        self._model, self._settings, self._device = model, settings, accelerator(settings)
        self._context: int = model.config.max_position_embeddings
        self._most: int = resolved["max_batch"]
        self._waiting: deque[Request] = deque()
        self._running: Batch | None = None
        self._begun_s = 0.0
        self._is_closing = False
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[dict[str, Any] | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.resolved = resolved | self._heard()

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or self._running is not None

    def submit(self, request_id: int, token_ids: Sequence[int], max_new_tokens: int, stop_ids: Sequence[int]) -> None:
        total, kv_tokens = len(token_ids) + max_new_tokens, self._settings["accel_kv_tokens"]
        if total > self._context:
            raise ValueError(f"it needs {total} tokens, the model's context ends at {self._context}")
        if total - 1 > kv_tokens:
            raise ValueError(f"it needs KV for {total - 1} tokens, the accelerator holds {kv_tokens}")
        self._waiting.append(Request(request_id, token_ids, max_new_tokens, frozenset(stop_ids)))

    def step(self) -> dict[str, Any]:
        admitted, scheduler_s = [], 0.0
        if self._running is None:
            self._begun_s = time.perf_counter()
            self._running = self._formed()
            admitted = [request.request_id for request in self._running.requests]
            scheduler_s = time.perf_counter() - self._begun_s
            self._batches.put(self._running)
        step = self._heard()
        if step.pop("is_last"):
            self._running = None
        begun_s, self._begun_s = self._begun_s, step["ended_s"]
        in_model_s = self._begun_s - begun_s - scheduler_s
        step["facts"] |= {"waiting": len(self._waiting), "scheduler_s": scheduler_s, "accel_s": in_model_s}
        return step | {"begun_s": begun_s, "admitted": admitted}

    def close(self) -> None:
        self._is_closing = True
        self._batches.put(None)
        self._thread.join()

    def _formed(self) -> Batch:
        """The oldest, as many as fit together: nobody is passed over for a shorter one."""
        requests = [self._waiting.popleft()]
        while self._waiting and self._fits([*requests, self._waiting[0]]):
            requests.append(self._waiting.popleft())
        return Batch(requests, self._settings["accel_page_tokens"])

    def _fits(self, requests: Sequence[Request]) -> bool:
        """The last token is never fed back, so it needs no place."""
        columns = max(len(each.token_ids) for each in requests) + max(each.new_tokens for each in requests) - 1
        has_room = len(requests) * columns <= self._settings["accel_kv_tokens"]
        return has_room and len(requests) <= self._most and columns < self._context

    def _heard(self) -> dict[str, Any]:
        told = self._told.get()
        if isinstance(told, Exception):
            raise told
        return told

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._told.put(self._warm_up())
            while (batch := self._batches.get()) is not None:
                self._generate(batch, [self._hand_over(batch)])
        except Exception as error:
            self._told.put(error)

    def _generate(self, batch: Batch, stopping_criteria: list[Any]) -> None:
        """No token ends a row but its own stop ids: without an end token `generate` looks for none and forbids none."""
        rows, most = len(batch.requests), self._settings["max_batch_tokens"]
        wish = transformers.GenerationConfig(
            do_sample=False,
            max_new_tokens=batch.new_tokens,
            pad_token_id=PAD,
            prefill_chunk_size=None if rows * batch.width <= most else most // rows,
        )
        inputs = batch.inputs(self._device)
        self._model.generate(**inputs, generation_config=wish, stopping_criteria=stopping_criteria)

    def _hand_over(self, batch: Batch) -> Any:
        def criterion(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            """Which rows are done, [requests]; `generate` ends when all of them are."""
            step = batch.passed(input_ids[:, -1].tolist())
            self._told.put(step | {"ended_s": time.perf_counter(), "is_last": not batch.live})
            done = torch.ones(len(batch.requests), dtype=torch.bool)
            done[[] if self._is_closing else batch.live] = False
            return done.to(input_ids.device)

        return criterion

    def _warm_up(self) -> dict[str, Any]:
        """A process's first pass is slower than the rest. On a GPU it shows what is needed beside weights and KV."""
        on_gpu = self._device.type == "cuda"
        longest = min(self._settings["longest_request_tokens"], self._context) - 2
        tokens = max(1, longest if on_gpu else min(longest, WARM_UP_TOKENS))
        batch = Batch([Request(-1, [PAD] * tokens, 2)], 1)
        if not on_gpu:
            self._generate(batch, [])
            return {}
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self._generate(batch, [])
        kv_bytes = (tokens + 1) * self._settings["kv_bytes_per_token"]
        taken = torch.cuda.max_memory_allocated() - before - kv_bytes - largest_visitor_bytes(self._model)
        return {"workspace_bytes": max(0, taken)}
