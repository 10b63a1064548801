"""What may be believed of a cell that has been served: its status, the reason against it, and the figures it keeps.

Puts together what others found: overruns (the executor), breaches (honesty.py), parity.py and fairness.py. A cell that
took too much keeps its figures and is marked; one whose times or tokens are wrong has none that its clients took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.fairness import Envelope, unreported, violations
from harness.metric_catalogue import PER_REQUEST, SERVICE, THROUGHPUT, find
from harness.metrics import Measured
from harness.packed import kv_cap
from harness.plan import CellSpec
from harness.several_gpus import budget_of_all
from harness.sizing import size
from results.parity_check import ParityCheck
from results.schema import Status

# More late ops than this, and the emulated machine's proportions were not kept.
MOST_OVERRUNS = 0.01

CLIENT_FIGURES = frozenset(metric.key for metric in (*PER_REQUEST, *THROUGHPUT, *SERVICE))
WITHHELD = "withheld: the cell is invalid"


@dataclass(frozen=True, slots=True)
class Audit:
    status: Status
    error: str | None
    unfair: tuple[str, ...]
    notes: tuple[str, ...]
    measured: Measured


def audit(
    spec: CellSpec, resolved: dict[str, object], measured: Measured, breaches: Sequence[str], parity: ParityCheck
) -> Audit:
    envelope = Envelope.of(budget_of_all(spec), spec.dtype, size(spec), kv_cap(spec))
    wrong = list(breaches) + ([] if parity.held is not False else [f"wrong tokens: {parity.note}"])
    errors = wrong + _overruns(spec, measured)
    silent = unreported(envelope, resolved)
    note = f"the engine does not report {', '.join(silent)}: not held against the envelope"
    return Audit(
        status=Status.INVALID if errors else Status.OK,
        error="; ".join(errors) or None,
        unfair=tuple(violations(envelope, resolved, measured.metrics)),
        notes=(note,) if silent else (),
        measured=_without_client_figures(measured) if wrong else measured,
    )


def _overruns(spec: CellSpec, measured: Measured) -> list[str]:
    overruns = measured.metrics.get("overrun_share", 0.0)
    if spec.backend != "cpu" or overruns <= MOST_OVERRUNS:
        return []
    return [
        f"{overruns:.2%} of ops took longer than their pace (limit {MOST_OVERRUNS:.0%}): the modelled proportions "
        f"were not kept; raise emulation.pace.time_scale or free this machine"
    ]


def _without_client_figures(measured: Measured) -> Measured:
    """Fast and wrong must not look like fast; the records stay for whoever wants to see."""
    kept = {key: value for key, value in measured.metrics.items() if not _is_client_figure(key)}
    gone = {key: WITHHELD for key in measured.metrics if key not in kept}
    return Measured(kept, measured.notes, measured.unavailable | gone)


def _is_client_figure(key: str) -> bool:
    metric = find(key)
    return metric is not None and metric.key in CLIENT_FIGURES
