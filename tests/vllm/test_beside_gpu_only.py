"""Whether `gpu_only` is an honest stand-in: the real vLLM on the same weights, blocks, caps and cores decides alike.

No times are compared here: `harness bench vllm` does that. What a scheduler decides does not depend on the machine.
"""

from __future__ import annotations

import pandas as pd
import pytest

from results.query import Run
from results.schema import CellSummary, Status
from results.store import read_steps

pytestmark = pytest.mark.vllm
WORKLOADS = ("batch_limited", "kv_starved")
DECIDED = ("decode_rows", "prefill_rows", "prefill_tokens", "preempted", "running", "waiting", "accel_blocks_used")


def pair(run: Run, workload: str) -> tuple[CellSummary, CellSummary]:
    cells = {cell.engine: cell for cell in run.cells if cell.workload == workload}
    return cells["gpu_only"], cells["vllm"]


def steps_of(run: Run, cell: CellSummary) -> pd.DataFrame:
    return read_steps(run.folder.cell_path(cell.cell_id))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_both_give_the_tokens_of_transformers(beside: Run, workload: str) -> None:
    for cell in pair(beside, workload):
        assert cell.status is Status.OK, cell.error
        assert cell.parity is not None
        assert cell.parity.held, cell.parity.note


@pytest.mark.parametrize("workload", WORKLOADS)
def test_vllm_took_exactly_the_envelope(beside: Run, workload: str) -> None:
    ours, theirs = pair(beside, workload)
    assert not theirs.unfair
    for name in ("accel_kv_blocks", "accel_page_tokens", "accel_kv_tokens", "accel_kv_bytes", "max_batch"):
        assert theirs.resolved[name] == ours.resolved[name], name
    assert theirs.resolved["max_batch_tokens"] == ours.resolved["max_batch_tokens"]
    assert theirs.resolved["dtype"] == "float32"
    assert theirs.resolved["prefix_caching"] is False
    assert "CPU_ATTN" in str(theirs.resolved["attention"])
    assert not any("does not report" in note for note in theirs.notes)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_both_take_the_same_steps(beside: Run, workload: str) -> None:
    """All requests come at once, so no decision depends on how fast either is: batch by batch they must agree."""
    ours, theirs = (steps_of(beside, cell) for cell in pair(beside, workload))
    same_steps(ours, theirs)


def same_steps(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    assert len(ours) == len(theirs)
    for column in DECIDED:
        assert list(ours[column]) == list(theirs[column]), column


def test_starvation_preempts_both_alike(beside: Run) -> None:
    ours, theirs = pair(beside, "kv_starved")
    assert ours.metrics["preemptions"] == theirs.metrics["preemptions"] >= 5
    assert theirs.metrics["preempted_s_max"] > 0


def test_with_prefix_caching_both_find_the_same_again(both_keep: Run) -> None:
    """Prompts that have no page in common: what is found is what a preempted request had, and the rest is prefilled."""
    cells = pair(both_keep, "kv_starved")
    for cell in cells:
        assert cell.status is Status.OK, cell.error
        assert cell.parity is not None
        assert cell.parity.held, cell.parity.note
    ours, theirs = cells
    assert theirs.resolved["prefix_caching"] is True
    assert ours.metrics["preemptions"] == theirs.metrics["preemptions"] >= 5
    assert ours.metrics["found_tokens"] >= 2 * 32
    same_steps(steps_of(both_keep, ours), steps_of(both_keep, theirs))
