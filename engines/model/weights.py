"""The tensors of a model: read from safetensors, drawn from a seed, or written as a Hugging Face folder.

Matrices that read the same input are stored as one: q, k and v as `qkv`, gate and up as `gate_up`. One table, `layout`,
says how stored tensors are made of Hugging Face's; reading, drawing, checking and writing all follow it.
Not here: pickle (a weight file must not be able to run code), and quantised formats.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engines.model.config import ModelConfig, to_hugging_face
from engines.model.errors import ModelError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
NORM_NOISE = 0.05


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of ours: its shape, and the Hugging Face tensors it stacks with the rows of each."""

    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...]

    def part_shape(self, rows: int) -> tuple[int, ...]:
        return (rows, *self.shape[1:])


class Weights:
    """Named tensors that a model takes over one by one, so that a packed matrix and its origin never both stay."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ModelError(f"weights hold no {name!r}: a model took them over; load or draw them again")
        return self._tensors[name]

    def take(self, name: str) -> Tensor:
        """Hand the tensor over; afterwards it is the caller's alone."""
        tensor = self[name]
        del self._tensors[name]
        return tensor


def layout(config: ModelConfig) -> dict[str, Stored]:
    """Every tensor of the model by our name, in the order of the forward pass."""
    hidden, vocab = config.hidden_size, config.vocab_size
    stored = {"embedding": Stored((vocab, hidden), (("model.embed_tokens.weight", vocab),))}
    for layer in range(config.layers):
        stored |= _layer_layout(config, layer)
    stored["final_norm"] = Stored((hidden,), (("model.norm.weight", hidden),))
    if not config.tied_head:
        stored["head"] = Stored((vocab, hidden), (("lm_head.weight", vocab),))
    return stored


def _layer_layout(config: ModelConfig, layer: int) -> dict[str, Stored]:
    ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
    hidden, ffn, query, kv = config.hidden_size, config.ffn_size, config.query_size, config.kv_size

    def norm(part: str) -> Stored:
        return Stored((hidden,), ((f"{theirs}.{part}.weight", hidden),))

    def stack(owner: str, width: int, **rows: int) -> Stored:
        parts = tuple((f"{theirs}.{owner}.{part}_proj.weight", count) for part, count in rows.items())
        return Stored((sum(rows.values()), width), parts)

    return {
        f"{ours}.attention_norm": norm("input_layernorm"),
        f"{ours}.qkv": stack("self_attn", hidden, q=query, k=kv, v=kv),
        f"{ours}.output": stack("self_attn", query, o=hidden),
        f"{ours}.ffn_norm": norm("post_attention_layernorm"),
        f"{ours}.gate_up": stack("mlp", hidden, gate=ffn, up=ffn),
        f"{ours}.down": stack("mlp", ffn, down=hidden),
    }


def random_weights(
    config: ModelConfig,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    std: float = 0.05,
) -> Weights:
    """Seeded normal weights. Every tensor has a generator of its own, seeded by its name: their order does not matter.

    The values are drawn in float32 and then rounded, so one seed is one model in every dtype; a CUDA device draws
    other values than a CPU does.
    """
    device = torch.device(device)
    tensors = {}
    for name, stored in layout(config).items():
        generator = torch.Generator(device).manual_seed(_tensor_seed(seed, name))
        values = torch.randn(stored.shape, generator=generator, dtype=torch.float32, device=device)
        values = values.mul_(NORM_NOISE).add_(1.0) if name.endswith("norm") else values.mul_(std)
        tensors[name] = values.to(dtype)
    return Weights(tensors)


def _tensor_seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch takes a signed 64-bit seed


def load_weights(
    folder: str | Path,
    config: ModelConfig,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Weights:
    """Read a Hugging Face folder, one safetensors file or several with an index."""
    folder = Path(folder)
    files = _tensor_files(folder)
    device = torch.device(device)
    with ExitStack() as stack:
        readers = {file: stack.enter_context(_open(file)) for file in sorted(set(files.values()))}
        source = {name: readers[file] for name, file in files.items()}
        return Weights({name: _read(stored, source, folder, dtype, device) for name, stored in layout(config).items()})


def check_folder(folder: str | Path, config: ModelConfig) -> None:
    """ModelError if `load_weights` would fail, from the files' headers alone: no tensor is read."""
    folder = Path(folder)
    files = _tensor_files(folder)
    with ExitStack() as stack:
        readers = {file: stack.enter_context(_open(file)) for file in sorted(set(files.values()))}
        source = {name: readers[file] for name, file in files.items()}
        for stored in layout(config).values():
            for name, rows in stored.parts:
                _check_part(name, stored.part_shape(rows), source, folder)


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor."""
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}")
    if (folder / INDEX_FILE).is_file():
        return _indexed_files(folder)
    if (folder / SINGLE_FILE).is_file():
        with _open(folder / SINGLE_FILE) as reader:
            return dict.fromkeys(reader.keys(), folder / SINGLE_FILE)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise ModelError(f"{folder} holds pickled weights only: convert them to safetensors, nothing else is read")
    raise ModelError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}")


def _indexed_files(folder: Path) -> dict[str, Path]:
    try:
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        files = {str(name): folder / Path(file).name for name, file in index["weight_map"].items()}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / INDEX_FILE} is no safetensors index: {error!r}") from error
    for file in sorted(set(files.values())):
        if not file.is_file():
            raise ModelError(f"{file} is missing, although {INDEX_FILE} names it: download the folder again")
    return files


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read as safetensors ({error}): download it again") from error


def _read(stored: Stored, source: Mapping[str, Any], folder: Path, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Stack the parts straight into their final place, so that reading needs one part more than the model itself."""
    tensor = torch.empty(stored.shape, dtype=dtype, device=device)
    start = 0
    for name, rows in stored.parts:
        _check_part(name, stored.part_shape(rows), source, folder)
        tensor[start : start + rows].copy_(source[name].get_tensor(name))
        start += rows
    return tensor


def _check_part(name: str, expected: tuple[int, ...], source: Mapping[str, Any], folder: Path) -> None:
    if name not in source:
        raise ModelError(f"{folder}: tensor {name} is missing, although config.json asks for it")
    shape = tuple(source[name].get_slice(name).get_shape())
    if shape != expected:
        raise ModelError(f"{folder}: tensor {name} has shape {list(shape)}, config.json asks for {list(expected)}")


def save_folder(folder: str | Path, config: ModelConfig, weights: Weights) -> None:
    """Write config.json and model.safetensors so that transformers can load the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, stored in layout(config).items():
        rows = weights[name].split_with_sizes([rows for _, rows in stored.parts])
        tensors |= {part: tensor.contiguous() for (part, _), tensor in zip(stored.parts, rows, strict=True)}
    save_file(tensors, folder / SINGLE_FILE, metadata={"format": "pt"})
    dtype = str(weights["embedding"].dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(to_hugging_face(config, dtype), indent=2), encoding="utf-8")
