"""The models that planners of this kind are published for: OPT, by the numbers that their equations need."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """In 16 bit; `hidden` and `ffn` are h1 and h2 of the equations. `kv_share`: of the hidden size, what keys take each
    (grouped-query attention); `packed`: of their bytes, what weights and KV take when compressed.
    """

    name: str
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_share: float = 1.0
    packed: float = 1.0

    @property
    def layer_flops(self) -> int:
        """Of one token."""
        return 8 * self.hidden**2 + 4 * self.hidden * self.ffn

    @property
    def layer_bytes(self) -> float:
        """w_i: four attention matrices and two of the FFN."""
        return self.layer_flops * self.packed

    @property
    def kv_bytes(self) -> float:
        """Of one token in one layer: 4 h1, where every head has its own and nothing is compressed."""
        return 4 * self.hidden * self.kv_share * self.packed


# Source: the configurations published with the OPT models.
OPT = {
    model.name: model
    for model in (
        PlannedModel("opt-125m", 768, 3072, 12, 12),
        PlannedModel("opt-1.3b", 2048, 8192, 24, 32),
        PlannedModel("opt-6.7b", 4096, 16384, 32, 32),
        PlannedModel("opt-13b", 5120, 20480, 40, 40),
        PlannedModel("opt-30b", 7168, 28672, 48, 56),
        PlannedModel("opt-66b", 9216, 36864, 64, 72),
        PlannedModel("opt-175b", 12288, 49152, 96, 96),
    )
}
