"""Llama: RMS norms, rotary positions, and an FFN whose gate decides what passes (SwiGLU)."""

from torch import Tensor
from torch.nn import functional

from engines.model.decoder import Decoder, Norm
from engines.model.layers import apply_rope, rms_norm, rope_table
from engines.model.weights import Weights


class Llama(Decoder):
    """Positions turn queries and keys, layer by layer; the embedding knows nothing of them."""

    def _position_table(self, weights: Weights, positions: int) -> Tensor:
        """Of rotations, [positions, 2, head_dim]."""
        return rope_table(self.config, positions, self.dtype, self.device)

    def _normed(self, hidden: Tensor, norm: Norm) -> Tensor:
        return rms_norm(hidden, norm.weight, self.config.norm_eps)

    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        return self._rows_of(self._embedding, token_ids).to(self.device)

    def heads(self, qkv: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query and key, rotated, are views of one new tensor; value is one of qkv."""
        config = self.config
        heads = qkv.view(-1, config.query_heads + 2 * config.kv_heads, config.head_dim)
        rotating = config.query_heads + config.kv_heads
        rotated = apply_rope(heads[:, :rotating], self._positions.index_select(0, positions))
        return rotated[:, : config.query_heads], rotated[:, config.query_heads :], heads[:, rotating:]

    def activated(self, up: Tensor) -> Tensor:
        gate, passing = up.chunk(2, dim=-1)
        return functional.silu(gate).mul_(passing)
