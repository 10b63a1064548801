"""Where a claim is tested: measured where its machine is the one that is here, by the rule of `backend: auto` in a
configuration, and simulated elsewhere. Nothing runs here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.claims import Claim, Trial
from harness.config import load_experiment
from harness.experiment import Experiment, WorkloadChoice
from harness.plan import left_out, require_gpu, resolve_backend
from harness.stats import MIN_PAIRS

ClaimBackend = Literal["auto", "sim", "cuda"]
Setup = tuple[str, tuple[str, ...]]  # config, what is set


@dataclass(frozen=True, slots=True)
class Testbed:
    """`measured`: on the GPU that is here; None: not at all. `why`: in words."""

    measured: bool | None
    why: str


def bed_of(test: Trial, backend: ClaimBackend) -> Testbed:
    if backend == "sim" or test.weights is not None:
        return Testbed(False, "asked for" if backend == "sim" else "arithmetic")
    experiment = load_experiment(test.config, ["backend=auto", *test.set])
    found, _, why = resolve_backend(experiment)
    if found == "cuda" and (only := test.engines & set(left_out(experiment, "cuda"))):
        found, why = "sim", f"packed weights and several GPUs are simulated only: {', '.join(sorted(only))}"
    if found == "cuda":
        return Testbed(True, why)
    return Testbed(False if backend == "auto" else None, why)


def beds_of(claims: Iterable[Claim], backend: ClaimBackend) -> dict[str, Testbed]:
    """By the claim's id, of those that have a test. ConfigError where `cuda` is asked for and there is no GPU."""
    if backend == "cuda":
        require_gpu()
    return {claim.id: bed_of(claim.test, backend) for claim in claims if claim.test is not None}


@dataclass(slots=True)
class Asked:
    """What tests of one setup ask for together; no workload: all there are."""

    engines: set[str] = field(default_factory=set)
    workloads: set[str] = field(default_factory=set)
    all_workloads: bool = False

    def add(self, test: Trial) -> None:
        self.engines |= test.engines
        named = (test.trend.over, test.trend.of) if test.trend is not None else test.workloads
        self.workloads |= set(named)
        self.all_workloads = self.all_workloads or not named


def runs_for(tests: Sequence[Trial]) -> dict[Setup, Experiment]:
    """The experiments that answer them on the GPU: each setup once, without what nobody asks about."""
    asked: dict[Setup, Asked] = {}
    for test in tests:
        asked.setdefault((test.config, test.set), Asked()).add(test)
    return {setup: _experiment(setup, each) for setup, each in asked.items()}


def _experiment(setup: Setup, asked: Asked) -> Experiment:
    config, sets = setup
    whole = load_experiment(config, ["backend=cuda", *sets])
    repeats = max(MIN_PAIRS, whole.measure.repeats)  # fewer allow no verdict
    return whole.model_copy(
        update={
            "engines": tuple(engine for engine in whole.engines if engine.name in asked.engines),
            "workloads": tuple(each for each in whole.workloads if asked.all_workloads or _has(each, asked.workloads)),
            "measure": whole.measure.model_copy(update={"repeats": repeats}),
        }
    )


def _has(choice: WorkloadChoice, names: set[str]) -> bool:
    from workloads import expand

    return any(point["name"] in names for point in expand(choice.options))
