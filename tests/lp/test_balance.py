"""The min-max planner against everything it could have done, and how it deals the work over the layers."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

from engines.lp_balanced.balance import Balance, Form, Piece, balance

NAMES = ("qkv", "output", "up", "down")
FORMS: tuple[Form, ...] = ("lp", "integer")
REL = 1e-9


def layers(count: int, cpu_ms: Sequence[float], gpu_ms: Sequence[float], link_ms: Sequence[float]) -> list[Piece]:
    times = list(zip(NAMES, cpu_ms, gpu_ms, link_ms, strict=False))
    return [
        Piece(layer, name, cpu * 1e-3, gpu * 1e-3, link * 1e-3, size_bytes=round(link * 100))
        for layer in range(count)
        for name, cpu, gpu, link in times
    ]


MODEL = layers(32, cpu_ms=(1.1, 0.7, 2.9, 1.6), gpu_ms=(0.1, 0.1, 0.3, 0.2), link_ms=(2.0, 1.3, 5.3, 2.7))


def loads_s(
    pieces: Sequence[Piece],
    shares: Sequence[float],
    pinned: frozenset[int] = frozenset(),
    fixed_s: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, float]:
    """By the definition, piece by piece."""
    cpu_s = [share * piece.cpu_s for piece, share in zip(pieces, shares, strict=True)]
    gpu_s = [
        (1 - share) * (piece.gpu_s + (0.0 if index in pinned else piece.transfer_s))
        for index, (piece, share) in enumerate(zip(pieces, shares, strict=True))
    ]
    return math.fsum([fixed_s[0], *cpu_s]), math.fsum([fixed_s[1], *gpu_s])


def host_bytes(pieces: Sequence[Piece], shares: Sequence[float]) -> float:
    return sum(piece.size_bytes * share for piece, share in zip(pieces, shares, strict=True))


class Case:
    """Few pieces, of times that are all different, few different ones, or of many magnitudes."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        kinds: list[Callable[[], float]] = [
            lambda: draw.random() * 1e-3,
            lambda: draw.randrange(6) * 1e-4,
            lambda: 10 ** draw.uniform(-6, -1),
        ]
        time_s = kinds[seed % 3]
        self.pieces = [
            Piece(index // 4, NAMES[index % 4], time_s(), time_s() / 10, time_s(), draw.randrange(1, 4))
            for index in range(draw.randrange(1, 11))
        ]
        self.pinned = frozenset(index for index in range(len(self.pieces)) if draw.random() < 0.2)
        self.fixed_s = (time_s(), time_s())

    def solved(self, form: Form) -> Balance:
        return balance(self.pieces, form, self.pinned, *self.fixed_s)

    def every_choice(self) -> Iterator[tuple[float, float, float]]:
        """Lambda, both loads together, bytes of the host's pieces."""
        for shares in itertools.product(*((0,) if index in self.pinned else (0, 1) for index in range(self.size))):
            cpu_s, gpu_s = loads_s(self.pieces, shares, self.pinned, self.fixed_s)
            yield max(cpu_s, gpu_s), cpu_s + gpu_s, host_bytes(self.pieces, shares)

    @property
    def size(self) -> int:
        return len(self.pieces)


SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_whole_operators_are_dealt_as_well_as_by_brute_force(seed: int) -> None:
    """And ties are broken as said: the least of both loads, then the fewest bytes on the host."""
    case = Case(seed)
    found, choices = case.solved("integer"), list(case.every_choice())
    lambda_s = min(choice[0] for choice in choices)
    assert found.proven
    assert found.lambda_s == pytest.approx(lambda_s, rel=REL, abs=0)
    tied = [choice for choice in choices if choice[0] <= lambda_s * (1 + REL)]
    both_s = min(choice[1] for choice in tied)
    assert found.cpu_s + found.gpu_s == pytest.approx(both_s, rel=3 * REL, abs=0)
    fewest = min(choice[2] for choice in tied if choice[1] <= both_s + REL * lambda_s)
    assert host_bytes(case.pieces, found.host_share) <= fewest


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_said_of_the_loads_is_so(seed: int, form: Form) -> None:
    case = Case(seed)
    found = case.solved(form)
    cpu_s, gpu_s = loads_s(case.pieces, found.host_share, case.pinned, case.fixed_s)
    assert (found.cpu_s, found.gpu_s) == pytest.approx((cpu_s, gpu_s), rel=REL, abs=1e-15)
    assert found.lambda_s == max(found.cpu_s, found.gpu_s)
    assert found.imbalance == pytest.approx(abs(cpu_s - gpu_s) / max(cpu_s, gpu_s), abs=1e-8)
    assert all(0.0 <= share <= 1.0 for share in found.host_share)
    assert form == "lp" or set(found.host_share) <= {0.0, 1.0}
    assert not any(found.host_share[index] for index in case.pinned)


@pytest.mark.parametrize("seed", SEEDS)
def test_splitting_operators_is_never_worse(seed: int) -> None:
    case = Case(seed)
    assert case.solved("lp").lambda_s <= case.solved("integer").lambda_s * (1 + REL)


@pytest.mark.parametrize("seed", SEEDS)
def test_split_operators_are_dealt_as_well_as_the_continuous_knapsack(seed: int) -> None:
    """Of two loads the optimum is known: first what costs the host least per second that it saves the accelerator."""
    case = Case(seed)
    cpu_s, gpu_s = loads_s(case.pieces, [0.0] * case.size, case.pinned, case.fixed_s)
    movable = [piece for index, piece in enumerate(case.pieces) if index not in case.pinned]
    saving = [(piece.cpu_s, piece.gpu_s + piece.transfer_s) for piece in movable if piece.gpu_s + piece.transfer_s]
    for cost, saved in sorted(saving, key=lambda times: times[0] / times[1]):
        share = min(1.0, max(0.0, gpu_s - cpu_s) / (cost + saved))
        cpu_s, gpu_s = cpu_s + share * cost, gpu_s - share * saved
    assert case.solved("lp").lambda_s == pytest.approx(max(cpu_s, gpu_s), rel=REL, abs=0)


@pytest.mark.parametrize("seed", range(6))
def test_no_split_on_a_grid_is_better(seed: int) -> None:
    case = Case(seed)
    pieces, fixed_s = case.pieces[:3], case.fixed_s
    found = balance(pieces, "lp", frozenset(), *fixed_s)
    grid = [step / 24 for step in range(25)]
    best = min(
        max(loads_s(pieces, shares, frozenset(), fixed_s)) for shares in itertools.product(grid, repeat=len(pieces))
    )
    assert found.lambda_s <= best * (1 + REL)


def test_a_model_of_equal_layers_is_balanced() -> None:
    """The host is faster than the link, so that both loads meet; whole operators come within one of the smallest."""
    split, whole = balance(MODEL, "lp"), balance(MODEL, "integer")
    assert split.imbalance < 1e-9
    assert split.binds == ("CPU load", "GPU load")
    assert split.lambda_s <= whole.lambda_s < split.lambda_s + 0.7e-3
    assert whole.proven


def test_an_operator_is_split_alike_in_every_layer() -> None:
    shares = balance(MODEL, "lp").host_share
    of_one_layer = shares[:4]
    assert shares == of_one_layer * 32
    assert any(0.0 < share < 1.0 for share in of_one_layer)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_resident_stays(form: Form) -> None:
    found = balance(MODEL, form, frozenset(range(len(MODEL))), fixed_cpu_s=0.001, fixed_gpu_s=0.002)
    assert not any(found.host_share)
    assert found.cpu_s == 0.001
    assert found.gpu_s == pytest.approx(0.002 + 32 * 0.7e-3)
    assert found.binds == ("GPU load",)


@pytest.mark.parametrize("slow", [1e7, 1e12, math.inf])
@pytest.mark.parametrize("form", FORMS)
def test_a_host_that_is_too_slow_gets_nothing(form: Form, slow: float) -> None:
    pieces = layers(32, cpu_ms=(slow, slow), gpu_ms=(0.1, 0.2), link_ms=(1.0, 2.0))
    found = balance(pieces, form)
    assert not any(found.host_share)
    assert found.lambda_s == pytest.approx(32 * 3.3e-3)


@pytest.mark.parametrize("form", FORMS)
def test_a_host_that_is_free_gets_everything(form: Form) -> None:
    found = balance(layers(8, cpu_ms=(0.0, 0.0), gpu_ms=(0.1, 0.2), link_ms=(1.0, 2.0)), form, fixed_cpu_s=0.004)
    assert found.host_share == (1.0,) * 16
    assert (found.cpu_s, found.gpu_s) == (0.004, 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_attention_on_the_host_leaves_it_less(form: Form) -> None:
    alone, beside = balance(MODEL, form), balance(MODEL, form, fixed_cpu_s=0.05)
    assert sum(beside.host_share) < sum(alone.host_share)
    assert beside.cpu_s < alone.cpu_s + 0.05


@pytest.mark.parametrize("form", FORMS)
def test_a_load_that_does_not_bind_is_no_larger_than_it_must_be(form: Form) -> None:
    """The host's attention is all there is to lambda: to move work there would only add to it, to move any that costs
    the host nothing saves the accelerator.
    """
    pieces = layers(4, cpu_ms=(1.0, 0.0), gpu_ms=(0.1, 0.1), link_ms=(1.0, 1.0))
    found = balance(pieces, form, fixed_cpu_s=1.0)
    assert found.host_share == (0.0, 1.0) * 4
    assert found.lambda_s == 1.0


@pytest.mark.parametrize("form", FORMS)
def test_among_equal_plans_the_one_with_more_on_the_accelerator_is_taken(form: Form) -> None:
    """Two kinds of operators of equal times; to have either on the host is as fast, but one is smaller."""
    small = [Piece(layer, "output", 1e-3, 0.0, 1e-3, size_bytes=10) for layer in range(4)]
    large = [Piece(layer, "up", 1e-3, 0.0, 1e-3, size_bytes=30) for layer in range(4)]
    for pieces in (small + large, large + small):
        found = balance(pieces, form)
        assert found.lambda_s == pytest.approx(4e-3)
        assert host_bytes(pieces, found.host_share) == pytest.approx(40)


def test_whole_operators_are_spread_over_the_layers() -> None:
    """Any few layers in a row have as many of a kind on the host as any others, give or take one."""
    found = balance(MODEL, "integer")
    split = 0
    for kind in range(4):
        host = found.host_share[kind::4]
        split += 0 < sum(host) < len(host)
        for length in range(1, len(host) + 1):
            taken = [sum(host[start : start + length]) for start in range(len(host) - length + 1)]
            assert max(taken) - min(taken) <= 1
    assert split


def test_kinds_are_not_dealt_in_step() -> None:
    """Half of two kinds is one operator of each layer, not both of every second one."""
    half_ms = 4 * 1.0 + 4 * 1.618  # no other counts add up to it
    pieces = layers(8, cpu_ms=(1.0, 1.618), gpu_ms=(0.0, 0.0), link_ms=(1.0, 1.618))
    found = balance(pieces, "integer")
    assert found.lambda_s == pytest.approx(half_ms * 1e-3)
    assert [sum(found.host_share[2 * layer : 2 * layer + 2]) for layer in range(8)] == [1.0] * 8


def test_layers_may_come_in_any_order() -> None:
    """Shares are in the order of the pieces; how they are dealt is by layer."""
    shuffled = random.Random(3).sample(range(len(MODEL)), len(MODEL))
    in_order = balance(MODEL, "integer")
    found = balance([MODEL[index] for index in shuffled], "integer")
    assert found.lambda_s == pytest.approx(in_order.lambda_s, rel=REL)
    for kind in range(4):
        share_of = {index: share for index, share in zip(shuffled, found.host_share, strict=True) if index % 4 == kind}
        host = [share_of[index] for index in sorted(share_of)]
        pairs = [sum(pair) for pair in itertools.pairwise(host)]
        assert max(pairs) - min(pairs) <= 1


@pytest.mark.parametrize("form", FORMS)
def test_the_same_question_has_the_same_answer(form: Form) -> None:
    assert balance(MODEL, form) == balance(list(MODEL), form)


@pytest.mark.parametrize("seed", SEEDS)
def test_duals_say_what_a_second_more_of_a_load_costs(seed: int) -> None:
    """A dual is a slope of lambda; where it bends, one between those of both sides."""
    case = Case(seed)
    found = case.solved("lp")
    assert found.duals == case.solved("integer").duals
    assert sum(found.duals.values()) == pytest.approx(1.0)
    assert set(found.duals) <= set(found.binds)
    step_s = 1e-6 * found.lambda_s
    for row, name in enumerate(("CPU load", "GPU load")):
        moved = [list(case.fixed_s), list(case.fixed_s)]
        moved[0][row] += step_s
        moved[1][row] = max(0.0, moved[1][row] - step_s)
        after, before = (balance(case.pieces, "lp", case.pinned, *fixed_s).lambda_s for fixed_s in moved)
        dual = found.duals.get(name, 0.0)
        assert (found.lambda_s - before) / step_s - 1e-2 <= dual <= (after - found.lambda_s) / step_s + 1e-2


def test_what_stands_when_time_is_up_is_a_plan() -> None:
    """And says that a better one was not ruled out. It is as good as the relaxation, rounded."""
    pieces = layers(96, cpu_ms=(1.23, 2.31, 7.13, 3.97), gpu_ms=(0.1, 0.2, 0.7, 0.4), link_ms=(1.3, 2.5, 7.9, 4.4))
    hasty, split = balance(pieces, "integer", time_limit_s=0.0), balance(pieces, "lp")
    assert not hasty.proven
    assert set(hasty.host_share) <= {0.0, 1.0}
    assert split.lambda_s <= hasty.lambda_s <= split.lambda_s + 4 * 8.6e-3
    assert hasty.lambda_s == pytest.approx(max(loads_s(pieces, hasty.host_share)))


def test_a_search_cut_short_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had found by then can be worse than the relaxation, rounded."""
    everything = OptimizeResult()
    everything.update(x=np.array([32.0] * 4 + [0.0]), status=1)
    nothing = OptimizeResult()
    nothing.update(x=None, status=1)
    searches = iter([everything, nothing, nothing])
    monkeypatch.setattr("engines.lp_balanced.balance.milp", lambda *_, **__: next(searches))
    found = balance(MODEL, "integer")
    assert not found.proven
    assert found.lambda_s < balance(MODEL, "lp").lambda_s + 4 * 3e-3


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_deal(form: Form) -> None:
    assert balance([], form).lambda_s == 0.0
    assert balance([], form).imbalance == 0.0
    assert balance([], form, fixed_cpu_s=2.0, fixed_gpu_s=1.0).binds == ("CPU load",)
    assert balance([Piece(0, "up", 0.0, 0.0, 0.0, 1)], form).host_share == (0.0,)


@pytest.mark.parametrize("times_s", [(-1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, math.inf), (math.nan, 1.0, 1.0)])
def test_times_that_cannot_be_are_refused(times_s: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="layer 3, up"):
        Piece(3, "up", *times_s, size_bytes=1)


def test_loads_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="fixed times"):
        balance(MODEL, "lp", fixed_cpu_s=math.nan)
    with pytest.raises(ValueError, match="indices of the 128 pieces"):
        balance(MODEL, "lp", frozenset({128}))
