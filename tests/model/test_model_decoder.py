"""Our forward pass against transformers' logits and tokens, with the attention between its halves in plain torch."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engines.model import reference
from engines.model.config import load_config
from engines.model.decoder import Decoder, RowsToRows
from engines.model.errors import ModelError
from engines.model.families import open_decoder
from engines.model.layers import Linear
from engines.model.weights import INDEX_FILE, load_weights, random_weights
from tests.model_folders import make_folder, small_config

VARIANTS: dict[str, dict[str, Any]] = {
    "multi-head": {},
    "grouped": {"kv_heads": 2},
    "multi-query": {"kv_heads": 1},
    "tied": {"tied": True},
    "llama3": {"kv_heads": 2, "llama3_scaling": True},
    "opt": {"family": "opt"},
    "opt, tied": {"family": "opt", "tied": True},
}
FAMILIES: dict[str, dict[str, Any]] = {"llama": {"kv_heads": 2}, "opt": {"family": "opt"}}


def read_model(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Decoder:
    config = load_config(folder)
    return open_decoder(config, load_weights(folder, config, dtype, device))


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """query [rows, query_heads, d], key and value [tokens, kv_heads, d] -> [rows, query_heads * d]; the query rows are
    the last of the tokens."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", query.float(), key.float()) / query.shape[-1] ** 0.5
    ages = torch.arange(key.shape[0])[None, :] - torch.arange(key.shape[0] - query.shape[0], key.shape[0])[:, None]
    shares = scores.masked_fill((ages > 0).to(scores.device), float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", shares, value.float()).flatten(1).to(query.dtype)


class OneRequest:
    """A model with one request's KV, kept as plain tensors."""

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.kv: list[tuple[Tensor, Tensor] | None] = [None] * model.config.layers
        self.length = 0

    @torch.inference_mode()
    def feed(self, tokens: list[int]) -> Tensor:
        """Logits after each of the tokens, [tokens, vocab]."""
        positions = torch.arange(self.length, self.length + len(tokens), device=self.model.device)
        hidden = self.model.embed(torch.tensor(tokens, dtype=torch.long, device=self.model.device), positions)
        self.length += len(tokens)
        for layer, past in enumerate(self.kv):
            query, key, value = self.model.pre_attention(layer, hidden, positions)
            if past is not None:
                key, value = torch.cat((past[0], key)), torch.cat((past[1], value))
            self.kv[layer] = key, value
            hidden = self.model.post_attention(layer, hidden, causal_attention(query, key, value))
        return self.model.logits(hidden)

    def generate(self, prompt: list[int], count: int) -> list[int]:
        tokens = [int(self.feed(prompt)[-1].argmax())]
        while len(tokens) < count:
            tokens.append(int(self.feed(tokens[-1:])[-1].argmax()))
        return tokens


@torch.inference_mode()
def zero_block(kv: tuple[Tensor, Tensor], block: int) -> None:
    for tensor in kv:
        tensor[16 * block : 16 * block + 16] = 0


def random_prompts(count: int, length: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    prompts: list[list[int]] = torch.randint(3, 512, (count, length), generator=generator).tolist()
    return prompts


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_transformers(model_root: Path, variant: str) -> None:
    folder = make_folder(model_root, **VARIANTS[variant])
    [prompt] = random_prompts(1, 300)
    theirs = reference.teacher_forced_logits(folder, prompt, attention="eager")
    ours = OneRequest(read_model(folder)).feed(prompt)
    assert ours.dtype == torch.float32
    assert reference.logit_error(ours, theirs) < 1e-5
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_equal_those_of_transformers(model_root: Path, variant: str) -> None:
    folder = make_folder(model_root, **VARIANTS[variant])
    prompts = [prompt[: 5 + 20 * row] for row, prompt in enumerate(random_prompts(4, 80, seed=1))]
    oracle = reference.greedy(folder, prompts, [24, 16, 24, 8])
    model = read_model(folder)
    ours = [OneRequest(model).generate(prompt, len(run.token_ids)) for prompt, run in zip(prompts, oracle, strict=True)]
    parity = reference.compare(ours, oracle)
    assert parity.holds, str(parity)
    assert len(set().union(*ours)) > 24, "too few distinct tokens to notice a mistake"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sharded_folder_gives_the_same_logits(model_root: Path, tmp_path: Path, family: str) -> None:
    folder = make_folder(model_root, **FAMILIES[family])
    with reference.quiet():
        reference.load_model(folder, torch.float32).save_pretrained(tmp_path, max_shard_size="1MB")
    assert (tmp_path / INDEX_FILE).is_file()
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    [prompt] = random_prompts(1, 50)
    assert torch.equal(OneRequest(read_model(tmp_path)).feed(prompt), OneRequest(read_model(folder)).feed(prompt))


@pytest.mark.parametrize("family", FAMILIES)
def test_losing_any_kv_block_changes_the_tokens(model_root: Path, family: str) -> None:
    """The test of the tests: were these models blind to their context, equal tokens would prove nothing."""
    model = read_model(make_folder(model_root, **FAMILIES[family]))
    noticed, blocks = 0, 0
    for prompt in random_prompts(4, 96, seed=2):
        whole = OneRequest(model).generate(prompt, 24)
        for block in range(6):
            damaged = OneRequest(model)
            first = int(damaged.feed(prompt)[-1].argmax())
            for kv in damaged.kv:
                assert kv is not None
                zero_block(kv, block)
            blocks += 1
            noticed += damaged.generate([first], 23) != whole[1:]
    assert noticed >= 0.95 * blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_within_the_bound_and_a_lost_token_does_not(model_root: Path, family: str) -> None:
    folder = make_folder(model_root, **FAMILIES[family])
    prompts = random_prompts(4, 48, seed=3)
    bound = reference.logit_bound(folder, torch.bfloat16, prompts)
    assert 0 < bound < 0.2
    model = read_model(folder, torch.bfloat16)
    theirs = reference.teacher_forced_logits(folder, prompts[0], torch.bfloat16)
    assert reference.logit_error(OneRequest(model).feed(prompts[0]), theirs) < bound
    without_one = OneRequest(model)
    without_one.feed(prompts[0][:10])
    without_one.length += 1
    assert reference.logit_error(without_one.feed(prompts[0][11:]), theirs[11:]) > bound


@pytest.mark.parametrize("family", FAMILIES)
def test_warming_up_leaves_the_model_as_it_was(model_root: Path, family: str) -> None:
    model = read_model(make_folder(model_root, **FAMILIES[family]))
    [prompt] = random_prompts(1, 20)
    before = OneRequest(model).feed(prompt)
    model.warm_up(75)
    assert torch.equal(OneRequest(model).feed(prompt), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_rows_pass_through(model_root: Path, family: str) -> None:
    assert OneRequest(read_model(make_folder(model_root, **FAMILIES[family]))).feed([]).shape == (0, 512)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shortened_table_of_positions_refuses_later_positions(model_root: Path, family: str) -> None:
    folder = make_folder(model_root, **FAMILIES[family])
    config = load_config(folder)
    model = open_decoder(config, load_weights(folder, config), max_positions=16)
    OneRequest(model).feed(list(range(16)))
    with pytest.raises(IndexError):
        OneRequest(model).feed(list(range(17)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_pieces_of_a_layer_make_up_its_halves(model_root: Path, variant: str) -> None:
    """Whoever splits a layer's matrices computes with the pieces alone, and must get the same."""
    model = read_model(make_folder(model_root, **VARIANTS[variant]))
    layer, positions = model.layers[1], torch.arange(7)
    with torch.inference_mode():
        hidden = model.embed(torch.arange(3, 10), positions)
        attended = torch.randn(7, model.config.query_size, generator=torch.Generator().manual_seed(0))
        together = model.pre_attention(1, hidden, positions)
        apart = model.heads(layer.qkv(model.attention_input(1, hidden)), positions)
        assert all(torch.equal(*pair) for pair in zip(apart, together, strict=True))
        middle = hidden + layer.output(attended)
        after = middle + layer.down(model.activated(layer.up(model.ffn_input(1, middle))))
        assert torch.equal(model.post_attention(1, hidden, attended), after)


@pytest.mark.parametrize("variant", VARIANTS)
def test_matrices_may_be_kept_and_computed_elsewhere(model_root: Path, variant: str) -> None:
    folder = make_folder(model_root, **VARIANTS[variant])
    config = load_config(folder)
    made: dict[str, tuple[tuple[int, ...], bool]] = {}

    def unpacked(name: str, weight: Tensor, bias: Tensor | None) -> RowsToRows:
        made[name] = tuple(weight.shape), bias is not None
        return lambda rows: functional.linear(rows, weight, bias)

    model = open_decoder(config, load_weights(folder, config), device="cpu", linear=unpacked, host_embedding=True)
    parts = zip(("qkv", "output", "up", "down"), config.matrices, strict=True)
    shapes = {part: ((outputs, inputs), config.has_biases) for part, (inputs, outputs) in parts}
    assert made == {f"layers.{layer}.{part}": shapes[part] for layer in range(4) for part in shapes}
    model.warm_up(2)
    [prompt] = random_prompts(1, 50)
    assert reference.logit_error(OneRequest(model).feed(prompt), OneRequest(read_model(folder)).feed(prompt)) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_embedding_alone_stays_where_it_was_loaded(model_root: Path, variant: str) -> None:
    """The meta device stands for another one: it computes nothing, and takes no tensor of a third."""
    folder = make_folder(model_root, **VARIANTS[variant])
    config, positions = load_config(folder), torch.arange(5)
    model = open_decoder(config, load_weights(folder, config), device="meta", host_embedding=True)
    with torch.inference_mode():
        hidden = model.embed(torch.arange(5), positions)
        query, _, _ = model.pre_attention(0, hidden, positions.to("meta"))
        hidden = model.post_attention(0, hidden, query.flatten(1))
        logits = model.logits(hidden)
    assert {tensor.device for tensor in (hidden, query, logits)} == {model.device} == {torch.device("meta")}


def test_a_model_takes_its_weights_over() -> None:
    weights = random_weights(small_config(), 3)
    matrix = weakref.ref(weights["layers.0.up"])
    up = open_decoder(small_config(), weights).layers[0].up
    gc.collect()
    assert isinstance(up, Linear)
    assert (matrix() is None) == up.packed
    with pytest.raises(ModelError, match="a model took them over"):
        open_decoder(small_config(), weights)


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["llama3", "opt"])
def test_cuda_logits_equal_those_of_transformers(model_root: Path, variant: str) -> None:
    folder = make_folder(model_root, **VARIANTS[variant])
    [prompt] = random_prompts(1, 300)
    theirs = reference.teacher_forced_logits(folder, prompt)
    ours = OneRequest(read_model(folder, device="cuda")).feed(prompt).cpu()
    assert reference.logit_error(ours, theirs) < 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_embedding_that_stays_on_the_host(model_root: Path, variant: str) -> None:
    folder = make_folder(model_root, **VARIANTS[variant])
    config, [prompt] = load_config(folder), random_prompts(1, 50)
    model = open_decoder(config, load_weights(folder, config), device="cuda", host_embedding=True)
    ours = OneRequest(model).feed(prompt)
    assert ours.device.type == "cuda"
    assert reference.logit_error(ours.cpu(), reference.teacher_forced_logits(folder, prompt)) < 1e-4
