"""The oracle: Hugging Face transformers on the same folder, and the rules by which our tokens are held against its.

Greedy tokens must be equal in float32. In 16 bit two batchings of one engine already differ, so there the logits are
compared instead, with a bound measured on transformers itself. Nothing of ours computes in here.
"""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from engines.model.errors import ModelError

Attention = Literal["eager", "sdpa"]

EXCUSED_GAP = 1e-4  # of the logits' standard deviation: what float32 noise can turn around
EXCUSED_SHARE = 1e-3  # of the requests
SPREAD_BATCH = 16
BOUND_MARGIN = 2.0  # our kernels round at other places than both of the batchings that are compared


@dataclass(frozen=True, slots=True)
class OracleRun:
    """What transformers generated for one prompt, and how sure it was of each token."""

    token_ids: tuple[int, ...]
    gaps: tuple[float, ...]  # top logit minus the second, over the standard deviation of that step's logits


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step at which a request departs from the oracle; None where one of the two has ended."""

    request: int
    step: int
    ours: int | None
    oracle: int | None
    gap: float

    @property
    def excused(self) -> bool:
        return self.ours is not None and self.oracle is not None and self.gap < EXCUSED_GAP


@dataclass(frozen=True, slots=True)
class Parity:
    """The verdict over many requests: equal but for a few excused near-ties, or not."""

    requests: int
    differences: tuple[Difference, ...]

    @property
    def excused(self) -> int:
        return sum(difference.excused for difference in self.differences)

    @property
    def holds(self) -> bool:
        unexcused = len(self.differences) - self.excused
        return self.requests > 0 and unexcused == 0 and self.excused <= EXCUSED_SHARE * self.requests

    def __str__(self) -> str:
        equal = self.requests - len(self.differences)
        line = f"{equal} of {self.requests} requests token-exact, {self.excused} excused as near-ties"
        if worst := next((difference for difference in self.differences if not difference.excused), None):
            line += (
                f"; request {worst.request} differs at step {worst.step}: "
                f"ours {worst.ours}, oracle {worst.oracle}, gap {worst.gap:.2e} of the logits' standard deviation"
            )
        return line


def compare(ours: Sequence[Sequence[int]], oracle: Sequence[OracleRun]) -> Parity:
    """Hold generated tokens against the oracle's; what follows a request's first difference is ignored."""
    if len(ours) != len(oracle):
        raise ModelError(f"{len(ours)} generated requests cannot be compared with {len(oracle)} of the oracle")
    differences = (_first_difference(request, *pair) for request, pair in enumerate(zip(ours, oracle, strict=True)))
    return Parity(len(ours), tuple(difference for difference in differences if difference))


def _first_difference(request: int, ours: Sequence[int], oracle: OracleRun) -> Difference | None:
    for step, (mine, theirs) in enumerate(zip_longest(ours, oracle.token_ids)):
        if mine != theirs:
            gap = oracle.gaps[step] if step < len(oracle.gaps) else float("inf")
            return Difference(request, step, mine, theirs, gap)
    return None


def greedy(
    folder: str | Path,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    attention: Attention = "sdpa",
    device: torch.device | str = "cpu",
) -> list[OracleRun]:
    """`generate` for every prompt alone, for exactly as many tokens as asked: no token ends a request early."""
    lengths = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    with quiet():
        model = load_model(folder, dtype, attention, device)
        return [_generate(model, prompt, length) for prompt, length in zip(prompts, lengths, strict=True)]


def _generate(model: Any, prompt: Sequence[int], length: int) -> OracleRun:
    wish = _transformers().GenerationConfig(
        do_sample=False,
        max_new_tokens=length,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    inputs = torch.tensor([list(prompt)], device=model.device)
    output = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=wish)
    assert len(output.logits) == length, "transformers ended a request early"
    logits = torch.cat(output.logits).float()  # [steps, vocab]
    top = logits.topk(2, dim=-1).values
    gaps = (top[:, 0] - top[:, 1]) / logits.std(dim=-1)
    return OracleRun(tuple(output.sequences[0, len(prompt) :].tolist()), tuple(gaps.tolist()))


def teacher_forced_logits(
    folder: str | Path,
    token_ids: Sequence[int],
    dtype: torch.dtype = torch.float32,
    *,
    attention: Attention = "sdpa",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Logits after every token of a given text, [tokens, vocab] float32."""
    with quiet(), torch.inference_mode():
        model = load_model(folder, dtype, attention, device)
        inputs = torch.tensor([list(token_ids)], device=model.device)
        logits: Tensor = model(input_ids=inputs, use_cache=False).logits[0]
        return logits.float()


def logit_error(ours: Tensor, oracle: Tensor) -> float:
    """Both [tokens, vocab]: root mean square difference over the oracle's standard deviation, at the worst token."""
    difference = (ours.float() - oracle.float()).square().mean(dim=-1).sqrt()
    return float((difference / oracle.float().std(dim=-1)).max())


def logit_bound(
    folder: str | Path,
    dtype: torch.dtype,
    prompts: Sequence[Sequence[int]],
    *,
    device: torch.device | str = "cpu",
) -> float:
    """The `logit_error` to allow in 16 bit: twice what transformers differs from itself between batch 1 and batch 16.

    Batch 1 reads a text at once; batch 16 decodes it token by token, with either attention. The batch alone would not
    do: oneDNN rounds alike for every row count, and a bound of zero would forbid any second implementation.
    """
    if not prompts:
        raise ModelError("a logit bound needs at least one prompt")
    length = min(len(prompt) for prompt in prompts)
    texts = [list(prompt[:length]) for prompt in prompts[:SPREAD_BATCH]]
    batch = torch.tensor([texts[row % len(texts)] for row in range(SPREAD_BATCH)], device=device)
    with quiet(), torch.inference_mode():
        alone = load_model(folder, dtype, "sdpa", device)
        at_once = [alone(input_ids=batch[row : row + 1], use_cache=False).logits[0] for row in range(len(texts))]
        attentions: tuple[Attention, ...] = ("sdpa", "eager")
        stepwise = [_decode_stepwise(load_model(folder, dtype, attention, device), batch) for attention in attentions]
    return BOUND_MARGIN * max(
        logit_error(together[row], single) for together in stepwise for row, single in enumerate(at_once)
    )


def _decode_stepwise(model: Any, tokens: Tensor) -> Tensor:
    """tokens [batch, steps] fed one step at a time -> logits [batch, steps, vocab]."""
    cache, logits = None, []
    for step in range(tokens.shape[1]):
        output = model(input_ids=tokens[:, step : step + 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits[:, -1].float())
    return torch.stack(logits, dim=1)


def load_model(
    folder: str | Path, dtype: torch.dtype, attention: Attention = "sdpa", device: torch.device | str = "cpu"
) -> Any:
    """transformers' own model of the folder's type; it never asks the network. Call it under `quiet`."""
    if not Path(folder).is_dir():
        raise ModelError(f"no model folder at {folder}")
    transformers = _transformers()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder), local_files_only=True, use_safetensors=True, dtype=dtype, attn_implementation=attention
    )
    # `generate` fills what we leave open from the folder: end tokens, and penalties that bend even greedy choices.
    model.generation_config = transformers.GenerationConfig()
    return model.eval().to(device)


def _transformers() -> Any:
    """Imported late: it takes seconds, and only the oracle needs it."""
    return importlib.import_module("transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars, logs and deprecation warnings to itself; its settings come back afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging = _transformers().utils.logging
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
