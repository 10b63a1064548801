"""A pass with cohorts on the time line of which nobody is told op by op, and what its ops took, kind by kind.

To the last bit what `run_pass` says over a `PassLine`, which remain what a pass means: the same sums in the same order,
without an object and a look-up for each of some two hundred ops. That was most of what a simulated step took.
"""

from collections.abc import Sequence

from engines.core.cost import CostTable, link_unit, work_of
from engines.core.pass_line import HostLine
from engines.core.types import AWAITED, STARTS, Guard, GuardAnswer, StepPlan, Unit

GPU, CPU, H2D, D2H = Unit.GPU, Unit.CPU, Unit.H2D, Unit.D2H  # a member of an Enum takes a call to look up


class PassAtOnce:
    """Everything about a cohort is kept by its place in the plan."""

    __slots__ = (
        "_between_s",
        "_cohorts",
        "_costs",
        "_cpu_free_s",
        "_d2h_free_s",
        "_gpu_free_s",
        "_h2d_free_s",
        "_host",
        "_layers",
        "_leaving_s",
        "_own",
        "_parked",
        "_reloaded_s",
        "_returning_s",
        "_staged_s",
        "aboard",
        "answers",
        "back_s",
        "busy_s",
        "handed",
        "now_s",
        "ops",
        "rows",
        "trips",
        "work",
    )

    def __init__(self, plan: StepPlan, layers: int, costs: CostTable, host: HostLine, begin_s: float) -> None:
        self._costs, self._host, self._layers = costs, host, layers
        self._cohorts = cohorts = plan.cohorts
        self.work = work = work_of(plan.batches[0])
        self._own = costs.gemm_rows(work)
        self.now_s, self.ops = begin_s, 0
        self.busy_s = [0.0] * len(Unit)
        self.back_s = [host.back_s.get(cohort.cohort, 0.0) for cohort in cohorts]
        self.rows = [len(cohort.slots) for cohort in cohorts]
        self.trips: list[tuple[float, float, float] | None] = [None] * len(cohorts)  # down, attention, up
        self.aboard = [0] * layers  # rows that came aboard at each layer
        self.handed: list[int] = []  # cohorts, each as often as it was handed over after it had come aboard
        self.answers: list[GuardAnswer] = []
        self._parked: list[list[int]] = [[] for _ in range(layers)]
        self._between_s: dict[int, float] = {}  # by rows aboard
        self._leaving_s = costs.kv_to_host_s(work.host_prefill_tokens) if work.host_prefill_tokens else None
        self._returning_s = costs.kv_to_accel_s(work.host_prefill_context) if work.host_prefill_context else None
        self._staged_s = self._reloaded_s = begin_s
        free_s = host.free_s
        for move in plan.moves:
            unit = link_unit(move)
            start_s = max(self.now_s, free_s[unit])
            self.now_s = free_s[unit] = start_s + costs.move_s(move)
            self.busy_s[unit] += self.now_s - start_s
            self.ops += 1
        self._gpu_free_s, self._cpu_free_s = free_s[GPU], free_s[CPU]
        self._h2d_free_s, self._d2h_free_s = free_s[H2D], free_s[D2H]

    def run(self) -> tuple[tuple[GuardAnswer, ...], tuple[int, ...]]:
        """What was asked and answered, and which cohorts came to the end."""
        attention_s = self._costs.accel_attention_s(self.work)
        last, parked = self._layers - 1, self._parked
        starting = []
        for place, cohort in enumerate(self._cohorts):
            parked[max(cohort.parked_layer, 0)].append(place)
            if cohort.parked_layer == STARTS:
                starting.append(place)
        self._gpu(self._first_s(starting))
        self._stage()
        for place in starting:
            self._hand_over(place)
        for layer in range(self._layers):
            if self._reloaded_s > self.now_s:
                self.now_s = self._reloaded_s
            if attention_s > 0.0:
                self._gpu(attention_s)
            aboard = self._coming_aboard(layer) if parked[layer] else ()
            if self._staged_s > self.now_s:
                self.now_s = self._staged_s
            if layer == last:
                break
            self._gpu(self._linear_s(self.aboard[layer]))
            self._stage()
            if aboard:
                for place in aboard:
                    self._hand_over(place)
                self.handed.extend(aboard)
                parked[layer + 1].extend(aboard)
        self._gpu(self._last_s(self.aboard[last]))
        self.handed.extend(starting)
        self._leave_behind()
        return tuple(self.answers), tuple([self._cohorts[place].cohort for place in aboard])

    def _gpu(self, seconds: float) -> None:
        if seconds > 0.0:
            end_s = self.now_s + seconds
            self.busy_s[GPU] += end_s - self.now_s
            self.now_s = self._gpu_free_s = end_s
            self.ops += 1

    def _coming_aboard(self, layer: int) -> Sequence[int]:
        """Whose attention is back, or comes back within its patience."""
        aboard, now_s, back_s, answers = [], self.now_s, self.back_s, self.answers
        for place in sorted(self._parked[layer]):
            cohort = self._cohorts[place]
            patience_us = cohort.patience_us
            ready = patience_us == AWAITED or back_s[place] <= now_s + patience_us * 1e-6
            if not ready:
                now_s += patience_us * 1e-6
            else:
                if back_s[place] > now_s:
                    now_s = back_s[place]
                aboard.append(place)
                self.aboard[layer] += self.rows[place]
            answers.append(GuardAnswer(Guard(cohort.cohort, layer), ready))
        self.now_s = now_s
        return aboard

    def _hand_over(self, place: int) -> None:
        """Down the link, attention, and up again, each when its unit is free."""
        down_s, attention_s, up_s = self.trips[place] or self._trip(place)
        busy_s = self.busy_s
        start_s = self.now_s if self.now_s > self._d2h_free_s else self._d2h_free_s
        self._d2h_free_s = end_s = start_s + down_s
        busy_s[D2H] += end_s - start_s
        start_s = end_s if end_s > self._cpu_free_s else self._cpu_free_s
        self._cpu_free_s = end_s = start_s + attention_s
        busy_s[CPU] += end_s - start_s
        start_s = end_s if end_s > self._h2d_free_s else self._h2d_free_s
        self._h2d_free_s = self.back_s[place] = end_s = start_s + up_s
        busy_s[H2D] += end_s - start_s
        self.ops += 3

    def _trip(self, place: int) -> tuple[float, float, float]:
        rows, costs = self.rows[place], self._costs
        attention_s = costs.host_attention_s(rows, sum(self._cohorts[place].positions) + rows)
        trip_s = self.trips[place] = costs.rows_to_host_s(rows), attention_s, costs.rows_to_accel_s(rows)
        return trip_s

    def _stage(self) -> None:
        """KV of host-bound prompt rows, and that of their earlier chunks."""
        if self._leaving_s is not None:
            self._staged_s = self._d2h_free_s = self._linked(D2H, self._d2h_free_s, self._leaving_s)
        if self._returning_s is not None:
            self._reloaded_s = self._h2d_free_s = self._linked(H2D, self._h2d_free_s, self._returning_s)

    def _linked(self, unit: Unit, free_s: float, seconds: float) -> float:
        start_s = max(self.now_s, free_s)
        end_s = start_s + seconds
        self.busy_s[unit] += end_s - start_s
        self.ops += 1
        return end_s

    def _first_s(self, starting: Sequence[int]) -> float:
        rows = self._own + sum([self.rows[place] for place in starting])
        return self._costs.pre_attention_s(rows) if rows else 0.0

    def _linear_s(self, aboard: int) -> float:
        seconds = self._between_s.get(aboard)
        if seconds is None:
            rows = self._own + aboard
            seconds = self._between_s[aboard] = self._costs.linear_s(rows) if rows else 0.0
        return seconds

    def _last_s(self, aboard: int) -> float:
        rows = self._own + aboard
        return self._costs.post_attention_s(rows) + self._costs.head_s(self.work.sampled + aboard) if rows else 0.0

    def _leave_behind(self) -> None:
        free_s, back_s = self._host.free_s, self._host.back_s
        free_s[GPU], free_s[CPU] = self._gpu_free_s, self._cpu_free_s
        free_s[H2D], free_s[D2H] = self._h2d_free_s, self._d2h_free_s
        for place in set(self.handed):
            back_s[self._cohorts[place].cohort] = self.back_s[place]
