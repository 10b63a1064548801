"""OPT: layer norms, a learned table of positions, and an FFN of two matrices with ReLU between them."""

from torch import Tensor
from torch.nn import functional

from engines.model.decoder import Decoder, Norm
from engines.model.shape import POSITION_OFFSET
from engines.model.weights import Weights


class Opt(Decoder):
    """Positions are added to the embedding, once; queries and keys are left as they are."""

    def _position_table(self, weights: Weights, positions: int) -> Tensor:
        """Learned, [positions, hidden], and beside the embedding wherever that is."""
        return weights.take("positions")[POSITION_OFFSET : POSITION_OFFSET + positions].to(self._home)

    def _normed(self, hidden: Tensor, norm: Norm) -> Tensor:
        return functional.layer_norm(hidden, hidden.shape[-1:], norm.weight, norm.bias, self.config.norm_eps)

    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        rows = self._rows_of(self._embedding, token_ids)
        return rows.add_(self._rows_of(self._positions, positions)).to(self.device)

    def heads(self, qkv: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three are views of qkv."""
        count = self.config.query_heads
        heads = qkv.view(-1, 3 * count, self.config.head_dim)
        return heads[:, :count], heads[:, count : 2 * count], heads[:, 2 * count :]

    def activated(self, up: Tensor) -> Tensor:
        return up.relu_()
