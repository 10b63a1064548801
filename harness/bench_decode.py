"""`harness bench decode`: decoding with our `gpu_only` at native speed against Hugging Face `generate`.

Same weights, same prompts, same batch, one thread on one core each, interleaved, medians of paired ratios. Decoding
only: from the first token of the batch to the last. Tokens are compared as well: a fast wrong answer is no answer.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from engines.core.adapter import EngineAdapter, Submission
from engines.core.clock import stopwatch
from engines.model.config import load_config
from engines.model.reference import load_model, quiet
from engines.model.weights import random_weights, save_folder
from harness.build import offline_adapter
from harness.generate import specification

MODEL = "tiny-30m"
BATCHES = (6, 16)
PROMPT_TOKENS = 64
NEW_TOKENS = 65  # 64 decode steps
REPEATS = 7


@dataclass(frozen=True, slots=True)
class DecodeRace:
    model: str
    batch: int
    prompt_tokens: int
    decode_steps: int
    repeats: int
    ours_tokens_per_s: float
    transformers_tokens_per_s: float
    ratio_median: float
    ratio_min: float
    ratio_max: float
    same_tokens: bool


def main(as_json: bool) -> None:
    rows = race_all()
    if as_json:
        print(json.dumps({"label": "measured on this CPU, one thread", "rows": [asdict(row) for row in rows]}))
        return
    for row in rows:
        print(
            f"{row.model} decode, batch {row.batch}, one thread: ours {row.ours_tokens_per_s:.0f} tokens/s, "
            f"transformers {row.transformers_tokens_per_s:.0f}: ratio {row.ratio_median:.2f} "
            f"(median of {row.repeats} pairs, {row.ratio_min:.2f}-{row.ratio_max:.2f}); "
            f"tokens {'equal' if row.same_tokens else 'DIFFER'}"
        )


def race_all(batches: Sequence[int] = BATCHES, repeats: int = REPEATS, model: str = MODEL) -> list[DecodeRace]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(model)
        save_folder(folder, config, random_weights(config, seed=0))
        theirs = load_model(folder, torch.float32)
        return [_race(model, folder, theirs, batch, repeats) for batch in batches]


def _race(name: str, folder: str, theirs: Any, batch: int, repeats: int) -> DecodeRace:
    vocabulary = load_config(folder).vocab_size
    prompts = np.random.default_rng(batch).integers(3, vocabulary, (batch, PROMPT_TOKENS)).tolist()
    options = {
        "ignore_eos": True,
        "dtype": "float32",
        "max_batch": batch,
        "max_batch_tokens": batch * PROMPT_TOKENS,
        "accel_kv_tokens": batch * (PROMPT_TOKENS + NEW_TOKENS + 16),
        "seed": 0,
        "emulation": "native",
        "policy_options": {},
    }
    adapter = offline_adapter(specification("gpu_only", "cpu", folder, options), PROMPT_TOKENS + NEW_TOKENS)
    ours_s, theirs_s, same = [], [], True
    for repeat in range(repeats + 1):
        our_s, our_tokens = _ours(adapter, prompts, repeat * batch)
        their_s, their_tokens = _theirs(theirs, prompts)
        same = same and our_tokens == their_tokens
        if repeat:  # the first pair warms both up
            ours_s.append(our_s)
            theirs_s.append(their_s)
    adapter.close()
    tokens = batch * (NEW_TOKENS - 1)
    ratios = np.array(theirs_s) / np.array(ours_s)
    return DecodeRace(
        name,
        batch,
        PROMPT_TOKENS,
        NEW_TOKENS - 1,
        repeats,
        tokens / float(np.median(ours_s)),
        tokens / float(np.median(theirs_s)),
        float(np.median(ratios)),
        float(ratios.min()),
        float(ratios.max()),
        same,
    )


def _ours(adapter: EngineAdapter, prompts: list[list[int]], first_id: int) -> tuple[float, list[list[int]]]:
    """Seconds from the batch's first token to its last, scheduling included, and the tokens."""
    for index, prompt in enumerate(prompts):
        adapter.submit(Submission(first_id + index, len(prompt), prompt, NEW_TOKENS))
    answers: list[list[int]] = [[] for _ in prompts]
    first_s = 0.0
    while adapter.busy:
        delivery = adapter.poll(0.0)
        assert delivery is not None
        for request_id, token in zip(delivery.request_ids, delivery.token_ids, strict=True):
            answers[request_id - first_id].append(token)
        first_s = first_s or stopwatch()
    return stopwatch() - first_s, answers


def _theirs(model: Any, prompts: list[list[int]]) -> tuple[float, list[list[int]]]:
    """The same span of `generate`, by a stopping criterion that looks at the clock after every token."""
    times_s: list[float] = []

    def note_time(input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        times_s.append(stopwatch())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    inputs = torch.tensor(prompts)
    with torch.inference_mode(), quiet():
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=[note_time],
        )
    return times_s[-1] - times_s[0], output[:, PROMPT_TOKENS:].tolist()
