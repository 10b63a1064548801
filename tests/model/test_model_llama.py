"""Our forward pass against transformers' logits and tokens, with the attention between its halves in plain torch."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engines.model import reference
from engines.model.config import load_config
from engines.model.llama import Llama
from engines.model.weights import INDEX_FILE, load_weights
from tests.model_folders import make_folder

VARIANTS = {
    "multi-head": {},
    "grouped": {"kv_heads": 2},
    "multi-query": {"kv_heads": 1},
    "tied": {"tied": True},
    "llama3": {"kv_heads": 2, "llama3_scaling": True},
}


def read_model(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Llama:
    config = load_config(folder)
    return Llama(config, load_weights(folder, config, dtype, device))


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """query [rows, query_heads, d], key and value [tokens, kv_heads, d] -> [rows, query_heads * d]; the query rows are
    the last of the tokens."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", query.float(), key.float()) / query.shape[-1] ** 0.5
    ages = torch.arange(key.shape[0])[None, :] - torch.arange(key.shape[0] - query.shape[0], key.shape[0])[:, None]
    shares = scores.masked_fill((ages > 0).to(scores.device), float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", shares, value.float()).flatten(1).to(query.dtype)


class Decoder:
    """A model with one request's KV, kept as plain tensors."""

    def __init__(self, model: Llama) -> None:
        self.model = model
        self.kv: list[tuple[Tensor, Tensor] | None] = [None] * model.config.layers
        self.length = 0

    @torch.inference_mode()
    def feed(self, tokens: list[int]) -> Tensor:
        """Logits after each of the tokens, [tokens, vocab]."""
        hidden = self.model.embed(torch.tensor(tokens, dtype=torch.long, device=self.model.device))
        positions = torch.arange(self.length, self.length + len(tokens), device=self.model.device)
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
    folder = make_folder(model_root, **VARIANTS[variant])  # type: ignore[arg-type]
    [prompt] = random_prompts(1, 300)
    theirs = reference.teacher_forced_logits(folder, prompt, attention="eager")
    ours = Decoder(read_model(folder)).feed(prompt)
    assert ours.dtype == torch.float32
    assert reference.logit_error(ours, theirs) < 1e-5
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_equal_those_of_transformers(model_root: Path, variant: str) -> None:
    folder = make_folder(model_root, **VARIANTS[variant])  # type: ignore[arg-type]
    prompts = [prompt[: 5 + 20 * row] for row, prompt in enumerate(random_prompts(4, 80, seed=1))]
    oracle = reference.greedy(folder, prompts, [24, 16, 24, 8])
    model = read_model(folder)
    ours = [Decoder(model).generate(prompt, len(run.token_ids)) for prompt, run in zip(prompts, oracle, strict=True)]
    parity = reference.compare(ours, oracle)
    assert parity.holds, str(parity)
    assert len(set().union(*ours)) > 24, "too few distinct tokens to notice a mistake"


def test_a_sharded_folder_gives_the_same_logits(model_root: Path, tmp_path: Path) -> None:
    folder = make_folder(model_root, kv_heads=2)
    with reference.quiet():
        reference.load_model(folder, torch.float32).save_pretrained(tmp_path, max_shard_size="1MB")
    assert (tmp_path / INDEX_FILE).is_file()
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    [prompt] = random_prompts(1, 50)
    assert torch.equal(Decoder(read_model(tmp_path)).feed(prompt), Decoder(read_model(folder)).feed(prompt))


def test_losing_any_kv_block_changes_the_tokens(model_root: Path) -> None:
    """The test of the tests: were these models blind to their context, equal tokens would prove nothing."""
    model = read_model(make_folder(model_root, kv_heads=2))
    noticed, blocks = 0, 0
    for prompt in random_prompts(4, 96, seed=2):
        whole = Decoder(model).generate(prompt, 24)
        for block in range(6):
            damaged = Decoder(model)
            first = int(damaged.feed(prompt)[-1].argmax())
            for kv in damaged.kv:
                assert kv is not None
                zero_block(kv, block)
            blocks += 1
            noticed += damaged.generate([first], 23) != whole[1:]
    assert noticed >= 0.95 * blocks


def test_bfloat16_stays_within_the_bound_and_a_lost_token_does_not(model_root: Path) -> None:
    folder = make_folder(model_root, kv_heads=2)
    prompts = random_prompts(4, 48, seed=3)
    bound = reference.logit_bound(folder, torch.bfloat16, prompts)
    assert 0 < bound < 0.2
    model = read_model(folder, torch.bfloat16)
    theirs = reference.teacher_forced_logits(folder, prompts[0], torch.bfloat16)
    assert reference.logit_error(Decoder(model).feed(prompts[0]), theirs) < bound
    without_one = Decoder(model)
    without_one.feed(prompts[0][:10])
    without_one.length += 1
    assert reference.logit_error(without_one.feed(prompts[0][11:]), theirs[11:]) > bound


def test_warming_up_leaves_the_model_as_it_was(model_root: Path) -> None:
    model = read_model(make_folder(model_root))
    [prompt] = random_prompts(1, 20)
    before = Decoder(model).feed(prompt)
    model.warm_up(75)
    assert torch.equal(Decoder(model).feed(prompt), before)


def test_no_rows_pass_through(model_root: Path) -> None:
    assert Decoder(read_model(make_folder(model_root))).feed([]).shape == (0, 512)


def test_a_shortened_rotary_table_refuses_later_positions(model_root: Path) -> None:
    folder = make_folder(model_root)
    config = load_config(folder)
    model = Llama(config, load_weights(folder, config), max_positions=16)
    Decoder(model).feed(list(range(16)))
    with pytest.raises(IndexError):
        Decoder(model).feed(list(range(17)))


@pytest.mark.gpu
def test_cuda_logits_equal_those_of_transformers(model_root: Path) -> None:
    folder = make_folder(model_root, kv_heads=2, llama3_scaling=True)
    [prompt] = random_prompts(1, 300)
    theirs = reference.teacher_forced_logits(folder, prompt)
    ours = Decoder(read_model(folder, device="cuda")).feed(prompt).cpu()
    assert reference.logit_error(ours, theirs) < 1e-4
