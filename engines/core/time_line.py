"""When the ops of a step end, for whoever asks a thousand times: the list scheduling of `pipeline.place`, from 0.

Layers are alike. Once every op of a layer ends as much later than its like in the layer before, so do those of all
layers that follow, and they need no visit: after three or four of them, unless two units are about equally busy.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from engines.core.units import Unit

Step = tuple[Unit, int, tuple[int, ...]]  # unit, kind, and how many ops back those are that it waits for

ROUNDING = 4e-15  # of a moment: what differences of sums of some dozens of terms are good for
LIKELY_PERIODS = 3


@dataclass(frozen=True, slots=True)
class _Layers:
    """A program as what comes before its layers, one of them, how many there are, and what comes after."""

    head: Sequence[Step]
    layer: Sequence[Step]
    count: int
    tail: Sequence[Step]


class TimeLine:
    """Of one program: each op's unit, what it waits for, and of which kind it is; kinds differ in their seconds."""

    def __init__(self, units: Sequence[Unit], after: Sequence[Sequence[int]], kinds: Sequence[int]) -> None:
        self._ops = units, after, kinds
        self._layers: _Layers | None = None  # looked for when first asked: programs that nothing overlaps in never are

    def __call__(self, seconds: Sequence[float]) -> list[float]:
        """When each unit is through with its last op, in the order of `Unit`, 0 where it has none.

        `seconds`: of one op of each kind.
        """
        if self._layers is None:
            self._layers = _layers(list(_steps(*self._ops)))
        return _ends(self._layers, seconds)


def _ends(layers: _Layers, seconds: Sequence[float]) -> list[float]:
    free_s: list[float] = [0.0] * len(Unit)
    ends_s: list[float] = []
    period = len(layers.layer)
    _visit(layers.head, seconds, free_s, ends_s)
    for left in range(layers.count - 1, -1, -1):
        _visit(layers.layer, seconds, free_s, ends_s)
        later_s = _later_s(ends_s, period) if left else None
        if later_s is not None:
            ends_s = [end_s + left * later_s for end_s in ends_s[-period:]]
            for (unit, _, _), end_s in zip(layers.layer, ends_s, strict=True):
                free_s[unit] = end_s
            break
    _visit(layers.tail, seconds, free_s, ends_s)
    return free_s


def _later_s(ends_s: Sequence[float], period: int) -> float | None:
    """By how much all ops of the last layer ended later than those of the one before it; None where it varies."""
    if len(ends_s) < 2 * period:
        return None
    shifts_s = [late - early for late, early in zip(ends_s[-period:], ends_s[-2 * period : -period], strict=True)]
    return shifts_s[-1] if max(shifts_s) - min(shifts_s) <= ROUNDING * ends_s[-1] else None


def _visit(steps: Iterable[Step], seconds: Sequence[float], free_s: list[float], ends_s: list[float]) -> None:
    for unit, kind, back in steps:
        start_s = free_s[unit]
        for each in back:
            if ends_s[-each] > start_s:
                start_s = ends_s[-each]
        free_s[unit] = end_s = start_s + seconds[kind]
        ends_s.append(end_s)


def _steps(units: Sequence[Unit], after: Sequence[Sequence[int]], kinds: Sequence[int]) -> Iterator[Step]:
    """An op is after its unit's earlier ones anyway: it only has to be compared with those of other units."""
    for index, (unit, waits, kind) in enumerate(zip(units, after, kinds, strict=True)):
        yield unit, kind, tuple([index - each for each in waits if units[each] is not unit])


def _layers(steps: Sequence[Step]) -> _Layers:
    """The longest run of equal layers."""
    last: dict[Step, int] = {}
    distances: Counter[int] = Counter()
    for index, step in enumerate(steps):
        if step in last:
            distances[index - last[step]] += 1
        last[step] = index
    found = [_run(steps, period) for period, _ in distances.most_common(LIKELY_PERIODS)]
    return max(found, key=lambda each: each.count, default=_Layers(steps, (), 0, ()))


def _run(steps: Sequence[Step], period: int) -> _Layers:
    """Of layers of this length. Ops wait for none before the layer before theirs: more is not remembered."""
    begin, end, ahead = 0, 0, 0
    for index in range(len(steps) - period):
        if steps[index] != steps[index + period]:
            ahead = index + 1
        elif index + 1 - ahead > end - begin:
            begin, end = ahead, index + 1
    count = (end - begin) // period + 1
    layer, tail = steps[begin : begin + period], steps[begin + count * period :]
    far = any(each > period for _, _, back in layer for each in back)
    far = far or any(each > period + place for place, (_, _, back) in enumerate(tail) for each in back)
    return _Layers(steps, (), 0, ()) if far else _Layers(steps[:begin], layer, count, tail)
