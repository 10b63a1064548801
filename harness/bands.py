"""How sure a simulated figure is: the cell again, on machines drawn from the ranges of its uncertain constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engines.hardware import load_hardware, uncertain
from engines.registry import is_policy
from harness.errors import ConfigError
from harness.lean import figures
from harness.plan import CellSpec
from harness.saturating_cell import is_saturating
from results.draws import Draws

BANDED = (
    "output_tokens_per_s",
    "output_tokens_per_s_whole_run",
    "requests_per_s",
    "decode_tokens_per_s",
    "response_latency_s",
    "ttft_s_mean",
    "ttft_s_p50",
    "ttft_s_p99",
    "tpot_s_mean",
    "tpot_s_p50",
    "tpot_s_p99",
    "e2e_s_mean",
    "e2e_s_p99",
    "goodput_rps",
    "slo_attainment",
    "preemptions",
)


def draws_of(spec: CellSpec) -> Draws | None:
    """None where nothing is drawn: not simulated by the catalogue, no ranges, a search of its own, or not asked for."""
    if not spec.draws or spec.draw or spec.hardware is None or not is_policy(spec.engine.kind) or is_saturating(spec):
        return None
    constants = tuple(uncertain(load_hardware(spec.hardware)))
    if not constants:
        return None
    found = [_figures(replace(spec, draw=draw)) for draw in range(1, spec.draws + 1)]
    told = [key for key in BANDED if any(key in metrics for metrics in found)]
    return Draws(constants, {key: tuple(metrics.get(key) for metrics in found) for key in told})


def _figures(spec: CellSpec) -> Mapping[str, float]:
    """None at all where the model does not fit that machine."""
    try:
        return figures(spec).metrics
    except ConfigError:
        return {}
