"""Small seeded Hugging Face folders for tests that compare tokens or logits with transformers.

Their weights are spread wide enough, and their heads untied, so that a wrong position or a lost KV block changes the
tokens; with the usual spread of 0.02 half of the requests would not notice.
"""

from dataclasses import replace
from pathlib import Path

import torch

from engines.model.config import ModelConfig, RopeScaling
from engines.model.shape import Family
from engines.model.weights import random_weights, save_folder

# A short original context, so that the few hundred positions of a test cross all three bands of llama-3 scaling.
LLAMA3_SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)

SMALL = ModelConfig(
    name="small",
    vocab_size=512,
    hidden_size=128,
    ffn_size=352,
    layers=4,
    query_heads=4,
    kv_heads=4,
    head_dim=32,
    max_positions=1024,
    rope_theta=10000.0,
    rope_scaling=None,
    norm_eps=1e-5,
    tied_head=False,
    bos_id=1,
    eos_ids=(2,),
)
SMALL_OPT = replace(SMALL, name="small-opt", family="opt", ffn_size=512, rope_theta=None, bos_id=2)

# ReLU lets much through that is the same for every token: OPT's matrices must be larger for as many different answers.
SPREAD: dict[Family, float] = {"llama": 0.1, "opt": 0.2}


def small_config(
    *,
    family: Family = "llama",
    kv_heads: int = 4,
    tied: bool = False,
    llama3_scaling: bool = False,
    layers: int = 4,
) -> ModelConfig:
    """The small model of a family, varied."""
    scaling = LLAMA3_SCALING if llama3_scaling else None
    small = SMALL if family == "llama" else SMALL_OPT
    return replace(small, kv_heads=kv_heads, tied_head=tied, rope_scaling=scaling, layers=layers)


def make_folder(
    parent: Path,
    *,
    family: Family = "llama",
    kv_heads: int = 4,
    tied: bool = False,
    llama3_scaling: bool = False,
    layers: int = 4,
    seed: int = 0,
    std: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A folder under `parent` with config.json and model.safetensors; the same arguments give the same folder again."""
    config = small_config(family=family, kv_heads=kv_heads, tied=tied, llama3_scaling=llama3_scaling, layers=layers)
    std = SPREAD[family] if std is None else std
    kind = f"{family}-kv{kv_heads}-tied{int(tied)}-scaled{int(llama3_scaling)}-layers{layers}"
    folder = parent / f"{kind}-seed{seed}-std{std}-{str(dtype).removeprefix('torch.')}"
    if not folder.exists():
        save_folder(folder, config, random_weights(config, seed, dtype, std=std))
    return folder
