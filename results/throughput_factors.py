"""A cell's seconds per output token as sums and products of factors that a cause can own. Used by waterfall.py.

Parts of the time are told apart by window_steps.py; how they depend on a step's rows is fitted to both cells at once by
work_shapes.py. Put together again, a side's factors give its throughput to the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from results.operator_rows import OperatorRow
from results.window_steps import ATTENTION, WORK, WindowSteps
from results.work_shapes import fit

Floats = npt.NDArray[np.float64]
Pair = tuple[WindowSteps, WindowSteps]

_ATTENTION_AT = [WORK.index(name) for name in ATTENTION]


@dataclass(frozen=True, slots=True)
class Part:
    """pace x (fixed x steps + work x tokens worked on), per output token. `fixed` depends on the modes of the steps."""

    pace: float
    fixed: float
    work: float

    def seconds(self, steps: float, worked: float) -> float:
        return self.pace * (self.fixed * steps + self.work * worked)


@dataclass(frozen=True, slots=True)
class Side:
    """The factors of one cell. Rows, tokens, seconds are per output token; those of a Part per step and per token."""

    empty_s: float
    steps_per_row: float
    rows: float  # decode rows; with cohorts that deliver beside the steps, fewer than tokens
    steps_again: float  # that only recompute
    prompt: float
    again: float  # tokens recomputed
    linear: Part
    attention: Part
    host_excess: Part
    host_hideable: Part
    link_excess: Part
    link_hideable: Part
    unhidden: float
    nothing: Part
    between: Part


def sides(cells: Pair) -> tuple[Side, Side]:
    """Rows where both cells have any; a cell that only reads prompts has a step per output token instead."""
    by_rows = all(cell.decode_rows > 0 for cell in cells)
    rows = [cell.decode_rows if by_rows else cell.tokens for cell in cells]
    linear, attention = _accelerator(cells, rows)
    host_excess, host_hideable, link_excess, link_hideable, nothing, between = (
        _parts(cells, rows, [getattr(cell.parts, name) for cell in cells])
        for name in ("host_excess", "host_hideable", "link_excess", "link_hideable", "nothing", "gap")
    )
    before, after = (
        Side(
            empty_s=cell.empty_s / cell.tokens,
            steps_per_row=(cell.steps - _steps_again(cell)) / rows[at],
            rows=rows[at] / cell.tokens,
            steps_again=_steps_again(cell) / cell.tokens,
            prompt=cell.prefill_tokens * (1 - cell.recomputed_share) / cell.tokens,
            again=cell.prefill_tokens * cell.recomputed_share / cell.tokens,
            linear=linear[at],
            attention=attention[at],
            host_excess=host_excess[at],
            host_hideable=host_hideable[at],
            link_excess=link_excess[at],
            link_hideable=link_hideable[at],
            unhidden=cell.parts.unhidden,
            nothing=nothing[at],
            between=between[at],
        )
        for at, cell in enumerate(cells)
    )
    return before, after


def attention_share(operators: Sequence[OperatorRow]) -> float:
    """Of the accelerator's busy seconds over the whole run; 0 where operators are unknown."""
    seconds = [(row.operator, row.seconds) for row in operators if row.unit == "GPU"]
    whole = sum(took for _, took in seconds)
    return sum(took for operator, took in seconds if operator == "attention") / whole if whole > 0 else 0.0


def _steps_again(cell: WindowSteps) -> float:
    return cell.recomputed_share * cell.prompt_only_steps


@dataclass(frozen=True, slots=True)
class _Shape:
    """What both cells have in common: seconds of a step by its mode, and by what it works on."""

    by_mode: Floats
    by_work: Floats

    @classmethod
    def fitted(cls, cells: Pair, seconds: Sequence[Floats]) -> _Shape:
        features = [np.hstack([cell.parts.modes, cell.parts.work]) for cell in cells]
        weights = fit(features, seconds, [cell.parts.took for cell in cells])
        modes = cells[0].parts.modes.shape[1]
        return cls(weights[:modes], weights[modes:])

    def fixed(self, cell: WindowSteps) -> float:
        """Per step."""
        return float(cell.parts.modes.sum(axis=0) @ self.by_mode) / cell.steps

    def work(self, cell: WindowSteps) -> Floats:
        """Seconds of the whole window by what was worked on."""
        return np.asarray(cell.parts.work.sum(axis=0) * self.by_work, dtype=np.float64)


def _parts(cells: Pair, rows: Sequence[float], seconds: Sequence[Floats]) -> list[Part]:
    shape = _Shape.fitted(cells, seconds)
    return [
        _part(took, shape.fixed(cell), cell.steps, float(shape.work(cell).sum()), count + cell.prefill_tokens)
        for cell, count, took in zip(cells, rows, [float(each.sum()) for each in seconds], strict=True)
    ]


def _part(seconds: float, fixed: float, steps: float, variable: float, worked: float) -> Part:
    """Where the shape says nothing of a cell, its seconds are work."""
    predicted = fixed * steps + variable
    if predicted > 0:
        return Part(seconds / predicted, fixed, variable / worked)
    return Part(1.0, 0.0, seconds / worked)


def _accelerator(cells: Pair, rows: Sequence[float]) -> tuple[list[Part], list[Part]]:
    """Steps do not say how long attention took in them, operators say it of the whole run. What the fit finds to grow
    with KV is attention's; of what is fixed, attention has as much as its seconds in both cells then lack.
    """
    seconds = [cell.parts.accelerator for cell in cells]
    shape = _Shape.fitted(cells, seconds)
    attention_s = [
        attention_share(cell.summary.operators) * float(took.sum()) for cell, took in zip(cells, seconds, strict=True)
    ]
    with_kv = [float(shape.work(cell)[_ATTENTION_AT].sum()) for cell in cells]
    fixed_s = sum(shape.fixed(cell) * cell.steps for cell in cells)
    share = min(1.0, max(0.0, (sum(attention_s) - sum(with_kv)) / fixed_s)) if fixed_s > 0 else 0.0
    if not any(attention_s):  # unknown, and all of it goes by one name
        with_kv, share = [0.0, 0.0], 0.0
    linear, attention = [], []
    for at, cell in enumerate(cells):
        fixed, worked = shape.fixed(cell), rows[at] + cell.prefill_tokens
        others, linear_s = float(shape.work(cell).sum()) - with_kv[at], float(seconds[at].sum()) - attention_s[at]
        linear.append(_part(linear_s, (1 - share) * fixed, cell.steps, others, worked))
        attention.append(_part(attention_s[at], share * fixed, cell.steps, with_kv[at], worked))
    return linear, attention
