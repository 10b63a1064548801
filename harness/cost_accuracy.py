"""How far the cost model was from measured linear ops, in one sentence beside whatever it predicts.

The figures are in cost_accuracy.json, which `harness bench costs --json` prints as `accuracy`: the tables themselves
are no part of the project. Not here: attention, moves and the host, which no table of these machines has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

from engines.hardware import catalogue_names

HALF, FORMULA, OTHERS = "half_of_its_table", "half_by_formula_alone", "fitted_to_others"
FILE = "cost_accuracy.json"


@cache
def accuracy() -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """By machine that has a table: mean and p95 of relative errors, per layer and per op."""
    found: Mapping[str, Mapping[str, Mapping[str, float]]] = json.loads(
        resources.files("harness").joinpath(FILE).read_text(encoding="utf-8")
    )
    return found


def cost_model_error(hardware: str) -> str:
    """Of a machine of the catalogue, or one by path."""
    if hardware in accuracy():
        half, formula = accuracy()[hardware][HALF], accuracy()[hardware][FORMULA]
        return (
            f"The cost model of {hardware} misses measured linear ops that it was not fitted to by "
            f"{half['layer_mean']:.1%} per layer (p95 {half['layer_p95']:.1%}) and {half['op_mean']:.1%} per op "
            f"(p95 {half['op_p95']:.1%}): half of its table, by a fit to the other half. "
            f"Products of shapes that are not in its table have the formula alone: {formula['op_mean']:.1%} per op."
        )
    means = sorted(errors[OTHERS]["layer_mean"] for errors in accuracy().values())
    machines = ", ".join(accuracy())
    whose = f"of {hardware}" if hardware in catalogue_names() else "of this machine, which is not in the catalogue,"
    return (
        f"No measured ops are at hand to check the cost model {whose} against. Machines that have a table "
        f"({machines}) are missed by {means[0]:.0%} to {means[-1]:.0%} per layer when constants are fitted to the "
        "others alone."
    )
