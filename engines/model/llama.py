"""The Llama forward pass in the pieces between which a scheduler can act: embed, before attention, after it, logits.

Rows are tokens, whichever requests they belong to. There is no attention, no KV cache and no scheduling in here, and no
state that changes: one `Llama` may be called from several threads. Call it under `torch.inference_mode`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engines.model.config import ModelConfig
from engines.model.layers import EXACT_ROWS, ROW_MULTIPLE, Linear, apply_rope, rms_norm, rope_table
from engines.model.weights import Weights


@dataclass(frozen=True, slots=True)
class Layer:
    """The parameters of one layer, the matrices packed."""

    attention_norm: Tensor
    qkv: Linear
    output: Linear
    ffn_norm: Tensor
    gate_up: Linear
    down: Linear


class Llama:
    """A model on the device of its weights, which it takes over: afterwards `weights` is empty.

    `max_positions` shortens the rotary table where sequences are known to stay below the model's own limit
    (Llama-3.1's full table takes 64 MiB in 16 bit).
    """

    def __init__(self, config: ModelConfig, weights: Weights, max_positions: int | None = None) -> None:
        self.config = config
        embedding = weights.take("embedding")
        self.dtype, self.device = embedding.dtype, embedding.device
        self.layers = tuple(_take_layer(weights, layer) for layer in range(config.layers))
        self._embedding = embedding
        self._final_norm = weights.take("final_norm")
        # A packed head is a second copy where it is tied: an embedding is looked up by rows, which packing breaks.
        self._head = Linear(embedding if config.tied_head else weights.take("head"))
        self._rope = rope_table(config, max_positions or config.max_positions, self.dtype, self.device)

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids [rows] -> hidden [rows, hidden], a new tensor."""
        return functional.embedding(token_ids, self._embedding)

    def pre_attention(self, layer: int, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """hidden [rows, hidden], positions [rows] -> query [rows, query_heads, head_dim], key and value
        [rows, kv_heads, head_dim], query and key rotated.

        Query and key are views of one tensor, value of another: contiguous within a row, but not from row to row.
        """
        config, parameters = self.config, self.layers[layer]
        qkv = parameters.qkv(rms_norm(hidden, parameters.attention_norm, config.norm_eps))
        heads = qkv.view(-1, config.query_heads + 2 * config.kv_heads, config.head_dim)
        rotating = config.query_heads + config.kv_heads
        rotated = apply_rope(heads[:, :rotating], self._rope.index_select(0, positions))
        return rotated[:, : config.query_heads], rotated[:, config.query_heads :], heads[:, rotating:]

    def post_attention(self, layer: int, hidden: Tensor, attention_output: Tensor) -> Tensor:
        """hidden [rows, hidden], attention_output [rows, query_heads * head_dim] -> hidden, updated IN PLACE."""
        parameters = self.layers[layer]
        hidden.add_(parameters.output(attention_output))
        gate_up = parameters.gate_up(rms_norm(hidden, parameters.ffn_norm, self.config.norm_eps))
        gate, up = gate_up.chunk(2, dim=-1)
        return hidden.add_(parameters.down(functional.silu(gate).mul_(up)))

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [rows, hidden] -> [rows, vocab] float32."""
        return self._head(rms_norm(hidden, self._final_norm, self.config.norm_eps)).float()

    def warm_up(self, max_rows: int) -> None:
        """Have oneDNN generate its code for up to `max_rows` rows now, not in the first step that needs it."""
        layer = self.layers[0]
        linears = (layer.qkv, layer.output, layer.gate_up, layer.down, self._head)
        for rows in _row_counts(max_rows):
            for linear in filter(lambda linear: linear.packed, linears):
                linear(torch.zeros(rows, linear.inputs, dtype=self.dtype, device=self.device))


def _row_counts(max_rows: int) -> Iterator[int]:
    """The row counts that `Linear` hands on: all small ones, then multiples."""
    yield from range(1, min(max_rows, EXACT_ROWS) + 1)
    yield from range(EXACT_ROWS + ROW_MULTIPLE, max_rows + ROW_MULTIPLE, ROW_MULTIPLE)


def _take_layer(weights: Weights, layer: int) -> Layer:
    prefix = f"layers.{layer}"
    return Layer(
        attention_norm=weights.take(f"{prefix}.attention_norm"),
        qkv=Linear(weights.take(f"{prefix}.qkv")),
        output=Linear(weights.take(f"{prefix}.output")),
        ffn_norm=weights.take(f"{prefix}.ffn_norm"),
        gate_up=Linear(weights.take(f"{prefix}.gate_up")),
        down=Linear(weights.take(f"{prefix}.down")),
    )
