"""What transformers says of generated tokens, on the very weights they came from: one forward over prompt and answer.

Loaded once for all texts of a cell, after the cell has been timed: it takes seconds and memory. What is made of its
answers is parity.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from engines.model.config import load_config
from engines.model.reference import load_model, logit_bound, quiet
from engines.model.weights import random_weights, save_folder
from harness.plan import CellSpec
from harness.real import DTYPES
from harness.served import WEIGHT_SEED

BOUND_TEXTS = 16
BOUND_TOKENS = 48  # of each text; the spread does not grow with more
BOUND_TOKENS_IF_SLOW = 12  # a minute less per cell, for a bound that is a little tighter


@dataclass(frozen=True, slots=True)
class Opinion:
    """On one answer, per token: what the oracle would have said there, and how far behind that the given token was.

    `deficits` are in standard deviations of the step's logits; 0 where the oracle agrees.
    """

    best: list[int]
    deficits: list[float]


def halves_are_slow(dtype: torch.dtype) -> bool:
    """Whether this CPU works in 16 bit without instructions for it: some five times slower than one with them."""
    return dtype != torch.float32 and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


class Oracle:
    def __init__(self, folder: str, dtype: torch.dtype, device: str) -> None:
        self._folder, self._dtype, self._device = folder, dtype, device
        with quiet():
            self._model: Any = load_model(folder, dtype, device=device)

    @torch.inference_mode()
    def opinion(self, prompt: Sequence[int], answer: Sequence[int]) -> Opinion:
        """Teacher-forced: every token is judged after the answer's own beginning, not after the oracle's."""
        text = torch.tensor([[*prompt, *answer[:-1]]], device=self._device)
        with quiet():
            output = self._model(input_ids=text, use_cache=False, logits_to_keep=len(answer))
        logits = output.logits[0].float()  # [answer, vocab]
        given = logits.gather(1, torch.tensor(answer, device=self._device)[:, None])[:, 0]
        best = logits.max(dim=-1)
        deficits = (best.values - given) / logits.std(dim=-1)
        return Opinion(best.indices.tolist(), deficits.tolist())

    def bound(self, texts: Sequence[Sequence[int]]) -> float:
        """How far two batchings of transformers itself lie apart in this type, with its margin."""
        tokens = BOUND_TOKENS_IF_SLOW if self._device == "cpu" and halves_are_slow(self._dtype) else BOUND_TOKENS
        cut = [text[:tokens] for text in texts[:BOUND_TEXTS]]
        return logit_bound(self._folder, self._dtype, cut, device=self._device)


@contextmanager
def oracle_for(spec: CellSpec) -> Iterator[Oracle]:
    """On the cell's weights: its folder's, or those that its seed drew for a named shape, written down for it."""
    device = "cuda" if spec.backend == "cuda" else "cpu"
    dtype = DTYPES[spec.dtype]
    if Path(spec.model).is_dir():
        yield Oracle(spec.model, dtype, device)
        return
    config = load_config(spec.model)
    with TemporaryDirectory(prefix="oracle-") as folder:
        save_folder(folder, config, random_weights(config, WEIGHT_SEED, dtype, device))
        yield Oracle(folder, dtype, device)
