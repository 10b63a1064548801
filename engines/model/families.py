"""Which class computes which family."""

import torch

from engines.model.decoder import Decoder, LinearFactory
from engines.model.llama import Llama
from engines.model.opt import Opt
from engines.model.shape import ModelConfig
from engines.model.weights import Weights

_FAMILIES: dict[str, type[Decoder]] = {"llama": Llama, "opt": Opt}


def open_decoder(
    config: ModelConfig,
    weights: Weights,
    max_positions: int | None = None,
    *,
    device: torch.device | str | None = None,
    linear: LinearFactory | None = None,
    host_embedding: bool = False,
) -> Decoder:
    """The `Decoder` of the config's family; the arguments are its own."""
    family = _FAMILIES[config.family]
    return family(config, weights, max_positions, device=device, linear=linear, host_embedding=host_embedding)
