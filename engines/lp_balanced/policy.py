"""LP-balanced placement: `twinpilots` balances host and accelerator operator by operator while it serves; `flexgen`
plans fractions of weights and KV for blocks of requests, offline.

Both plan with what they believe of the machine, for prompts and answers of the lengths they are told to expect.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from engines.core.cost import PlacedCosts, Predictor
from engines.core.memory import Room
from engines.core.placed_cost import placed_costs
from engines.core.placement import Placement, PlacementError
from engines.core.placing import Placing, continued, fits, mode_of
from engines.core.policy import Decision, Proposal, View
from engines.core.types import Mode, StepPlan, StepResult

if TYPE_CHECKING:  # the planners bring a solver along, which whoever only lists engines need not load
    from engines.lp_balanced.online import Pilot

COUNTS = ("prompt_tokens", "output_tokens", "batch", "gpu_batch", "num_gpu_batches")


@dataclass(frozen=True, slots=True)
class LpBalanced(Placing):
    planner: Literal["twinpilots", "flexgen"] = "twinpilots"
    prompt_tokens: int = 512  # of a request, to plan for
    output_tokens: int = 128
    batch: int | None = None  # twinpilots: requests at once, to plan for; the budget's max_batch when not given
    form: Literal["lp", "integer"] = "lp"  # twinpilots: operators may be split by columns, or not ("integer")
    band: float = 0.25  # twinpilots: by so much a unit may differ from what is believed before it plans anew
    zero_copy: bool = True  # twinpilots: small rows do not queue behind weights
    gpu_batch: int | None = None  # flexgen: the shape of a block; searched when not given
    num_gpu_batches: int | None = None
    compress: bool = False  # flexgen: weights and KV in 4 bit
    _pilots: list[Any] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value}; use 1 or more")
        if not 0.0 < self.band < 10.0:
            raise ValueError(f"band: {self.band}; use a share above 0, such as 0.25")
        if self.planner == "twinpilots" and (self.compress or self.gpu_batch or self.num_gpu_batches):
            raise ValueError("compress, gpu_batch and num_gpu_batches belong to planner: flexgen")

    @property
    def name(self) -> str:
        return "lp_balanced"

    def place(self, room: Room, predict: Predictor | None) -> Placement:
        from engines.lp_balanced.offline import Expected, best_plan, placement_of
        from engines.lp_balanced.online import Load, choose

        costs = _known(predict)
        everything = Placement.all_on_accelerator(room.sizes.layers)
        wanted = min(self._wanted_tokens(room), room.most_tokens)
        if not self.compress and fits(room, everything, wanted):
            return everything
        if self.planner == "flexgen":
            expected = Expected(
                self.prompt_tokens, self.output_tokens, self.gpu_batch, self.num_gpu_batches, self.compress
            )
            return placement_of(best_plan(room, costs, expected), room, expected)
        load = Load(self.batch or room.max_batch, 0, self.prompt_tokens + self.output_tokens // 2)
        return replace(choose(room, costs, self.form, load, wanted).placement, zero_copy=self.zero_copy)

    def decide(self, view: View) -> Decision:
        if view.placement is not None and view.placement.block[0]:
            from engines.lp_balanced.offline import lockstep

            return lockstep(view, view.placement)
        proposal, mode = continued(view), mode_of(view)
        return self._piloted(view, proposal) if mode is Mode.PLACED else proposal.decision(mode)

    def observe(self, view: View, plan: StepPlan, result: StepResult) -> None:
        if self.planner == "twinpilots" and plan.mode is Mode.PLACED and view.placement is not None:
            self._pilot.observe(view.placement, _known(view.predict), plan, result)

    @property
    def _pilot(self) -> "Pilot":
        from engines.lp_balanced.online import Pilot

        if not self._pilots:
            self._pilots.append(Pilot(self.form, self.band))
        pilot: Pilot = self._pilots[0]
        return pilot

    # --- twinpilots --------------------------------------------------------------------------------------------------

    def _piloted(self, view: View, proposal: Proposal) -> Decision:
        assert view.placement is not None
        decodes = proposal.decodes
        prompt_rows = sum([prefill.tokens for prefill in proposal.prefills])
        context = sum([request.computed for request in decodes]) // max(1, len(decodes))
        from engines.lp_balanced.online import Load

        load = Load(len(decodes) + prompt_rows, prompt_rows, context)
        wanted = self._pilot.placement(view.placement, _known(view.predict), load)
        decision = proposal.decision(Mode.PLACED)
        if wanted == view.placement:
            return decision
        return replace(decision, placement=wanted)

    def _wanted_tokens(self, room: Room) -> int:
        page = room.page_tokens
        each = -(-(self.prompt_tokens + self.output_tokens) // page) * page
        return (self.batch or room.max_batch) * each


def _known(predict: Predictor | None) -> PlacedCosts:
    if predict is None:
        raise PlacementError("plans by believed times, and nothing is known of this machine: name its hardware")
    return placed_costs(predict)
