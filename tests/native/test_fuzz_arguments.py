"""Whatever is passed in, a call raises TypeError or ValueError and writes nothing, or it computes what it should.

A crash ends the test run, and `make sanitize` runs this file with the sanitizers, which see what does not crash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.apex import attention
from tests.native import reference

Arguments = dict[str, Any]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
WRONG_DTYPES = st.sampled_from([torch.float64, torch.int64, torch.int8, torch.bool, torch.complex64, torch.int32])
ODD_OBJECTS = st.sampled_from([None, 3, 2.5, "tensor", b"bytes", [1, 2], {}, object()])
ODD_IDS = st.sampled_from([-1, -(2**31), 2**31 - 1, 10_000, 7])
ODD_SCALES = st.sampled_from([float("nan"), float("inf"), -float("inf"), "1", None])
# The same examples every time: `--hypothesis-seed` looks for others.
thoroughly = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def decode_calls(draw: st.DrawFn) -> Arguments:
    """Arguments that are right."""
    group = draw(st.integers(1, 5))
    kv_heads = draw(st.integers(1, 3))
    contexts = draw(st.lists(st.integers(1, 70), min_size=0, max_size=3))
    batch = reference.random_batch(
        contexts or [1],
        q_heads=group * kv_heads,
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([1, 8, 17, 64, 80])),
        page_tokens=draw(st.sampled_from([1, 7, 16, 32])),
        dtype=draw(DTYPES),
        seed=draw(st.integers(0, 5)),
    )
    rows = len(contexts)
    return {
        "query": batch.query[:rows],
        "key_pages": batch.key_pages,
        "value_pages": batch.value_pages,
        "page_table": batch.page_table[:rows],
        "context_lens": batch.context_lens[:rows],
        "out": torch.full(batch.query[:rows].shape, 0.5),
        "scale": batch.scale,
        "lse": torch.full(batch.query.shape[:2], 0.5)[:rows],
    }


def spoil(draw: st.DrawFn, arguments: Arguments) -> None:
    """One change, which may make the call wrong or only unusual."""
    name = draw(st.sampled_from([*arguments]))
    value = arguments[name]
    if name == "scale":
        arguments[name] = draw(ODD_SCALES)
    elif isinstance(value, torch.Tensor) and value.dim() > 0 and not value.is_meta:
        arguments[name] = draw(st.sampled_from(CHANGES))(draw, value)


def cast(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    wrong = draw(st.booleans())
    return tensor.new_zeros(tensor.shape, dtype=draw(WRONG_DTYPES)) if wrong else tensor.to(draw(DTYPES))


def transpose(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    """The same shape with other strides where the dimensions are equal, another shape where not."""
    if tensor.dim() < 2:
        return tensor
    first, second = draw(st.permutations(range(tensor.dim())))[:2]
    return tensor.transpose(first, second)


def restride(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers with gaps between them, along one dimension or all."""
    dimension = draw(st.integers(0, tensor.dim() - 1))
    wide = torch.zeros([size * (2 if at == dimension else 1) for at, size in enumerate(tensor.shape)]).to(tensor.dtype)
    view = wide[tuple(slice(None, None, 2) if at == dimension else slice(None) for at in range(tensor.dim()))]
    return view.copy_(tensor)


def repeat_in_place(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    """A dimension of stride zero."""
    dimension = draw(st.integers(0, tensor.dim() - 1))
    return tensor.narrow(dimension, 0, min(1, tensor.shape[dimension])).expand(tensor.shape)


def resize(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    dimension = draw(st.integers(0, tensor.dim() - 1))
    sizes = list(tensor.shape)
    sizes[dimension] = draw(st.sampled_from([0, 1, sizes[dimension] + 1, 2 * sizes[dimension]]))
    return torch.zeros(sizes).to(tensor.dtype)


def reshape(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    return draw(st.sampled_from([tensor.flatten(), tensor.unsqueeze(0), tensor[None, None, None], tensor.sum()]))


def poke(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    """One element out of range, or no number."""
    changed = tensor.clone()
    if changed.numel():
        at = draw(st.integers(0, changed.numel() - 1))
        if tensor.dtype == torch.int32:
            changed.flatten()[at] = draw(ODD_IDS)
        elif tensor.is_floating_point():
            changed.flatten()[at] = float("nan")
    return changed


def no_memory(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


def no_tensor(draw: st.DrawFn, tensor: torch.Tensor) -> Any:
    return draw(ODD_OBJECTS)


CHANGES: list[Callable[[st.DrawFn, torch.Tensor], Any]] = [
    cast,
    transpose,
    restride,
    repeat_in_place,
    resize,
    reshape,
    poke,
    no_memory,
    no_tensor,
]


@st.composite
def spoilt_calls(draw: st.DrawFn) -> Arguments:
    arguments = draw(decode_calls())
    for _ in range(draw(st.integers(1, 3))):
        spoil(draw, arguments)
    return arguments


@pytest.fixture(scope="module")
def pool() -> Any:
    with attention.Pool(2) as pool:
        yield pool


@thoroughly
@given(arguments=decode_calls(), isa=st.sampled_from(attention.available_isas()))
def test_right_calls_give_right_answers(arguments: Arguments, isa: str) -> None:
    with reference.isa(isa):
        attention.decode_attention(**arguments)
    assert_right(arguments)


@thoroughly
@given(arguments=spoilt_calls(), pooled=st.booleans())
def test_spoilt_calls_raise_or_are_right(pool: attention.Pool, arguments: Arguments, pooled: bool) -> None:
    before = {name: _copy(arguments[name]) for name in ("out", "lse")}
    try:
        attention.decode_attention(**arguments, pool=pool if pooled else None)
    except (TypeError, ValueError):
        for name, kept in before.items():
            assert _same(arguments[name], kept), f"{name} was written by a call that raised"
        return
    assert_right(arguments)


def assert_right(arguments: Arguments) -> None:
    """Against float64, but for rows that met a NaN and for outputs that lie over themselves."""
    query, out = arguments["query"], arguments["out"]
    if query.shape[0] == 0 or 0 in out.stride():
        return
    tensors = [arguments[name] for name in ("query", "key_pages", "value_pages", "page_table", "context_lens")]
    batch = reference.Batch(*tensors)
    rescaled = query.double() * (arguments["scale"] / batch.scale)
    expected, sums = reference.attend(reference.Batch(rescaled, *tensors[1:]))
    clean = ~expected.isnan().flatten(1).any(1)
    bound = TOLERANCE[out.dtype]
    difference = (out.double() - expected).abs()[clean]
    assert difference.numel() == 0 or float(difference.max()) <= bound * max(1.0, float(expected[clean].abs().max()))
    if isinstance(arguments["lse"], torch.Tensor) and 0 not in arguments["lse"].stride():
        gap = (arguments["lse"].double() - sums).abs()[clean]
        assert gap.numel() == 0 or float(gap.max()) <= 1e-4 * max(1.0, float(sums[clean].abs().max()))


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _same(value: Any, kept: Any) -> bool:
    if not isinstance(value, torch.Tensor):
        return value is kept
    return value.is_meta or torch.equal(value.nan_to_num(7.0), kept.nan_to_num(7.0))


@st.composite
def copies(draw: st.DrawFn) -> Arguments:
    """Copying between stores, right or wrong: positions and tables are drawn from beyond what there is."""
    source = torch.randn(draw(st.integers(1, 4)), 2, draw(st.sampled_from([1, 4, 16])), 8).to(draw(DTYPES))
    target = torch.zeros(draw(st.integers(1, 4)), 2, draw(st.sampled_from([1, 4, 16])), 8).to(draw(DTYPES))
    ids = st.lists(st.integers(-1, 4), min_size=0, max_size=4)
    return {
        "src_pages": source,
        "src_table": torch.tensor(draw(ids), dtype=torch.int32),
        "dst_pages": target,
        "dst_table": torch.tensor(draw(ids), dtype=torch.int32),
        "tokens": draw(st.integers(-1, 40)),
        "src_start": draw(st.integers(-1, 20)),
        "dst_start": draw(st.integers(-1, 20)),
    }


@thoroughly
@given(arguments=copies())
def test_copies_raise_or_arrive(arguments: Arguments) -> None:
    target = arguments["dst_pages"]
    before = target.clone()
    try:
        attention.copy_tokens(**arguments)
    except ValueError:
        assert torch.equal(target, before)
        return
    count = arguments["tokens"]
    begin, first = arguments["src_start"], arguments["dst_start"]
    # What lies beyond the last token is never looked at, and may name pages that do not exist.
    read = arguments["src_table"][: -(-(begin + count) // arguments["src_pages"].shape[2])]
    written = arguments["dst_table"][: -(-(first + count) // target.shape[2])]
    if len(set(written.tolist())) < len(written) or count == 0:
        return  # a page named twice is written twice
    sent = reference.tokens_of(arguments["src_pages"], read, begin + count)[:, begin:]
    arrived = reference.tokens_of(target, written, first + count)[:, first:]
    assert torch.equal(arrived, sent.to(target.dtype))


@st.composite
def spoilt_appends(draw: st.DrawFn) -> Arguments:
    arguments: Arguments = {
        "key": torch.randn(3, 2, 8),
        "value": torch.randn(3, 2, 8),
        "key_pages": torch.zeros(4, 2, 4, 8),
        "value_pages": torch.zeros(4, 2, 4, 8),
        "page_ids": torch.tensor([0, 1, 3], dtype=torch.int32),
        "offsets": torch.tensor([3, 0, 2], dtype=torch.int32),
    }
    for _ in range(draw(st.integers(0, 2))):
        spoil(draw, arguments)
    return arguments


@thoroughly
@given(arguments=spoilt_appends())
def test_appends_raise_or_are_there(arguments: Arguments) -> None:
    before = {name: _copy(arguments[name]) for name in ("key_pages", "value_pages")}
    try:
        attention.append_kv(**arguments)
    except (TypeError, ValueError):
        for name, kept in before.items():
            assert _same(arguments[name], kept), f"{name} was written by a call that raised"
        return
    pages, key = arguments["key_pages"], arguments["key"]
    if 0 in pages.stride() or len(set(arguments["page_ids"].tolist())) < len(arguments["page_ids"]):
        return
    found = pages[arguments["page_ids"].long(), :, arguments["offsets"].long()]
    assert torch.equal(found.nan_to_num(7.0), key.to(pages.dtype).nan_to_num(7.0))
