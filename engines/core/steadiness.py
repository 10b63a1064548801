"""When the policy need not be asked, for how many steps, and what they leave on requests. What they are: stretch.py."""

from collections.abc import Sequence

from engines.core.draft import Draft
from engines.core.kv import KVManager
from engines.core.policy import Decision, LearningPolicy, Policy, SteadyPolicy
from engines.core.request import Request
from engines.core.stretch import Grown, Standing, Standings, standing
from engines.core.types import Limits, RequestSpec


class Steadiness:
    def __init__(self, policy: Policy, kv: KVManager, limits: Limits) -> None:
        self._policy = policy if isinstance(policy, SteadyPolicy) and not isinstance(policy, LearningPolicy) else None
        self._kv = kv
        self._page_tokens = {tier: pool.page_tokens for tier, pool in kv.pools.items()}
        self._most_rows = limits.max_batch_tokens
        self._blocked = False  # whoever waits was not let in, and will not be while those inside only take more
        self.content_ends = False  # a token may end a request

    def submitted(self, spec: RequestSpec, others_wait: bool) -> None:
        self._blocked = self._blocked and others_wait  # behind others, nobody is asked
        self.content_ends = self.content_ends or bool(spec.stop_ids)

    def somebody_left(self) -> None:
        self._blocked = False

    def decided(self, decision: Decision, draft: Draft, running: int, waiting: int, flying: int) -> None:
        self._blocked = bool(
            self._policy is not None and waiting and not flying and _only_decodes(decision, draft, running)
        )

    def standing(self, step: int, ends: Sequence[int], rows: Sequence[Request], waiting: int) -> Standing | None:
        """From `step` on, for as long as nobody else is submitted."""
        policy = self._policy
        if policy is None or not rows or self.content_ends:
            return None
        if (waiting and not self._blocked) or len(rows) > self._most_rows:
            return None
        mode = policy.steady(rows)
        if mode is None or [1 for request in rows if request.known - request.computed != 1]:
            return None
        free = {tier: len(pool.free) for tier, pool in self._kv.pools.items()}
        found = standing(step, mode, ends, rows, free, self._page_tokens)
        return found if found.steps else None

    def take(self, stands: Standing, steps: int) -> list[Grown]:
        """So many of them: rows grow, and blocks are given where they ask for them."""
        grown = []
        for step, row in stands.growths(steps):
            request = stands.rows[row]
            [block] = self._kv.grow(request, request.capacity + 1)
            grown.append(Grown(step, request.slot, block, request.tier))
        for request in stands.rows:
            request.computed += steps
            request.known += steps
        return grown

    def standings(self, running: int, waiting: int) -> Standings:
        return Standings(running, waiting, {tier: pool.used for tier, pool in self._kv.pools.items()})


def _only_decodes(decision: Decision, draft: Draft, running: int) -> bool:
    """Everybody inside, and nothing else was decided."""
    if len(decision.batches) != 1 or draft.starts or draft.moves or draft.preempted:
        return False
    [batch] = decision.batches
    return not batch.prefills and len(batch.decodes) + len(batch.host_decodes) == running
