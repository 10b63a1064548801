"""Asymmetric pipelining: which host decodes share the accelerator's batch, which make a batch of their own, and what an
iteration of the two takes. NEO's rules 4 to 6, shared by every policy that pipelines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from engines.core.cost import CostTable, Predictor, Work, work_of_rows
from engines.core.policy import Prefill
from engines.core.request import Request

GROUPS = 16  # into which a pool is dealt at first: pricing every single one of hundreds takes longer than a layer


def accel_work(decodes: Sequence[Request], prefills: Sequence[Prefill]) -> Work:
    """What the accelerator's own rows ask of a layer."""
    chunks = []
    for prefill in prefills:
        start, length = prefill.request.computed, prefill.tokens
        chunks.append((length, start, start + length == prefill.request.known, prefill.tier))
    return work_of_rows(len(decodes), sum([request.known for request in decodes]), chunks)


def host_seconds(predict: CostTable, rows: int, kv_tokens: int) -> float:
    """There, attention, and back."""
    if not rows:
        return 0.0
    attention_s = predict.host_attention_s(rows, kv_tokens)
    return attention_s + predict.rows_to_host_s(rows) + predict.rows_to_accel_s(rows)


@dataclass(slots=True)
class SubBatch:
    """Host decodes of one half, and what the half's attention takes on the accelerator."""

    rows: int
    accel_s: float = 0.0  # T_pref + T_gatt
    linear_s: float = 0.0  # of its rows and its host decodes
    host: list[Request] = field(default_factory=list)
    host_kv: int = 0

    @staticmethod
    def of(predict: Predictor, work: Work) -> "SubBatch":
        rows = predict.gemm_rows(work)
        accel_s = predict.accel_attention_s(work) if work.tokens else 0.0
        return SubBatch(rows, accel_s, predict.linear_s(rows) if rows else 0.0)

    def take(self, predict: Predictor, requests: Sequence[Request], kv_tokens: int) -> None:
        self.host.extend(requests)
        self.host_kv += kv_tokens
        self.linear_s = predict.linear_s(self.rows + len(self.host))

    def host_s(self, predict: Predictor, more: int = 0, more_kv: int = 0) -> float:
        """T_catt and the launch: rows to the host and back."""
        return host_seconds(predict, len(self.host) + more, self.host_kv + more_kv)


@dataclass(slots=True)
class Pipeline:
    """Two halves; each one's host attention hides behind what the accelerator does for the other."""

    predict: Predictor
    halves: tuple[SubBatch, SubBatch]

    def with_work(self, work: Work) -> "Pipeline":
        """The same host decodes beside other rows of the accelerator's."""
        old, second = self.halves
        first = SubBatch.of(self.predict, work)
        if old.host:
            first.take(self.predict, old.host, old.host_kv)
        return Pipeline(self.predict, (first, second))

    @staticmethod
    def dealt(predict: Predictor, work: Work, candidates: Sequence[Request]) -> "Pipeline":
        """First come, first dealt, to the half with more slack. Who would make a slack negative is left out, and so is
        everybody with as long a context; nobody else is asked once there is no room for the shortest.

        Large pools are dealt in groups while there is room for whole ones, and one by one from there.
        """
        pipeline = Pipeline(predict, (SubBatch.of(predict, work), SubBatch(0)))
        roomier = pipeline.roomier()
        contexts = [request.known for request in candidates]
        kv = [0, *accumulate(contexts)]
        shortest = min(contexts, default=0)
        longest = max(contexts, default=0) + 1
        dealt, group = 0, max(1, len(candidates) // GROUPS)
        while dealt < len(candidates):
            if contexts[dealt] >= longest:
                dealt += 1
                continue
            upto = min(dealt + group, len(candidates))
            half = roomier(upto - dealt, kv[upto] - kv[dealt])
            if half is not None:
                half.take(predict, candidates[dealt:upto], kv[upto] - kv[dealt])
                dealt = upto
            elif upto - dealt > 1:
                group = (upto - dealt) // 2
            elif roomier(1, shortest) is None:
                break
            else:
                longest, group = contexts[dealt], 1
        return pipeline

    def roomier(self) -> Callable[[int, int], SubBatch | None]:
        """The half with more slack after so many more rows and tokens, None if that is negative: to be asked some
        dozens of times a step, hence `slack` of both halves with everything at hand.
        """
        first, second = self.halves
        attention_s = self.predict.host_attention_s
        down_s, up_s = self.predict.rows_to_host_s, self.predict.rows_to_accel_s

        def roomier(more: int, more_kv: int) -> SubBatch | None:
            rows, others = len(first.host) + more, len(second.host) + more
            host_s = attention_s(rows, first.host_kv + more_kv) + down_s(rows) + up_s(rows)
            slack_s = second.linear_s + first.accel_s - host_s
            host_s = attention_s(others, second.host_kv + more_kv) + down_s(others) + up_s(others)
            other_s = first.linear_s + second.accel_s - host_s
            half, slack_s = (first, slack_s) if slack_s >= other_s else (second, other_s)
            return half if slack_s >= 0.0 else None

        return roomier

    def slack(self, half: int, more: int = 0, more_kv: int = 0) -> float:
        """T_lin(other) + T_pref + T_gatt - (T_catt + launch), with so many more rows and tokens in this half.

        A request makes its own half's linear part no shorter, so the other half's slack never shrinks.
        """
        own, other = self.halves[half], self.halves[1 - half]
        return other.linear_s + own.accel_s - own.host_s(self.predict, more, more_kv)

    @property
    def host_rows(self) -> int:
        return sum(len(half.host) for half in self.halves)

    @property
    def host_kv(self) -> int:
        return sum(half.host_kv for half in self.halves)

    @property
    def alone_s(self) -> float:
        """A layer without any host decode."""
        first = self.halves[0]
        beside_s = (self.predict.linear_s(first.rows) if first.rows else 0.0) + first.accel_s
        return beside_s / self.predict.accel_slowdown

    @property
    def layer_s(self) -> float:
        """The busiest unit, or the longest way around: a half's linear part, its rows there and back, its attention.

        NEO's max(T_lin0, T_catt1) + max(T_lin1 + T_gatt0, T_catt0) has a barrier between the two stages of a layer;
        here ops wait for what they need and nothing else (pipeline.py). While nobody's slack is negative both are the
        same.
        """
        first, second = self.halves
        predict = self.predict
        linear_s = first.linear_s, second.linear_s
        attention_s = sum([predict.host_attention_s(len(half.host), half.host_kv) for half in self.halves])
        ways_s = [own_s + half.host_s(predict) for own_s, half in zip(linear_s, self.halves, strict=True)]
        return max(sum(linear_s) + first.accel_s, attention_s, *ways_s)
