"""The forward pass in the pieces between which a scheduler can act: embed, before attention, after it, logits.

Rows are tokens, whichever requests they belong to. There is no attention, no KV cache and no scheduling in here, and no
state that changes: one `Decoder` may be called from several threads. Call it under `torch.inference_mode`.

What both families do alike is here; norms, positions and activations are llama.py's and opt.py's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from engines.model.layers import EXACT_ROWS, ROW_MULTIPLE, Linear
from engines.model.shape import ModelConfig
from engines.model.weights import Weights

RowsToRows = Callable[[Tensor], Tensor]  # [rows, inputs] -> [rows, outputs]
LinearFactory = Callable[[str, Tensor, Tensor | None], RowsToRows]  # name, weight [outputs, inputs], bias [outputs]


@dataclass(frozen=True, slots=True)
class Norm:
    weight: Tensor
    bias: Tensor | None

    def to(self, device: torch.device) -> "Norm":
        return Norm(self.weight.to(device), None if self.bias is None else self.bias.to(device))


@dataclass(frozen=True, slots=True)
class Layer:
    """The parameters of one layer; `up` is Llama's gate and up in one."""

    attention_norm: Norm
    qkv: RowsToRows
    output: RowsToRows
    ffn_norm: Norm
    up: RowsToRows
    down: RowsToRows


class Decoder(ABC):
    """A model that takes its weights over: afterwards `weights` is empty.

    `max_positions` shortens the table of positions where sequences are known to stay below the model's own limit
    (Llama-3.1's full table takes 64 MiB in 16 bit).

    `device` is where hidden rows are computed: embeddings, positions, norms and the head go there; without it they stay
    where the weights are. `linear` makes each matrix of a layer, called "layers.3.qkv", ".output", ".up" or ".down",
    and may keep it elsewhere; without it each is a `Linear` on the device. With `host_embedding` the rows of the
    embedding (and of a learned table of positions) are looked up where they were loaded, and only then moved.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        max_positions: int | None = None,
        *,
        device: torch.device | str | None = None,
        linear: LinearFactory | None = None,
        host_embedding: bool = False,
    ) -> None:
        self.config = config
        embedding = weights.take("embedding")
        self.dtype = embedding.dtype
        self.device = embedding.device if device is None else torch.device(device)
        self._home = embedding.device if host_embedding else self.device
        self._embedding = embedding.to(self._home)
        self._positions = self._position_table(weights, max_positions or config.max_positions)
        make = linear or self._linear
        self.layers = tuple(self._take_layer(weights, f"layers.{layer}", make) for layer in range(config.layers))
        self._final_norm = self._take_norm(weights, "final_norm")
        # A packed head is a second copy where it is tied: an embedding is looked up by rows, which packing breaks.
        self._head = self._linear("head", self._embedding if config.tied_head else weights.take("head"), None)

    def seen_from(self, device: torch.device) -> Self:
        """The same model for rows that are on another device: norms and positions there, and no matrices."""
        there = copy(self)
        there.device = device
        there._positions = self._positions.to(device)
        there.layers = tuple(
            replace(layer, attention_norm=layer.attention_norm.to(device), ffn_norm=layer.ffn_norm.to(device))
            for layer in self.layers
        )
        return there

    # --- what a family decides ---------------------------------------------------------------------------------------

    @abstractmethod
    def _position_table(self, weights: Weights, positions: int) -> Tensor:
        """Whatever the family knows of positions 0 to `positions` - 1, one row each."""

    @abstractmethod
    def _normed(self, hidden: Tensor, norm: Norm) -> Tensor:
        """hidden [rows, hidden] -> new [rows, hidden]."""

    @abstractmethod
    def embed(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """token_ids [rows], positions [rows] -> hidden [rows, hidden], a new tensor on the model's device."""

    @abstractmethod
    def heads(self, qkv: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """qkv [rows, query_size + 2 kv_size], positions [rows] -> query [rows, query_heads, head_dim], key and value
        [rows, kv_heads, head_dim], ready for attention.

        They may be views of one tensor: contiguous within a row, but not from row to row.
        """

    @abstractmethod
    def activated(self, up: Tensor) -> Tensor:
        """up [rows, up_size], which may be overwritten -> [rows, ffn], what the down matrix reads."""

    # --- the pass ----------------------------------------------------------------------------------------------------

    def attention_input(self, layer: int, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden] -> new [rows, hidden], what the QKV matrix reads."""
        return self._normed(hidden, self.layers[layer].attention_norm)

    def pre_attention(self, layer: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """hidden [rows, hidden], positions [rows] -> query, key and value as `heads` has them."""
        return self.heads(self.layers[layer].qkv(self.attention_input(layer, hidden)), positions)

    def ffn_input(self, layer: int, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden] -> new [rows, hidden], what the up matrix reads."""
        return self._normed(hidden, self.layers[layer].ffn_norm)

    def post_attention(self, layer: int, hidden: Tensor, attention_output: Tensor) -> Tensor:
        """hidden [rows, hidden], attention_output [rows, query_heads * head_dim] -> hidden, updated IN PLACE."""
        parameters = self.layers[layer]
        hidden.add_(parameters.output(attention_output))
        up = parameters.up(self.ffn_input(layer, hidden))
        return hidden.add_(parameters.down(self.activated(up)))

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden] -> [rows, vocab] float32."""
        return self._head(self._normed(hidden, self._final_norm)).float()

    def warm_up(self, max_rows: int) -> None:
        """Have oneDNN generate its code for up to `max_rows` rows now, not in the first step that needs it."""
        layer = self.layers[0]
        linears = (layer.qkv, layer.output, layer.up, layer.down, self._head)
        packed = [linear for linear in linears if isinstance(linear, Linear) and linear.packed]
        for rows in row_counts(max_rows):
            for linear in packed:
                linear(torch.zeros(rows, linear.inputs, dtype=self.dtype, device=self.device))

    # --- parameters --------------------------------------------------------------------------------------------------

    def _rows_of(self, table: Tensor, indices: Tensor) -> Tensor:
        """table [entries, width], indices [rows] -> new [rows, width], where the table is."""
        return functional.embedding(indices.to(table.device), table)

    def _linear(self, name: str, weight: Tensor, bias: Tensor | None) -> Linear:
        return Linear(weight.to(self.device), None if bias is None else bias.to(self.device))

    def _take_layer(self, weights: Weights, prefix: str, make: LinearFactory) -> Layer:
        def linear(part: str) -> RowsToRows:
            name = f"{prefix}.{part}"
            return make(name, weights.take(name), self._bias(weights, name))

        return Layer(
            attention_norm=self._take_norm(weights, f"{prefix}.attention_norm"),
            qkv=linear("qkv"),
            output=linear("output"),
            ffn_norm=self._take_norm(weights, f"{prefix}.ffn_norm"),
            up=linear("up"),
            down=linear("down"),
        )

    def _take_norm(self, weights: Weights, name: str) -> Norm:
        bias = self._bias(weights, name)
        return Norm(weights.take(name).to(self.device), None if bias is None else bias.to(self.device))

    def _bias(self, weights: Weights, name: str) -> Tensor | None:
        return weights.take(f"{name}_bias") if self.config.has_biases else None


def row_counts(max_rows: int) -> Iterator[int]:
    """The row counts that `Linear` hands on: all small ones, then multiples."""
    yield from range(1, min(max_rows, EXACT_ROWS) + 1)
    yield from range(EXACT_ROWS + ROW_MULTIPLE, max_rows + ROW_MULTIPLE, ROW_MULTIPLE)
