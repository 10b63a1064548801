"""What a cell asks of a machine before it runs: requests, tokens, and the memory that nothing can do without.

A lower bound, worked out from sizes alone; whether it fits a budget is build.py's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.plan import CellSpec
from harness.sizes import format_bytes


@dataclass(frozen=True, slots=True)
class CellNeeds:
    cell: CellSpec
    requests: int
    prompt_tokens: int
    output_tokens: int
    last_arrival_s: float
    about_s: float | None  # of serving, on the cell's own clock; None where nothing is modelled
    computing_s: float | None  # by this machine, where time is simulated
    weight_bytes: int
    largest_request_kv_bytes: int

    @property
    def memory(self) -> str:
        return f"{format_bytes(self.weight_bytes)} + {format_bytes(self.largest_request_kv_bytes)}"

    def to_json(self) -> dict[str, Any]:
        return {
            "cell_id": self.cell.cell_id,
            "engine": self.cell.engine.name,
            "workload": self.cell.workload.name,
            "repeat": self.cell.repeat,
            "seed": self.cell.measure.seed,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "last_arrival_s": self.last_arrival_s,
            "about_s": self.about_s,
            "computing_s": self.computing_s,
            "weight_bytes": self.weight_bytes,
            "largest_request_kv_bytes": self.largest_request_kv_bytes,
        }


def needs(cells: Sequence[CellSpec]) -> list[CellNeeds]:
    """In the order of the cells. A workload is drawn once per seed, before any clipping."""
    from engines.model.config import load_config
    from harness.costs import DTYPE_BYTES
    from harness.estimate import serving_s
    from harness.estimate_computing import computing_s
    from harness.packed import weight_bytes
    from workloads import build

    drawn = {}
    found = []
    for cell in cells:
        key = (cell.workload.name, cell.measure.seed)
        if key not in drawn:
            drawn[key] = build(cell.workload.options, cell.measure.seed).requests
        requests = drawn[key]
        shape = load_config(cell.model)
        dtype_bytes = DTYPE_BYTES[cell.dtype]
        kv_bytes_per_token = shape.layers * shape.kv_bytes_per_token_per_layer(dtype_bytes)
        largest_tokens = max(request.prompt_tokens + request.output_tokens for request in requests)
        found.append(
            CellNeeds(
                cell=cell,
                requests=len(requests),
                prompt_tokens=sum(request.prompt_tokens for request in requests),
                output_tokens=sum(request.output_tokens for request in requests),
                last_arrival_s=max(request.arrival_s for request in requests),
                about_s=serving_s(cell, requests),
                computing_s=computing_s(cell, requests),
                weight_bytes=weight_bytes(cell),
                largest_request_kv_bytes=largest_tokens * kv_bytes_per_token,
            )
        )
    return found


def total_time(found: Sequence[CellNeeds]) -> str:
    """What the cells add up to, as a sentence."""
    limit_h = sum(need.cell.measure.time_limit_s for need in found) / 3600
    limit = f"at most {limit_h:.1f} h by measure.time_limit_s"
    known = [need.about_s for need in found if need.about_s is not None]
    if len(known) < len(found):
        return f"nothing is modelled here, so no estimate; {limit}"
    serving = f"{sum(known) / 60:,.0f} min"
    if found[0].cell.backend != "sim":
        return f"about {serving} of serving, plus start-up; {limit}"
    computing_s = sum(need.computing_s or 0.0 for need in found)
    return f"about {minutes(computing_s)} to simulate {serving} of serving; {limit}"


def minutes(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds >= 90 else f"{seconds:,.0f} s"
