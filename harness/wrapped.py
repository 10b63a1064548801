"""A policy around another one: what it does not change it passes on."""

from engines.core.cost import Predictor
from engines.core.placement import Placement
from engines.core.policy import Policy, reuses_kv
from engines.core.types import Capabilities


class Wrapped:
    """For dataclasses with a field `policy`; `decide` is theirs."""

    __slots__ = ()

    policy: Policy

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def uses_host_kv(self) -> bool:
        return self.policy.uses_host_kv

    @property
    def keep_preempted_kv(self) -> bool:
        return reuses_kv(self.policy)

    def partition(self, capabilities: Capabilities, predict: Predictor | None) -> Placement:
        return self.policy.partition(capabilities, predict)
