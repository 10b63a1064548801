"""Each piece against an independent computation of it: float64, transformers' rotary module, or `F.linear`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from engines.model import reference
from engines.model.config import ModelConfig, load_config
from engines.model.layers import Linear, apply_rope, can_pack, rms_norm, rope_frequencies, rope_table
from tests.model_folders import make_folder, small_config

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rms_norm_against_float64() -> None:
    hidden, weight = normal(5, 96), normal(96, seed=1)
    exact = hidden.double()
    exact = exact / (exact.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(rms_norm(hidden, weight, 1e-5), exact.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_rotary_frequencies_and_angles_are_those_of_transformers(model_root: Path, scaled: bool) -> None:
    folder = make_folder(model_root, llama3_scaling=scaled)
    config = load_config(folder)
    with reference.quiet():
        theirs: Any = reference.load_model(folder, torch.float32).model.rotary_emb
    assert torch.equal(rope_frequencies(config), theirs.inv_freq)
    cosine, sine = theirs(torch.zeros(1), torch.arange(1000)[None])
    table = rope_table(config, 1000, torch.float32, CPU)
    half = config.head_dim // 2
    assert torch.equal(table[:, 0], cosine[0])
    assert torch.equal(table[:, 1, half:], sine[0, :, half:])
    assert torch.equal(table[:, 1, :half], -sine[0, :, :half])


def test_llama3_scaling_crosses_all_three_bands() -> None:
    ratio = rope_frequencies(small_config()) / rope_frequencies(small_config(llama3_scaling=True))
    assert float(ratio.min()) == 1.0
    assert float(ratio.max()) == pytest.approx(8.0)
    assert bool(((ratio > 1.01) & (ratio < 7.99)).any())


def test_rotation_against_complex_numbers() -> None:
    config = small_config()
    heads, positions = normal(3, 4, config.head_dim), torch.tensor([0, 7, 900])
    angles = positions[:, None].double() * rope_frequencies(config).double()
    low, high = heads.double().chunk(2, -1)
    turned = torch.complex(low, high) * torch.polar(torch.ones_like(angles), angles)[:, None]
    exact = torch.cat((turned.real, turned.imag), -1).float()
    table = rope_table(config, 1000, torch.float32, CPU)
    torch.testing.assert_close(apply_rope(heads, table[positions]), exact, rtol=1e-4, atol=1e-4)


def test_packed_linear_equals_linear_at_every_row_count() -> None:
    weight = normal(160, 96)
    packed, plain = Linear(weight), Linear(weight, pack=False)
    assert packed.packed == can_pack(weight)
    assert not plain.packed
    rows = normal(300, 96, seed=1)
    for count in range(1, 301):
        exact = functional.linear(rows[:count], weight)
        assert float((packed(rows[:count]) - exact).abs().max() / exact.abs().max()) < 1e-4
        assert torch.equal(plain(rows[:count]), exact)


def test_packed_linear_takes_no_rows_strided_rows_and_a_bias() -> None:
    weight, bias, wide = normal(160, 96), normal(160, seed=1), normal(10, 200, seed=2)
    linear = Linear(weight, bias)
    assert linear(wide[:0, :96]).shape == (0, 160)
    exact = functional.linear(wide[:, 7:103], weight, bias)
    torch.testing.assert_close(linear(wide[:, 7:103]), exact, rtol=1e-4, atol=1e-4)


def test_packed_bfloat16_rounds_like_the_plain_one() -> None:
    weight, rows = normal(160, 96).bfloat16(), normal(20, 96, seed=1).bfloat16()
    if not can_pack(weight):
        pytest.skip("oneDNN has no bfloat16 on this CPU")
    exact = functional.linear(rows.float(), weight.float())
    assert float((Linear(weight)(rows).float() - exact).abs().max() / exact.abs().max()) < 1e-2


def test_float16_and_float64_are_not_packed() -> None:
    for dtype in (torch.float16, torch.float64):
        assert not Linear(normal(8, 8).to(dtype)).packed


def test_without_the_operators_the_plain_layer_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    weight, rows = normal(160, 96), normal(3, 96)
    linear = Linear(weight)
    assert not linear.packed
    assert torch.equal(linear(rows), functional.linear(rows, weight))


def test_a_long_context_table_stays_exact() -> None:
    config: ModelConfig = load_config("llama-3.1-8b")
    table = rope_table(config, 131072, torch.float32, CPU)[-1]
    angle = 131071 * rope_frequencies(config)
    assert torch.equal(table[0, : config.head_dim // 2], angle.cos())
