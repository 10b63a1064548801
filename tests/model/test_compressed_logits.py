"""What 4-bit weights do to the logits, in transformers' forward pass: as much as the steps of their groups explain.

Rounding to the nearest of sixteen levels is an error spread evenly over one step: its root mean square is the step over
the square root of 12. Groups of 64 normal weights span 4.7 standard deviations in fifteen steps: 9 % of the weights'.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engines.backends.compression import Packed, pack, unpack
from engines.model import reference
from tests.model_folders import make_folder

LAYERS = 4
MATRICES = 7 * LAYERS  # q, k, v, output, gate, up, down
VARIANTS = {
    "multi-head": {},
    "grouped": {"kv_heads": 2},
    "multi-query": {"kv_heads": 1},
    "tied": {"tied": True},
    "llama3": {"kv_heads": 2, "llama3_scaling": True},
}
Change = Callable[[Tensor], Tensor]


def prompt() -> Tensor:
    return torch.randint(3, 512, (1, 100), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def logits(folder: Path, change: Change = lambda weight: weight) -> Tensor:
    """[tokens, vocab], every matrix of every layer changed; embedding, head and norms stay as they are."""
    with reference.quiet():
        model = reference.load_model(folder, torch.float32)
        matrices = [weight for weight in model.model.layers.parameters() if weight.dim() == 2]
        assert len(matrices) == MATRICES
        for weight in matrices:
            weight.copy_(change(weight))
        output: Tensor = model(input_ids=prompt(), use_cache=False).logits[0]
        return output


def error(folder: Path, change: Change) -> float:
    return reference.logit_error(logits(folder, change), logits(folder))


def through_four_bits(weight: Tensor) -> Tensor:
    return unpack(pack(weight))


def steps(weight: Tensor) -> Tensor:
    """The step of every element, in the weight's shape."""
    packed = pack(weight)
    return packed.step.repeat_interleave(packed.group, -1)[:, : weight.shape[1]]


def expected_share(weight: Tensor) -> float:
    """Root mean square error over the standard deviation of the weights, from the steps alone."""
    return float(steps(weight).square().mean().sqrt() / 12**0.5 / weight.std())


def noise(seed: int) -> Change:
    """Every element moved by up to half a step, evenly: what rounding would be, were it blind to the values."""
    generator = torch.Generator().manual_seed(seed)
    return lambda weight: weight + steps(weight) * (torch.rand(weight.shape, generator=generator) - 0.5)


def swapped_halves(weight: Tensor) -> Tensor:
    packed = pack(weight)
    return unpack(Packed(packed.codes << 4 | packed.codes >> 4, packed.low, packed.step, packed.shape))


def seven_levels(weight: Tensor) -> Tensor:
    """Without the last bit, halfway between the two codes that it told apart: 3 bits, twice the step."""
    packed = pack(weight)
    return unpack(Packed(packed.codes & 0xEE, packed.low + packed.step / 2, packed.step, packed.shape))


def neighbours_steps(weight: Tensor) -> Tensor:
    packed = pack(weight)
    return unpack(Packed(packed.codes, packed.low, packed.step.roll(1, 0), packed.shape))


def neighbours_lows(weight: Tensor) -> Tensor:
    packed = pack(weight)
    return unpack(Packed(packed.codes, packed.low.roll(1, 0), packed.step, packed.shape))


BROKEN = {
    "swapped halves": swapped_halves,
    "3 bits": seven_levels,
    "a neighbour's steps": neighbours_steps,
    "a neighbour's lows": neighbours_lows,
}


@torch.inference_mode()
def test_every_matrix_errs_as_its_steps_say(model_root: Path) -> None:
    with reference.quiet():
        model = reference.load_model(make_folder(model_root, layers=LAYERS), torch.float32)
    for weight in (weight for weight in model.model.layers.parameters() if weight.dim() == 2):
        difference = through_four_bits(weight) - weight
        share = float(difference.square().mean().sqrt() / weight.std())
        assert share == pytest.approx(expected_share(weight), rel=0.03)
        assert 0.085 < share < 0.095


def first_order_bound(folder: Path) -> float:
    """As if every matrix passed its own share of error on to the logits whole, and independently of the others.

    It is a bound where sums dominate: weights so narrow (0.05) that no softmax is sharp, and several layers, so that
    the residual stream dilutes each matrix's share. It is not one for wide weights, which amplify any error.
    """
    with reference.quiet():
        model = reference.load_model(folder, torch.float32)
    shares = [expected_share(weight.detach()) for weight in model.model.layers.parameters() if weight.dim() == 2]
    return math.hypot(*shares)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_logits_stay_within_the_sum_of_the_matrices_errors(model_root: Path, variant: str) -> None:
    folder = make_folder(model_root, layers=LAYERS, std=0.05, **VARIANTS[variant])  # type: ignore[arg-type]
    bound = first_order_bound(folder)
    assert 0.45 < bound < 0.5  # 9 % times the square root of 28
    assert 0.5 * bound < error(folder, through_four_bits) < bound


@pytest.mark.parametrize("broken", BROKEN)
def test_the_bound_notices_what_is_broken(model_root: Path, broken: str) -> None:
    folder = make_folder(model_root, layers=LAYERS, std=0.05)
    assert error(folder, BROKEN[broken]) > first_order_bound(folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rounding_harms_no_more_than_noise_of_its_size(model_root: Path, variant: str) -> None:
    """Wide weights, as the tests of tokens use them: here the model's own response to noise is the bound."""
    folder = make_folder(model_root, layers=LAYERS, **VARIANTS[variant])  # type: ignore[arg-type]
    noisy = [error(folder, noise(seed)) for seed in range(3)]
    assert 0.5 * min(noisy) < error(folder, through_four_bits) < 1.3 * max(noisy)
