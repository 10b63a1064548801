"""The seam below the plan. An executor holds tensors and tokens, never scheduling state."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from engines.core.stretch import Repeats, Standing
from engines.core.types import Capabilities, StepPlan, StepResult


class Executor(Protocol):
    @property
    def capabilities(self) -> Capabilities: ...

    def register(self, request_id: int, prompt_token_ids: Sequence[int]) -> None:
        """Keep the tokens of a request until `forget`: they stay valid across preemptions."""

    def forget(self, request_id: int) -> None:
        """The request has ended."""

    def run(self, plan: StepPlan) -> StepResult:
        """Real backends return when the step is done; the simulator advances its clock."""

    def close(self) -> None:
        """Give everything back. Safe to call twice."""


@runtime_checkable
class RepeatingExecutor(Executor, Protocol):
    """One that can tell what many steps take without being handed them one by one."""

    @property
    def one_by_one(self) -> int:
        """So many steps of a run, the first ones, are all the same: they are looked at op by op."""

    def repeat(self, stands: Standing, before_s: float | None) -> Repeats:
        """Run as many of the steps as begin before `before_s`; maybe none."""
