"""A crossover map as rows on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.catalogue import Listing

COLUMNS = ("CPU GB/s", "KV tokens", "output", "winner, simulated", "over gpu_only", "band", "decided", "remarks")


def map_listing(found: Mapping[str, Any]) -> Listing:
    return Listing(COLUMNS, [_row(cell) for cell in found["cells"]])


def _row(cell: Mapping[str, Any]) -> tuple[str, ...]:
    gain = cell["gain"]
    shown = ("-", "-") if gain is None else (f"{gain['value']:.2f}", f"{gain['low']:.2f} - {gain['high']:.2f}")
    decided = "yes" if cell["decided"] else f"no, or {' or '.join(cell['rivals'])}" if cell["rivals"] else "-"
    where = (f"{cell['cpu_bandwidth_bytes_per_s'] / 1e9:,.1f}", f"{cell['kv_tokens']:,}", f"{cell['output_tokens']:,}")
    return (*where, cell["winner"] or "-", *shown, decided, _remarks(cell))


def _remarks(cell: Mapping[str, Any]) -> str:
    cut = f"{cell['requests_cut']} requests cut to the KV budget" if cell["requests_cut"] else ""
    beyond = "more KV than the accelerator holds" if cell["beyond_memory"] else ""
    problems = [f"{each['engine']}: {each['problem']}" for each in cell["standings"] if each["problem"]]
    return "; ".join(remark for remark in (cut, beyond, *dict.fromkeys(problems)) if remark)
