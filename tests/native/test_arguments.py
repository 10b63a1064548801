"""Mistakes raise, and the message names the argument; none reaches a kernel."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engines.apex import attention


def arguments() -> dict[str, Any]:
    return {
        "query": torch.zeros(2, 4, 64),
        "key_pages": torch.zeros(6, 2, 16, 64),
        "value_pages": torch.zeros(6, 2, 16, 64),
        "page_table": torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int32),
        "context_lens": torch.tensor([48, 1], dtype=torch.int32),
        "out": torch.zeros(2, 4, 64),
        "scale": 0.125,
        "lse": torch.zeros(2, 4),
    }


WRONG_VALUES: dict[str, tuple[str, Callable[[], object]]] = {
    "query without heads": ("query", lambda: torch.zeros(2, 64)),
    "query with another head_dim": ("query", lambda: torch.zeros(2, 4, 32)),
    "query heads no multiple": ("query", lambda: torch.zeros(2, 3, 64)),
    "query not contiguous": ("query", lambda: torch.zeros(2, 64, 4).transpose(1, 2)),
    "query on no device": ("query", lambda: torch.zeros(2, 4, 64, device="meta")),
    "keys of rank 3": ("key_pages", lambda: torch.zeros(6, 16, 64)),
    "keys in token-major order": ("key_pages", lambda: torch.zeros(6, 16, 2, 64).transpose(1, 2)),
    "keys with fewer pages": ("key_pages", lambda: torch.zeros(5, 2, 16, 64)),
    "keys without heads": ("key_pages", lambda: torch.zeros(6, 0, 16, 64)),
    "values with other heads": ("value_pages", lambda: torch.zeros(6, 4, 16, 64)),
    "values with other pages": ("value_pages", lambda: torch.zeros(6, 2, 32, 64)),
    "values on no device": ("value_pages", lambda: torch.zeros(6, 2, 16, 64, device="meta")),
    "table of one row": ("page_table", lambda: torch.zeros(1, 3, dtype=torch.int32)),
    "table of rank 1": ("page_table", lambda: torch.zeros(6, dtype=torch.int32)),
    "table not contiguous": ("page_table", lambda: torch.zeros(3, 2, dtype=torch.int32).T),
    "page id too large": ("page_table", lambda: torch.tensor([[0, 6, 2], [3, 4, 5]], dtype=torch.int32)),
    "page id negative": ("page_table", lambda: torch.tensor([[0, 1, 2], [-1, 4, 5]], dtype=torch.int32)),
    "context of zero": ("context_lens", lambda: torch.tensor([0, 1], dtype=torch.int32)),
    "context beyond the table": ("context_lens", lambda: torch.tensor([49, 1], dtype=torch.int32)),
    "too few contexts": ("context_lens", lambda: torch.tensor([1], dtype=torch.int32)),
    "output with fewer rows": ("out", lambda: torch.zeros(1, 4, 64)),
    "output not contiguous": ("out", lambda: torch.zeros(2, 4, 128)[:, :, ::2]),
    "lse of another shape": ("lse", lambda: torch.zeros(2, 2)),
    "scale not finite": ("scale", lambda: float("nan")),
}

WRONG_TYPES: dict[str, tuple[str, Callable[[], object]]] = {
    "query in float64": ("query", lambda: torch.zeros(2, 4, 64, dtype=torch.float64)),
    "query in int32": ("query", lambda: torch.zeros(2, 4, 64, dtype=torch.int32)),
    "query a list": ("query", lambda: [[0.0]]),
    "query missing": ("query", lambda: None),
    "keys and values differ": ("value_pages", lambda: torch.zeros(6, 2, 16, 64, dtype=torch.float16)),
    "keys in int8": ("key_pages", lambda: torch.zeros(6, 2, 16, 64, dtype=torch.int8)),
    "table in int64": ("page_table", lambda: torch.zeros(2, 3, dtype=torch.int64)),
    "contexts in float32": ("context_lens", lambda: torch.ones(2)),
    "output in float64": ("out", lambda: torch.zeros(2, 4, 64, dtype=torch.float64)),
    "lse in float16": ("lse", lambda: torch.zeros(2, 4, dtype=torch.float16)),
    "scale a string": ("scale", lambda: "0.125"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_wrong_values(case: str) -> None:
    name, make = WRONG_VALUES[case]
    with pytest.raises(ValueError, match=name):
        attention.decode_attention(**(arguments() | {name: make()}))


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_types(case: str) -> None:
    name, make = WRONG_TYPES[case]
    with pytest.raises(TypeError, match=name):
        attention.decode_attention(**(arguments() | {name: make()}))


def test_the_pool_checks_before_it_starts() -> None:
    with attention.Pool(1, spin_us=0) as pool:
        for case in ("page id too large", "context of zero", "query on no device"):
            name, make = WRONG_VALUES[case]
            with pytest.raises(ValueError, match=name):
                attention.submit_decode_attention(pool, **(arguments() | {name: make()}))
        ticket = attention.submit_decode_attention(pool, **arguments())
        assert ticket == 0
        pool.wait(ticket)


def test_a_read_only_output_is_refused() -> None:
    out = torch.zeros(2, 4, 64).numpy()
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: is written to"):
        attention.decode_attention(**(arguments() | {"out": out}))


def append_arguments() -> dict[str, Any]:
    return {
        "key": torch.zeros(2, 2, 64),
        "value": torch.zeros(2, 2, 64),
        "key_pages": torch.zeros(6, 2, 16, 64),
        "value_pages": torch.zeros(6, 2, 16, 64),
        "page_ids": torch.tensor([0, 5], dtype=torch.int32),
        "offsets": torch.tensor([0, 15], dtype=torch.int32),
    }


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("key", torch.zeros(2, 4, 64), ValueError),
        ("value", torch.zeros(1, 2, 64), ValueError),
        ("value_pages", torch.zeros(6, 2, 8, 64), ValueError),
        ("page_ids", torch.tensor([0, 6], dtype=torch.int32), ValueError),
        ("page_ids", torch.tensor([0], dtype=torch.int32), ValueError),
        ("page_ids", torch.tensor([0, 1]), TypeError),
        ("offsets", torch.tensor([0, 16], dtype=torch.int32), ValueError),
        ("offsets", torch.tensor([-1, 0], dtype=torch.int32), ValueError),
    ],
)
def test_append_checks(name: str, value: torch.Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        attention.append_kv(**(append_arguments() | {name: value}))


def copy_arguments() -> dict[str, Any]:
    return {
        "src_pages": torch.zeros(4, 2, 16, 64),
        "src_table": torch.tensor([0, 3], dtype=torch.int32),
        "dst_pages": torch.zeros(2, 2, 64, 64),
        "dst_table": torch.tensor([1], dtype=torch.int32),
        "tokens": 32,
    }


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("tokens", 33, ValueError),
        ("tokens", -1, ValueError),
        ("tokens", 2**62, ValueError),
        ("src_start", 1, ValueError),
        ("dst_start", 33, ValueError),
        ("dst_start", -1, ValueError),
        ("src_table", torch.tensor([0, 4], dtype=torch.int32), ValueError),
        ("dst_table", torch.tensor([2], dtype=torch.int32), ValueError),
        ("dst_table", None, ValueError),
        ("src_pages", torch.zeros(2, 32, 64), ValueError),
        ("dst_pages", torch.zeros(2, 1, 64, 64), ValueError),
        ("dst_pages", torch.zeros(2, 2, 64, 32), ValueError),
        ("src_pages", torch.zeros(4, 2, 16, 64, dtype=torch.int32), TypeError),
        ("src_pages", torch.zeros(64), ValueError),
    ],
)
def test_copy_checks(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        attention.copy_tokens(**(copy_arguments() | {name: value}))


def test_merge_checks() -> None:
    rows, sums = torch.zeros(2, 4, 64), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="out_b and out_a differ in rows"):
        attention.merge_partials(rows, sums, torch.zeros(1, 4, 64), sums[:1], rows)
    with pytest.raises(ValueError, match="lse_b"):
        attention.merge_partials(rows, sums, rows, torch.zeros(2, 3), rows)
    with pytest.raises(TypeError, match="out and out_a differ in dtype"):
        attention.merge_partials(rows, sums, rows, sums, rows.half())


def test_unknown_instruction_sets_and_modes() -> None:
    with pytest.raises(ValueError, match=r"this machine runs .*scalar, not 'mmx'"):
        attention.set_isa("mmx")
    with pytest.raises(ValueError, match="auto, always or never"):
        attention.set_prefetch("often")
    assert attention.get_isa() == attention.available_isas()[0]
    assert attention.available_isas()[-1] == "scalar"
