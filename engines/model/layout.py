"""Which tensors a model has: our names and shapes, and the Hugging Face tensors that each is stacked from.

Matrices that read the same input are stored as one: q, k and v as `qkv`, Llama's gate and up as `up`; biases likewise.
Reading, drawing, checking and writing (weights.py) all follow this one table.
"""

from dataclasses import dataclass

from engines.model.shape import ModelConfig


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of ours: its shape, and the Hugging Face tensors it stacks with the rows of each."""

    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...]

    def part_shape(self, rows: int) -> tuple[int, ...]:
        return (rows, *self.shape[1:])


Layout = dict[str, Stored]


def layout(config: ModelConfig) -> Layout:
    """Every tensor of the model by our name, in the order of the forward pass."""
    head = {} if config.tied_head else _matrix("head", config.hidden_size, {"lm_head": config.vocab_size})
    return (_llama(config) if config.family == "llama" else _opt(config)) | head


def _llama(config: ModelConfig) -> Layout:
    hidden, ffn, query, kv = config.hidden_size, config.ffn_size, config.query_size, config.kv_size
    stored = _matrix("embedding", hidden, {"model.embed_tokens": config.vocab_size})
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
        stored |= _norm(f"{ours}.attention_norm", f"{theirs}.input_layernorm", hidden)
        stored |= _matrix(f"{ours}.qkv", hidden, _projections(attention, query, kv))
        stored |= _matrix(f"{ours}.output", query, {f"{attention}.o_proj": hidden})
        stored |= _norm(f"{ours}.ffn_norm", f"{theirs}.post_attention_layernorm", hidden)
        stored |= _matrix(f"{ours}.up", hidden, {f"{mlp}.gate_proj": ffn, f"{mlp}.up_proj": ffn})
        stored |= _matrix(f"{ours}.down", ffn, {f"{mlp}.down_proj": hidden})
    return stored | _norm("final_norm", "model.norm", hidden)


def _opt(config: ModelConfig) -> Layout:
    """Every norm and every matrix but the embeddings and the head has a bias."""
    hidden, ffn, decoder = config.hidden_size, config.ffn_size, "model.decoder"
    stored = _matrix("embedding", hidden, {f"{decoder}.embed_tokens": config.vocab_size})
    stored |= _matrix("positions", hidden, {f"{decoder}.embed_positions": config.position_rows})
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}", f"{decoder}.layers.{layer}"
        attention = f"{theirs}.self_attn"
        stored |= _biased_norm(f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm", hidden)
        stored |= _biased_matrix(f"{ours}.qkv", hidden, _projections(attention, config.query_size, config.kv_size))
        stored |= _biased_matrix(f"{ours}.output", hidden, {f"{attention}.out_proj": hidden})
        stored |= _biased_norm(f"{ours}.ffn_norm", f"{theirs}.final_layer_norm", hidden)
        stored |= _biased_matrix(f"{ours}.up", hidden, {f"{theirs}.fc1": ffn})
        stored |= _biased_matrix(f"{ours}.down", ffn, {f"{theirs}.fc2": hidden})
    return stored | _biased_norm("final_norm", f"{decoder}.final_layer_norm", hidden)


def _projections(attention: str, query: int, kv: int) -> dict[str, int]:
    return {f"{attention}.q_proj": query, f"{attention}.k_proj": kv, f"{attention}.v_proj": kv}


def _matrix(ours: str, inputs: int, rows: dict[str, int]) -> Layout:
    """`rows`: of each Hugging Face module whose weight is part of it."""
    parts = tuple((f"{module}.weight", count) for module, count in rows.items())
    return {ours: Stored((sum(rows.values()), inputs), parts)}


def _biased_matrix(ours: str, inputs: int, rows: dict[str, int]) -> Layout:
    return _matrix(ours, inputs, rows) | _bias(ours, rows)


def _norm(ours: str, theirs: str, size: int) -> Layout:
    return {ours: Stored((size,), ((f"{theirs}.weight", size),))}


def _biased_norm(ours: str, theirs: str, size: int) -> Layout:
    return _norm(ours, theirs, size) | _bias(ours, {theirs: size})


def _bias(ours: str, rows: dict[str, int]) -> Layout:
    parts = tuple((f"{module}.bias", count) for module, count in rows.items())
    return {f"{ours}_bias": Stored((sum(rows.values()),), parts)}
