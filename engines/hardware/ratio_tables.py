"""Tables of ratios in a machine's YAML: what may be in them, and what is wrong. Their source is read by catalogue.py.

by_tokens: {tokens: [1, 64], ratios: [1.1, 0.9], source: ..., grade: ...}
by_shape: {products: [{inputs: 4096, outputs: 4096, tokens: [1, 64], ratios: [1.1, 0.9]}], source: ..., grade: ...}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from engines.hardware.machine import ByShape, ByTokens, Product

SOURCE_KEYS = frozenset({"source", "grade"})
TABLE_KEYS = frozenset({"tokens", "ratios"})
SHAPE_KEYS = frozenset({"inputs", "outputs"})


def by_tokens(raw: Mapping[str, Any]) -> ByTokens:
    return ByTokens(tuple(map(round, map(number, raw["tokens"]))), tuple(map(number, raw["ratios"])))


def by_shape(raw: Mapping[str, Any]) -> ByShape:
    return ByShape(
        tuple(
            Product(round(number(each["inputs"])), round(number(each["outputs"])), by_tokens(each))
            for each in raw["products"]
        )
    )


def token_problems(raw: object) -> Iterator[str]:
    if not isinstance(raw, dict) or not raw.keys() >= TABLE_KEYS | SOURCE_KEYS:
        yield ": expected {tokens, ratios, source, grade}"
        return
    yield from _unknown(raw, TABLE_KEYS | SOURCE_KEYS)
    yield from _list_problems(raw)


def shape_problems(raw: object) -> Iterator[str]:
    if not isinstance(raw, dict) or not raw.keys() >= {"products"} | SOURCE_KEYS:
        yield ": expected {products, source, grade}"
        return
    yield from _unknown(raw, SOURCE_KEYS | {"products"})
    products = raw["products"]
    if not isinstance(products, list) or not products:
        yield ".products: expected a list of {inputs, outputs, tokens, ratios}"
        return
    for index, product in enumerate(products):
        yield from (f".products[{index}]{problem}" for problem in _product_problems(product))
    shapes = [(each.get("inputs"), each.get("outputs")) for each in products if isinstance(each, dict)]
    yield from (f".products: two of {shape[0]} x {shape[1]}" for shape in shapes if shapes.count(shape) > 1)


def _product_problems(raw: object) -> Iterator[str]:
    if not isinstance(raw, dict) or not raw.keys() >= SHAPE_KEYS | TABLE_KEYS:
        yield ": expected {inputs, outputs, tokens, ratios}"
        return
    yield from _unknown(raw, SHAPE_KEYS | TABLE_KEYS)
    for key in sorted(SHAPE_KEYS):
        if not _is_count(number(raw[key])):
            yield f".{key}: expected a whole number from 1, not {raw[key]!r}"
    yield from _list_problems(raw)


def _list_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    tokens, ratios = raw["tokens"], raw["ratios"]
    if not isinstance(tokens, list) or not isinstance(ratios, list) or not len(tokens) == len(ratios) > 0:
        yield ": tokens and ratios are expected as lists of one length, a ratio for each count"
        return
    counts = [number(count) for count in tokens]
    if not all(map(_is_count, counts)) or any(a >= b for a, b in pairwise(counts)):
        yield f".tokens: expected whole numbers from 1, each above the one before, not {tokens}"
    if not all(number(ratio) > 0 for ratio in ratios):
        yield f".ratios: expected positive numbers, not {ratios}"


def _unknown(raw: Mapping[str, Any], known: frozenset[str]) -> Iterator[str]:
    return (f".{key}: unknown key" for key in raw if key not in known)


def _is_count(value: float) -> bool:
    return value >= 1 and value.is_integer()


def number(raw: object) -> float:
    """YAML 1.1 reads 320e9 as text, so text that is a number counts as one; NaN for anything else."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return math.nan
    try:
        value = float(raw)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
