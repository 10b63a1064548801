"""The sizes of a decoder-only transformer, and what they imply in parameters and bytes. No files, and no torch.

Two families: Llama (no biases, SwiGLU, RMS norms, rotary positions) and OPT (biases everywhere, ReLU, layer norms, a
learned table of positions).
"""

from dataclasses import dataclass
from typing import Literal

from engines.model.errors import ModelError

Family = Literal["llama", "opt"]

POSITION_OFFSET = 2  # OPT's table begins with rows that no position reads: its padding once had them
OPT_NORM_EPS = 1e-5  # fixed in the model: no config.json says it
_SIZES = ("vocab_size", "hidden_size", "ffn_size", "layers", "query_heads", "kv_heads", "head_dim", "max_positions")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Llama 3's stretching of the slow rotary frequencies to longer contexts than it was pre-trained on."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model of either family; `rope_theta` is None where positions are learned."""

    name: str
    vocab_size: int
    hidden_size: int
    ffn_size: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float | None
    rope_scaling: RopeScaling | None
    norm_eps: float
    tied_head: bool
    bos_id: int | None
    eos_ids: tuple[int, ...]
    family: Family = "llama"

    def __post_init__(self) -> None:
        for name in _SIZES:
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise ModelError(f"model {self.name}: {name} must be a positive whole number, not {size!r}")
        if self.query_heads % self.kv_heads:
            raise ModelError(
                f"model {self.name}: {self.query_heads} query heads cannot share {self.kv_heads} KV heads evenly"
            )
        if self.family == "opt":
            self._check_opt()
        elif self.rope_theta is None or self.head_dim % 2:
            raise ModelError(
                f"model {self.name}: rotary positions need a rope_theta and an even head_dim, not {self.head_dim}"
            )

    def _check_opt(self) -> None:
        if self.query_size != self.hidden_size or self.kv_heads != self.query_heads:
            raise ModelError(
                f"model {self.name}: OPT divides its hidden_size of {self.hidden_size} evenly among its heads, "
                f"not into {self.query_heads} of {self.head_dim} with {self.kv_heads} for KV"
            )
        if (self.rope_theta, self.rope_scaling, self.norm_eps) != (None, None, OPT_NORM_EPS):
            raise ModelError(f"model {self.name}: OPT has no rotary positions, and a norm_eps of {OPT_NORM_EPS}")

    @property
    def query_size(self) -> int:
        """Width of all query heads side by side, also of the attention output."""
        return self.query_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads side by side; the values have the same."""
        return self.kv_heads * self.head_dim

    @property
    def qkv_size(self) -> int:
        """Rows of the matrix that makes queries, keys and values."""
        return self.query_size + 2 * self.kv_size

    @property
    def ffn_matrices(self) -> int:
        """Of hidden_size by ffn_size each: gate, up and down; or up and down."""
        return 3 if self.family == "llama" else 2

    @property
    def up_size(self) -> int:
        """Rows of the matrix that reads the FFN's input: gate and up in one, or up alone."""
        return (self.ffn_matrices - 1) * self.ffn_size

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of a layer's matrices in the order in which rows meet them: qkv, output, up, down."""
        hidden = self.hidden_size
        return (hidden, self.qkv_size), (self.query_size, hidden), (hidden, self.up_size), (self.ffn_size, hidden)

    @property
    def has_biases(self) -> bool:
        """Of all matrices of the layers, and of all norms."""
        return self.family == "opt"

    @property
    def position_rows(self) -> int:
        """Of the learned table of positions; 0 where there is none."""
        return self.max_positions + POSITION_OFFSET if self.family == "opt" else 0

    @property
    def linear_parameters_per_layer(self) -> int:
        """Elements of the matrices one layer streams, without biases."""
        return sum(inputs * outputs for inputs, outputs in self.matrices)

    @property
    def parameters(self) -> int:
        vocabulary = self.vocab_size * self.hidden_size * (1 if self.tied_head else 2)
        positions = self.position_rows * self.hidden_size
        norms = self.hidden_size * (2 * self.layers + 1) * (2 if self.has_biases else 1)
        biases = sum(outputs for _, outputs in self.matrices) if self.has_biases else 0
        return vocabulary + positions + norms + self.layers * (self.linear_parameters_per_layer + biases)

    def weight_bytes(self, dtype_bytes: int) -> int:
        return self.parameters * dtype_bytes

    def kv_bytes_per_token_per_layer(self, dtype_bytes: int) -> int:
        return 2 * self.kv_size * dtype_bytes
