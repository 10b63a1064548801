"""Prediction error as an axis of an experiment: by how much a policy's beliefs are off, in what, and at which points.

Only what a policy believes is scaled; what ops take, on whatever backend, stays what it is. The scaled table itself is
engines/core/skewed.py; what an engine loses by it is told by results/beliefs.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from engines.core.skewed import Skew
from harness.fields import Section

NOISE_AT_MOST = 3.0  # of a logarithm: a factor of twenty, either way


def _listed(value: object) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not values:
        raise ValueError("is an empty list; give at least one value")
    repeated = [each for place, each in enumerate(values) if each in values[:place]]
    if repeated:
        raise ValueError(f"lists {repeated[0]!r} twice")
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _factors(value: object) -> tuple[float, ...]:
    for each in (values := _listed(value)):
        if not _is_number(each) or each <= 0:
            raise ValueError(f"expected a factor above 0, such as 0.8, or a list of them, not {each!r}")
    return tuple(float(each) for each in values)


def _noises(value: object) -> tuple[float, ...]:
    for each in (values := _listed(value)):
        if not _is_number(each) or not 0 <= each <= NOISE_AT_MOST:
            raise ValueError(f"expected a number from 0 to {NOISE_AT_MOST:g}, or a list of them, not {each!r}")
    return tuple(float(each) for each in values)


def _seeds(value: object) -> tuple[int, ...]:
    for each in (values := _listed(value)):
        if not isinstance(each, int) or isinstance(each, bool) or each < 0:
            raise ValueError(f"expected a whole number of at least 0, or a list of them, not {each!r}")
    return values


def _schema(of: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [of, {"type": "array", "items": of, "minItems": 1}]})


Factors = Annotated[
    tuple[float, ...], BeforeValidator(_factors), _schema({"type": "number", "exclusiveMinimum": 0, "default": 1})
]
Noises = Annotated[
    tuple[float, ...], BeforeValidator(_noises), _schema({"type": "number", "minimum": 0, "maximum": NOISE_AT_MOST})
]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_seeds), _schema({"type": "integer", "minimum": 0})]


class PredictorSection(Section):
    """Believed over true, by kind of op. A list of values is a sweep; several lists are crossed."""

    bias: Factors = (1.0,)  # of everything, times the others
    host_attention: Factors = (1.0,)
    host_linear: Factors = (1.0,)
    accel_attention: Factors = (1.0,)
    accel_linear: Factors = (1.0,)
    links: Factors = (1.0,)
    disk: Factors = (1.0,)
    overhead: Factors = (1.0,)  # per step, and per token
    noise: Noises = (0.0,)  # standard deviation of the logarithm, anew for each op and each octave of its size
    seed: Seeds = (0,)  # of the noise


@dataclass(frozen=True, slots=True)
class Belief:
    """One point. `point`: the swept values, for the name of the cell; empty where nothing is swept."""

    point: str
    skew: Skew

    def named(self, workload: str) -> str:
        return f"{workload}-{self.point}" if self.point else workload

    def told(self, workload: str) -> dict[str, object]:
        """For the record of a cell: of which workload this is a point, and what is believed in it."""
        off = {each.name: getattr(self.skew, each.name) for each in fields(Skew)}
        changed = {name: value for name, value in off.items() if value != getattr(Skew(), name)}
        return {"workload": workload, "point": self.point, "unskewed": self.skew.is_none, **changed}


def beliefs(section: PredictorSection | None) -> list[Belief | None]:
    """The points of the sweep in the order of the section's keys, the last varying fastest."""
    return [None] if section is None else [*_points(section)]


def _points(section: PredictorSection) -> Iterator[Belief]:
    names = list(PredictorSection.model_fields)
    axes = [getattr(section, name) for name in names]
    for values in product(*axes):
        at = dict(zip(names, values, strict=True))
        swept = [f"{name}{at[name]:g}" for name, axis in zip(names, axes, strict=True) if len(axis) > 1]
        yield Belief("-".join(swept), _skew(at))


def _skew(at: dict[str, Any]) -> Skew:
    """`bias` is on every factor."""
    factors = {name: at["bias"] * value for name, value in at.items() if name not in ("bias", "noise", "seed")}
    return Skew(**factors, noise=at["noise"], seed=at["seed"])
