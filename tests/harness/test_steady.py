"""Steady decoding against the ideal model, simulated: the modes do what their formulas promise."""

from dataclasses import replace

import pytest

from engines.apex.policy import Apex
from engines.core.policy import Policy
from engines.core.roofline import Roofline
from engines.core.types import Mode
from harness.ideal import Ideal
from harness.steady import Machine, SimBed, State, steady_rate

T4 = Machine("t4_g4dn_4xlarge")
LAYERS = 32
STEPS = (40, 96)

# The map of our design for 50 GB/s of host attention: asymmetric, async overlap, full overlap over GPU-only.
MAP = {
    State(500, 3, 4): (1.20, 1.04, 1.71),
    State(500, 3, 64): (3.24, 1.66, 2.89),
    State(500, 3, 256): (3.24, 3.61, 3.76),
    State(1500, 8, 16): (1.14, 1.06, 1.19),
    State(1500, 8, 64): (1.14, 1.25, 1.37),
    State(1500, 20, 16): (1.04, 1.02, 1.20),
    State(1500, 20, 256): (1.04, 1.34, 1.34),
}
MODES = (Mode.ASYMMETRIC, Mode.ASYNC_OVERLAP, Mode.FULL_OVERLAP)


def over_gpu_only(state: State, *policies: Policy) -> list[float]:
    costs = T4.itself()
    rates = [
        steady_rate(policy, state, SimBed(costs), T4.itself(), STEPS, LAYERS).tokens_per_s
        for policy in (Apex(mode="gpu_only"), *policies)
    ]
    return [rate / rates[0] for rate in rates[1:]]


@pytest.mark.parametrize("state", MAP, ids=str)
def test_the_ideal_model_is_the_map(state: State) -> None:
    """The map has one launch for a layer's products, and knows nothing of the small ops between them."""
    costs, products = T4.itself(), 4
    fixed_s = costs.machine.gemm_fixed_s / products
    plain = Roofline(costs.model, replace(costs.machine, small_op_bytes_per_s=0.0, gemm_fixed_s=fixed_s))
    ideal = Ideal(plain, state, LAYERS).over_gpu_only()
    for mode, mapped in zip(MODES, MAP[state], strict=True):
        assert ideal[mode] == pytest.approx(mapped, rel=0.12), mode


@pytest.mark.parametrize("state", MAP, ids=str)
def test_every_mode_reaches_its_ideal(state: State) -> None:
    ideal = Ideal(T4.itself(), state, LAYERS).over_gpu_only()
    reached = over_gpu_only(state, *(Apex(mode=mode.value) for mode in MODES))  # type: ignore[arg-type]
    for mode, ratio in zip(MODES, reached, strict=True):
        assert ratio >= 0.85 * ideal[mode], mode


@pytest.mark.parametrize("state", [State(500, 3, 4), State(500, 3, 64), State(1500, 8, 64)], ids=str)
def test_predicted_keeps_up_with_the_best_forced_mode(state: State) -> None:
    predicted, *forced = over_gpu_only(state, Apex(), *(Apex(mode=mode.value) for mode in MODES))  # type: ignore[arg-type]
    assert predicted >= 0.95 * max(forced)


def test_nobody_changes_sides() -> None:
    """Twice the requests on the accelerator are twice its tokens where nothing else counts."""
    few, many = (
        steady_rate(Apex(mode="gpu_only"), State(500, rows, 8), SimBed(T4.itself()), T4.itself(), (2, 8), LAYERS)
        for rows in (2, 4)
    )
    assert many.tokens_per_s == pytest.approx(2 * few.tokens_per_s, rel=0.1)
    assert many.overruns == 0.0
