"""What a step's ops took, per unit, and the optional trace of every op. Shared by all interpreters."""

from collections.abc import Callable, Sequence

from engines.core.ops import Op
from engines.core.types import Unit, UnitTimes

# step, op, start, end: seconds on the run's clock
OpSink = Callable[[int, Op, float, float], None]
OpsSink = Callable[[int, Sequence[Op], Sequence[float], Sequence[float]], None]  # the same of all ops of a step


def one_by_one(sink: OpSink) -> OpsSink:
    """For a sink that knows no other way."""

    def sink_all(step: int, ops: Sequence[Op], starts_s: Sequence[float], ends_s: Sequence[float]) -> None:
        for op, start_s, end_s in zip(ops, starts_s, ends_s, strict=True):
            sink(step, op, start_s, end_s)

    return sink_all


class OpTally:
    """Busy seconds and overruns of one step."""

    __slots__ = ("_busy_s", "_ops", "_overruns", "_sink", "_step")

    def __init__(self, step: int, sink: OpSink | None) -> None:
        self._step = step
        self._sink = sink
        self._busy_s = [0.0] * len(Unit)
        self._ops = 0
        self._overruns = 0

    def add(self, op: Op, start_s: float, end_s: float, overrun: bool = False) -> None:
        self._busy_s[op.unit] += end_s - start_s
        self._ops += 1
        self._overruns += overrun
        if self._sink is not None:
            self._sink(self._step, op, start_s, end_s)

    def add_all(
        self, ops: Sequence[Op], seconds: Sequence[float], ends_s: Sequence[float], sink: OpsSink | None
    ) -> None:
        """All of a step, none of them late."""
        busy_s, starts_s = self._busy_s, [end_s - op_s for end_s, op_s in zip(ends_s, seconds, strict=True)]
        for op, start_s, end_s in zip(ops, starts_s, ends_s, strict=True):
            busy_s[op.unit] += end_s - start_s
        self._ops += len(ops)
        if sink is not None:
            sink(self._step, ops, starts_s, ends_s)

    def late(self) -> None:
        """An op that was counted already turns out to be an overrun."""
        self._overruns += 1

    def times(self) -> UnitTimes:
        return unit_times(self._busy_s, self._ops, self._overruns)


def unit_times(busy_s: list[float], ops: int, overruns: int) -> UnitTimes:
    """`busy_s` in the order of `Unit`."""
    gpu_s, cpu_s, h2d_s, d2h_s, disk_s = busy_s
    return UnitTimes(gpu_s, cpu_s, h2d_s, d2h_s, disk_s, ops, overruns)
