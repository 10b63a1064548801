"""A cost table of Llama-3.1-8B under vLLM on an RTX 4090, from published times of its ops alone: dense ops by tokens,
lm_head and sampler by sequences, attention by chunk, rows and contexts.

Nothing of it comes from a served run. Host time is not in the tables and stands as zero: vLLM of that version schedules
the next step while the GPU works. Moves over the link were not measured and take forever.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from engines.core.curves import Cells
from engines.core.profile_table import Measurements
from engines.model.config import load_config
from harness.op_tables import Times, long_times

PREFIX = "rtx4090_llama31_8b"
MACHINE, MODEL, DTYPE = "rtx4090", "llama-3.1-8b", "bfloat16"
BEFORE = ("layernorm", "qkv_proj", "rotary_emb")  # attention
AFTER = ("o_proj", "layernorm", "gate_up_proj", "act_fn", "down_proj")

Mixed = Mapping[tuple[int, int, int, int], float]  # (chunk, its start, decode rows, context of each) -> seconds


def measured_costs(folder: Path) -> Measurements:
    """`folder`: where shared/data is, or HARNESS_DATA."""
    tables = folder / "op_profiles"
    dense = long_times(tables / f"{PREFIX}_dense.csv", "tokens", 1e-6)
    heads = long_times(tables / f"{PREFIX}_per_sequence.csv", "sequences", 1e-6)
    mixed = _attention(tables / f"{PREFIX}_attention.csv")
    prefill = {(chunk, start): seconds for (chunk, start, rows, _), seconds in mixed.items() if not rows}
    return Measurements(
        first=_sum(dense, ("embedding", *BEFORE)),
        between=_sum(dense, (*AFTER, *BEFORE)),
        last=_sum(dense, (*AFTER, "final_layernorm")),
        head=_sum(heads, ("lm_head", "sampler")),
        decode={(rows, context): seconds for (chunk, _, rows, context), seconds in mixed.items() if not chunk},
        prefill=prefill,
        decode_beside_prompts=_beside(mixed, prefill),
        host={},
        to_host=[(1, math.inf)],
        to_accel=[(1, math.inf)],
        step_overhead_s=0.0,
        token_overhead_s=0.0,
        layers=load_config(MODEL).layers,
    )


def _sum(times: Times, ops: Sequence[str]) -> list[tuple[int, float]]:
    return [(count, sum(times[op][count] for op in ops)) for count in sorted(times[ops[0]])]


def _attention(path: Path) -> dict[tuple[int, int, int, int], float]:
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (
                int(row["prefill_chunk"]),
                int(row["kv_prefill"]),
                int(row["n_decode"]),
                int(row["kv_decode"]),
            ): float(row["time_us"]) * 1e-6
            for row in csv.DictReader(file)
        }


def _beside(mixed: Mixed, prefill: Cells) -> Cells:
    """What decode rows add to a chunk, in the median over all chunks: up to twice what they take alone, because the
    kernel for prompts spends a whole tile on each of them. That it does not depend on the chunk is true to some 10 %.
    """
    added: dict[tuple[int, int], list[float]] = {}
    for (chunk, start, rows, context), seconds in mixed.items():
        if chunk and rows:
            added.setdefault((rows, context), []).append(seconds - prefill[chunk, start])
    return {cell: median(values) for cell, values in added.items()}
