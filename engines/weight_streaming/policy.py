"""Weight streaming, as Accelerate offloads: the first layers stay on the accelerator while they fit, the others come
over the link whenever a step needs them, from the host's memory or, where that is full, from disk.

Everything is computed on the accelerator and the KV stays there. By default each layer's weights are brought and used
one after the other, as Accelerate's hooks do it; `prefetch` loads a layer while the one before is used.
"""

from dataclasses import dataclass
from typing import Literal

from engines.core.cost import Predictor
from engines.core.memory import Room
from engines.core.placement import FROM_DISK, STREAMED, LayerPlacement, Placement
from engines.core.placing import Placing, layer_counts, most_that_fit, placed_decision, refuse_negative
from engines.core.policy import Decision, View
from engines.core.units import Tier


@dataclass(frozen=True, slots=True)
class WeightStreaming(Placing):
    accel_layers: int | Literal["auto"] = "auto"  # that stay there; auto: as many as fit beside `kv_tokens`
    kv_tokens: int | None = None  # to leave room for; a quarter of the accelerator when not given
    prefetch: bool = False

    def __post_init__(self) -> None:
        refuse_negative(self.accel_layers)
        if self.kv_tokens is not None and self.kv_tokens < 1:
            raise ValueError(f"kv_tokens: {self.kv_tokens}; use 1 or more, or leave it out")

    @property
    def name(self) -> str:
        return "weight_streaming"

    def place(self, room: Room, predict: Predictor | None) -> Placement:
        counts = layer_counts(self.accel_layers, room.sizes.layers)
        return most_that_fit(room, [self._placement(room, count) for count in counts], self._kv_tokens(room))

    def decide(self, view: View) -> Decision:
        return placed_decision(view)

    def _placement(self, room: Room, on_accel: int) -> Placement:
        """What the host cannot hold is read from disk: the last layers, as devices are filled in order."""
        layers = room.sizes.layers
        for on_disk in range(layers - on_accel + 1):
            placement = self._of(layers, on_accel, on_disk)
            if room.left(placement, Tier.HOST) >= 0:
                return placement
        return placement

    def _of(self, layers: int, on_accel: int, on_disk: int) -> Placement:
        streamed = layers - on_accel - on_disk
        kinds = (LayerPlacement(),) * on_accel
        kinds += (LayerPlacement.of(STREAMED),) * streamed + (LayerPlacement.of(FROM_DISK),) * on_disk
        return Placement(kinds, buffers=2 if self.prefetch else 1, overlapped=self.prefetch)

    def _kv_tokens(self, room: Room) -> int:
        if self.kv_tokens is not None:
            return self.kv_tokens
        per_token = room.sizes.layers * room.sizes.kv_bytes_per_token
        return max(room.page_tokens, room.accel_bytes // 4 // per_token)
