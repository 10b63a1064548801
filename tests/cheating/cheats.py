"""Engines that cheat, each in one way, by the name the experiment gives them; everything else about them is honest.

They wrap our own adapter as a third party's would be. `python -m tests.cheating.cheats CELL_DIR` runs a cell of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import harness.cell
from engines.core.adapter import Delivery, EngineAdapter, Submission
from engines.core.types import Refusal
from harness.build import Cell, build
from harness.plan import CellSpec
from harness.recorder import ColumnSink

EARLY_S = 0.31
MORE_KV = 1.2
LIAR = 3  # the request that is answered wrongly
LIE_AT = 2  # the token of its answer


class Cheat:
    """Passes everything on, and its deliveries through `distort`."""

    def __init__(self, inner: EngineAdapter) -> None:
        self._inner = inner
        self._given: dict[int, int] = {}

    def start(self) -> dict[str, object]:
        return self._inner.start()

    def submit(self, submission: Submission) -> Refusal | None:
        return self._inner.submit(submission)

    @property
    def busy(self) -> bool:
        return self._inner.busy

    def poll(self, now_s: float) -> Delivery | None:
        delivery = self._inner.poll(now_s)
        return None if delivery is None else self.distort(delivery)

    def close(self) -> None:
        self._inner.close()

    def distort(self, delivery: Delivery) -> Delivery:
        return delivery


class Early(Cheat):
    def distort(self, delivery: Delivery) -> Delivery:
        return replace(delivery, time_s=max(0.0, delivery.time_s - EARLY_S))


class WrongToken(Cheat):
    """One token of one request; the engine itself goes on from the right one."""

    def distort(self, delivery: Delivery) -> Delivery:
        tokens = list(delivery.token_ids)
        for row, request_id in enumerate(delivery.request_ids):
            place = self._given[request_id] = self._given.get(request_id, -1) + 1
            if (request_id, place) == (LIAR, LIE_AT):
                tokens[row] = 7 if tokens[row] != 7 else 8
        return replace(delivery, token_ids=tokens)


class Generous(Cheat):
    """Every token twice."""

    def distort(self, delivery: Delivery) -> Delivery:
        rows = [*delivery.request_ids, *delivery.request_ids]
        return replace(delivery, request_ids=rows, token_ids=[0] * len(rows))


class CutShort(Cheat):
    """Calls a request done after its first token, and answers it no more."""

    _done: frozenset[int] = frozenset()

    def distort(self, delivery: Delivery) -> Delivery:
        rows = [row for row in delivery.request_ids if row not in self._done]
        self._done |= frozenset(rows)
        return replace(delivery, request_ids=rows, token_ids=[0] * len(rows), finished=rows)


class Haunted(Cheat):
    """Answers a request that nobody sent, and ends every request a second time."""

    def distort(self, delivery: Delivery) -> Delivery:
        rows = [*delivery.request_ids, 4711]
        finished = [*delivery.finished, *delivery.finished]
        return replace(delivery, request_ids=rows, token_ids=[0] * len(rows), finished=finished)


class Boastful(Cheat):
    """Takes more KV, and reports what it should have taken."""

    def start(self) -> dict[str, object]:
        resolved = self._inner.start()
        claimed = resolved["accel_kv_tokens"]
        assert isinstance(claimed, int)
        return resolved | {"accel_kv_tokens": round(claimed / MORE_KV)}


CHEATS: dict[str, Callable[[EngineAdapter], Cheat]] = {
    "honest": Cheat,
    "early": Early,
    "wrong_token": WrongToken,
    "generous": Generous,
    "cut_short": CutShort,
    "haunted": Haunted,
    "greedy": Cheat,
    "greedy_liar": Boastful,
}


def cheating_build(
    spec: CellSpec, cell_dir: Path, step_sink: Callable[..., None], steps_sink: ColumnSink | None = None
) -> Cell:
    """Stands in for harness.build.build; engines of other names are served as ever."""
    cheat = CHEATS.get(spec.engine.name)
    if spec.engine.name.startswith("greedy"):
        allowed = spec.budget.accel_kv_tokens
        assert isinstance(allowed, int)
        budget = spec.budget.model_copy(update={"accel_kv_tokens": round(allowed * MORE_KV)})
        spec = replace(spec, budget=budget)
    cell = build(spec, cell_dir, step_sink, steps_sink)
    return cell if cheat is None else replace(cell, adapter=cheat(cell.adapter))


def main(arguments: Sequence[str] | None = None) -> None:
    harness.cell.build = cheating_build  # type: ignore[attr-defined]
    harness.cell.main()


if __name__ == "__main__":
    main()
