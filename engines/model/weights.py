"""The tensors of a model: read from safetensors, drawn from a seed, or written as a Hugging Face folder.

Which tensors there are is layout.py's.
Not here: pickle (a weight file must not be able to run code), and quantised formats.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engines.model.errors import ModelError
from engines.model.hugging_face import to_hugging_face
from engines.model.layout import Stored, layout
from engines.model.shape import ModelConfig

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
NORM_NOISE = 0.05
BIAS_STD = 0.02


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
        tensors[name] = _spread(values, name, std).to(dtype)
    return Weights(tensors)


def _spread(values: Tensor, name: str, std: float) -> Tensor:
    """Values of spread 1 as a tensor of that name has them, IN PLACE."""
    if name.endswith("norm"):
        return values.mul_(NORM_NOISE).add_(1.0)
    return values.mul_(BIAS_STD if name.endswith("bias") else std)


def _tensor_seed(seed: int, name: str) -> int:
    """`up` by the name that it had first: one seed stays one model."""
    name = f"{name.removesuffix('up')}gate_up" if name.endswith(".up") else name
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
    try:
        shape = tuple(source[name].get_slice(name).get_shape())
    except SafetensorError as error:  # an index that names the wrong file
        raise ModelError(f"{folder}: tensor {name} cannot be read ({error}): download the folder again") from error
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
