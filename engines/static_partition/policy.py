"""Static partition, as llama.cpp does it: the first layers live and run on the host, the last ones on the accelerator.

Decided once, with no overlap: the parts run one after the other. `host: kv` keeps all weights on the accelerator and
the KV, with attention, on the host; `host: ffn` puts only the FFN of the first layers there. `host_share` divides
requests instead of layers: a fixed share keeps its KV and its attention on the host, decided on arrival.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engines.core.cost import Predictor
from engines.core.hybrid import TwoSided
from engines.core.memory import Room
from engines.core.placement import ON_HOST, LayerPlacement, Placement
from engines.core.placing import layer_counts, most_that_fit, placed_decision, refuse_negative
from engines.core.policy import Decision, View
from engines.core.request import Request
from engines.core.types import Mode, Tier
from engines.core.units import Unit


@dataclass(frozen=True, slots=True)
class StaticPartition(TwoSided):
    accel_layers: int | Literal["auto"] = "auto"  # how many, counted from the last; auto: the most that fit
    host: Literal["layers", "kv", "ffn"] = "layers"  # what the others leave there
    kv: Literal["reserved", "paged"] = "reserved"  # for a request's whole context when it is admitted, or as it grows
    context: int | None = None  # tokens that a reservation holds; the model's own limit when not given
    slots: int | None = None  # requests that have one; as many as there is room for when not given
    host_share: float | None = None  # of requests, with every weight on the accelerator

    def __post_init__(self) -> None:
        if self.host_share is not None and not 0.0 <= self.host_share <= 1.0:
            raise ValueError(f"host_share: {self.host_share} is no share; use 0 to 1")
        refuse_negative(self.accel_layers)
        for name in ("context", "slots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value}; use 1 or more, or leave it out")

    @property
    def name(self) -> str:
        return "static_partition"

    @property
    def uses_host_kv(self) -> bool:
        """As a tier of its own; KV by layer belongs to the placement."""
        return self.host_share is not None

    @property
    def places_weights(self) -> bool:
        return self.host_share is None

    def place(self, room: Room, predict: Predictor | None) -> Placement:
        layers = room.sizes.layers
        candidates = [self._placement(layers, count) for count in layer_counts(self.accel_layers, layers)]
        return most_that_fit(room, candidates, self._reserved_tokens())

    def decide(self, view: View) -> Decision:
        if self.host_share is not None:
            return self._divided(view, self.host_share)
        return placed_decision(view, self._most(view))

    def steady(self, running: Sequence[Request]) -> Mode | None:
        """Sides are given once, whatever lengths become."""
        if self.host_share is None:
            return None
        return Mode.SEQUENTIAL if any(request.tier is Tier.HOST for request in running) else Mode.GPU_ONLY

    # --- by layers ---------------------------------------------------------------------------------------------------

    def _placement(self, layers: int, on_accel: int) -> Placement:
        on_host = layers - on_accel
        if self.host == "layers":
            host = LayerPlacement.of(ON_HOST, Tier.HOST, Unit.CPU)
        elif self.host == "ffn":
            host = LayerPlacement(up=ON_HOST, down=ON_HOST)
        else:
            host, on_host = LayerPlacement(kv=Tier.HOST, prompts=Unit.CPU), layers
        return Placement((host,) * on_host + (LayerPlacement(),) * (layers - on_host), overlapped=False)

    def _reserved_tokens(self) -> int:
        """That a placement must have room for; a first page is the least anybody asks for."""
        return (self.slots or 1) * (self.context or 1) if self.kv == "reserved" else self.context or 1

    def _most(self, view: View) -> int | None:
        """Requests that may run: each has a whole context to itself, however short it turns out to be."""
        if self.kv == "paged":
            return self.slots
        held = view.capabilities.accel.tokens
        context = min(self.context or view.capabilities.max_model_tokens, held)
        return min(self.slots or held // context, held // context)

    # --- by requests -------------------------------------------------------------------------------------------------

    def _divided(self, view: View, share: float) -> Decision:
        proposal = view.propose()
        proposal.continue_running()
        if not proposal.preemptions:
            host_tokens = view.capabilities.host.tokens
            proposal.admit(lambda request: (_side(request, share, host_tokens),))
        return proposal.decision(Mode.SEQUENTIAL if proposal.host_decodes else Mode.GPU_ONLY)


def _side(request: Request, share: float, host_tokens: int) -> Tier:
    """The host for every so manieth request, evenly spread over arrivals, unless it could never hold that one."""
    before, after = (int(count * share) for count in (request.sequence, request.sequence + 1))
    return Tier.HOST if after > before and request.target <= host_tokens else Tier.ACCEL
