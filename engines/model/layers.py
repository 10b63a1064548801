"""The pieces of a layer: RMS norm, rotary positions, and a linear layer whose weights are packed once.

Not the models (decoder.py), and no attention: that belongs to the backends, because where it runs is what is scheduled.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from engines.model.shape import ModelConfig

# oneDNN generates code for every row count it has not seen, about 2 ms a time. Decode batches repeat theirs; prompt
# lengths do not, so row counts above this are rounded up to a multiple.
EXACT_ROWS = 64
ROW_MULTIPLE = 8


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """hidden [rows, hidden], weight [hidden] -> [rows, hidden]."""
    return functional.rms_norm(hidden, (hidden.shape[-1],), weight, eps)


def rope_frequencies(config: ModelConfig) -> Tensor:
    """Radians per position of every rotated pair, [head_dim / 2] float32; the order of operations is transformers'."""
    assert config.rope_theta is not None, "this model's positions are learned"
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponents)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    # Llama 3.1: fast pairs stay, slow pairs are slowed by the factor, those between are blended by their wavelength.
    wavelengths = 2 * math.pi / frequencies
    turns = scaling.original_max_positions / wavelengths
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blended = (1 - blend) * frequencies / scaling.factor + blend * frequencies
    slow = wavelengths > scaling.original_max_positions / scaling.low_freq_factor
    fast = wavelengths < scaling.original_max_positions / scaling.high_freq_factor
    return torch.where(slow, frequencies / scaling.factor, torch.where(fast, frequencies, blended))


def rope_table(config: ModelConfig, positions: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Cosines and signed sines of positions 0 to `positions` - 1: [positions, 2, head_dim].

    One table, so that a step gathers once. The sine of the first half is negated, which turns the rotation into two
    products and a sum over the head and its half-swapped copy.
    """
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * rope_frequencies(config)
    cosine, sine = angles.cos(), angles.sin()
    table = torch.stack((torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)), dim=1)
    return table.to(device=device, dtype=dtype)


def apply_rope(heads: Tensor, rotation: Tensor) -> Tensor:
    """heads [rows, heads, head_dim], rotation [rows, 2, head_dim] from a rope table -> new [rows, heads, head_dim]."""
    cosine, signed_sine = rotation.unsqueeze(2).unbind(1)
    swapped = heads.roll(heads.shape[-1] // 2, -1)
    return torch.addcmul(heads * cosine, swapped, signed_sine)


class Linear:
    """A linear layer of weight [outputs, inputs], packed for oneDNN where that is faster: 32 bit and bfloat16 on a CPU.

    Packing lays the weight out in the blocks the kernel reads: 1.5 to 3 times faster at 1 to 16 rows, the size of a
    decode batch. Only the packed copy is kept; the caller's tensor is freed once nobody else refers to it.
    """

    __slots__ = ("_bias", "_packed", "_weight", "inputs", "outputs")

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, pack: bool = True) -> None:
        self.outputs, self.inputs = weight.shape
        self._packed = _pack(weight) if pack and can_pack(weight) else None
        self._weight = weight if self._packed is None else None
        self._bias = bias

    @property
    def packed(self) -> bool:
        return self._packed is not None

    def __call__(self, rows: Tensor) -> Tensor:
        """[rows, inputs] -> [rows, outputs]."""
        if self._packed is None:
            assert self._weight is not None
            return functional.linear(rows, self._weight, self._bias)
        count = rows.shape[0]
        if count > EXACT_ROWS and count % ROW_MULTIPLE:
            rows = functional.pad(rows, (0, 0, 0, -count % ROW_MULTIPLE))
            return _packed_linear(rows, self._packed, self._bias)[:count]
        return _packed_linear(rows, self._packed, self._bias)


def _packed_linear(rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, packed, bias, "none", [], "")
    return output


def can_pack(weight: Tensor) -> bool:
    """oneDNN packs on a CPU only; 16-bit floats need instructions that not every CPU has."""
    operators = torch.ops.mkldnn
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if not (hasattr(operators, "_linear_pointwise") and hasattr(operators, "_reorder_linear_weight")):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(operators._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return packed
