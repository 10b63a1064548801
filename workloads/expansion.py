"""Lists in an entry become one entry for each value: the sweep axes that belong to a workload.

Not here: axes of engines or machines, which the harness's plan crosses with these.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from workloads.kinds import checked_options
from workloads.options import Options, shown

# In this order they are swept (the last varies fastest) and written into names.
_MARKS = {"batch": "b", "prompt": "p", "output": "o", "rate": "r"}
SWEEPABLE = tuple(_MARKS)


def expand(options: Mapping[str, object]) -> list[dict[str, object]]:
    """One entry per combination of the values listed under `batch`, `prompt`, `output` and `rate`, each with a `name`.

    Names are the kind (or the entry's own name) and the swept values: `long_output-300`, `chat-0.8rps`; with several
    axes each value has its letter: `batch-b8-p32-o128`. An entry without lists comes back alone, named after its
    kind.
    """
    _, checked = checked_options(options)
    name = checked.text("name")
    axes = {key: _values(checked, key) for key in SWEEPABLE if isinstance(options.get(key), (list, tuple))}
    entries = []
    for combination in product(*axes.values()):
        point = dict(zip(axes, combination, strict=True))
        labels = [_label(key, value, alone=len(axes) == 1) for key, value in point.items()]
        entries.append({**options, **point, "name": "-".join([name, *labels])})
    return entries


def _values(options: Options, key: str) -> list[int | float]:
    listed = options.value(key)
    assert isinstance(listed, (list, tuple))
    values: list[int | float] = []
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise options.mistake(key, f"must list numbers, not {shown(value)}")
        if value in values:
            raise options.mistake(key, f"lists {shown(value)} twice")
        values.append(value)
    if not values:
        raise options.mistake(key, "is an empty list; give at least one value")
    return values


def _label(key: str, value: float, alone: bool) -> str:
    number = str(value) if isinstance(value, int) else f"{value:g}".replace("+", "")
    if key == "rate":
        return f"{number}rps"
    return number if alone else f"{_MARKS[key]}{number}"
