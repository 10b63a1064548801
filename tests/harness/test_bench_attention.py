"""`harness bench attention`: what it runs, what it pairs, and what it prints."""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from engines.apex import attention
from harness import bench_attention, bench_attention_rivals
from harness.bench_attention import FEW, Row, Setting, measured, settings
from harness.bench_attention_dispatch import dispatch_lines, measure_dispatch
from harness.bench_attention_memory import Arena, Shape
from harness.bench_attention_rivals import Elsewhere, Installed, Ours, RivalEndedError, sdpa, two_products
from harness.environment import allowed_cores

SMALL = Shape(query_heads=4, kv_heads=2, head_dim=64, batch=2, context=512)
LITTLE = 2**20


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bench_attention, bench_attention_rivals):
        monkeypatch.setattr(module, "COLD_BYTES", LITTLE)
    monkeypatch.setattr(bench_attention_rivals, "RIVAL_BYTES", LITTLE)


def small(dtype: torch.dtype, rivals: bool = True) -> Setting:
    return Setting(dtype, attention.available_isas()[0], 1, SMALL, rivals)


def rows(*wanted: Setting, beside: bool = False) -> list[Row]:
    return list(measured(allowed_cores()[:1], wanted, rounds=2, beside=beside))


def test_the_shapes_of_the_published_table_are_all_there() -> None:
    found = settings(2, ["avx2", "scalar"])
    for dtype in (torch.float16, torch.bfloat16):
        shapes = {each.shape for each in found if each.dtype == dtype and each.threads == 2 and each.isa == "avx2"}
        assert {(shape.kv_heads, shape.batch, shape.context) for shape in shapes} == {
            (heads, batch, context) for heads in (32, 8) for batch in (1, 8, 32) for context in (512, 2048, 8192)
        }
    assert {each.shape for each in found if each.isa == "scalar"} == set(FEW)
    assert {each.threads for each in found} == {1, 2}


def test_layers_lie_apart_and_make_the_size() -> None:
    arena = Arena(torch.float16, 4 * LITTLE)
    layers = arena.layers(SMALL, 2 * LITTLE)
    assert sum(keys.nbytes + values.nbytes for keys, values in layers) >= 2 * LITTLE
    starts = sorted(part.data_ptr() for layer in layers for part in layer)
    size = layers[0][0].nbytes
    assert all(later - earlier >= size for earlier, later in pairwise(starts))
    assert float(arena.memory.float().std()) == pytest.approx(1.0, abs=0.05)


def test_torch_s_ways_compute_attention() -> None:
    arena = Arena(torch.bfloat16, LITTLE)
    ((keys, values),) = arena.layers(SMALL, 1)
    whole = (SMALL.batch, SMALL.kv_heads, SMALL.context, SMALL.head_dim)
    query = torch.randn(SMALL.batch, SMALL.query_heads, 1, SMALL.head_dim).bfloat16()
    expected = sdpa(query.double(), keys.view(whole).double(), values.view(whole).double())
    for way in (sdpa, two_products):
        found = way(query, keys.view(whole), values.view(whole))
        torch.testing.assert_close(found.double(), expected, rtol=0.05, atol=0.02)


def test_ours_reads_every_layer_once() -> None:
    arena = Arena(torch.float16, LITTLE)
    contender = Ours(arena, SMALL, allowed_cores()[:1])
    assert contender.run() > 0
    assert contender.bytes == SMALL.layers(torch.float16, LITTLE) * SMALL.bytes(torch.float16)
    contender.close()


def test_rows_pair_everybody_with_the_stream_of_the_round() -> None:
    found = rows(small(torch.float16), small(torch.bfloat16))
    assert [(row.impl, row.dtype) for row in found] == [
        ("ours", "float16"),
        ("ours", "bfloat16"),
        ("torch_sdpa", "bfloat16"),
        ("torch_bmm", "bfloat16"),
    ]
    for row in found:
        assert row.gb_per_s > 0
        assert row.share_low <= row.share_of_stream <= row.share_high
        assert row.stream_pattern in bench_attention.PATTERNS
        assert row.rounds == 2
    assert found[0].ours_is_faster_by == 1.0
    assert attention.get_isa() == attention.available_isas()[0], "left as it was found"
    assert sorted(os.sched_getaffinity(0)) == allowed_cores()


def test_too_large_a_shape_is_left_out_and_said_so(capfd: pytest.CaptureFixture[str]) -> None:
    giant = Setting(torch.float16, attention.available_isas()[0], 1, Shape(32, 32, 128, 4096, 2**20), rivals=False)
    assert rows(giant) == []
    assert "too large" in capfd.readouterr().err


WORKER = """
import json, sys, time
for line in sys.stdin:
    order = json.loads(line)
    if "run" in order:
        time.sleep(0.001)
        {at_run}
        answer = {{"seconds": 0.001}}
    else:
        answer = {{"can": order["dtype"] == "float16"}}
    print(json.dumps(answer), flush=True)
"""


def rival(folder: Path, monkeypatch: pytest.MonkeyPatch, at_run: str = "pass") -> None:
    script = folder / "worker.py"
    script.write_text(WORKER.format(at_run=at_run))
    monkeypatch.setattr(bench_attention, "installed", lambda: [Installed("other", [sys.executable, str(script)])])


def test_a_rival_of_another_environment_takes_its_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rival(tmp_path, monkeypatch)
    found = rows(small(torch.float16), small(torch.bfloat16), beside=True)
    assert [row.dtype for row in found if row.impl == "other"] == ["float16"], "it has no kernel for bfloat16"
    (other,) = [row for row in found if row.impl == "other"]
    expected = SMALL.layers(torch.float16, LITTLE) * SMALL.bytes(torch.float16) / 0.001 / 1e9
    assert other.gb_per_s == pytest.approx(expected)
    assert other.isa == "own"


def test_a_rival_that_dies_is_told_of_and_the_bench_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rival(tmp_path, monkeypatch, at_run="sys.exit(1)")
    found = rows(small(torch.float16), small(torch.float16), beside=True)
    assert [row.impl for row in found] == ["ours", "ours"]
    assert "other: its process ended; going on without it" in capfd.readouterr().err


def test_a_rival_whose_script_is_broken(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("raise SystemExit(3)")
    broken = Elsewhere("broken", [sys.executable, str(script)])
    with pytest.raises(RivalEndedError, match="broken"):
        broken.lay_out(SMALL, torch.float16, [0])
    broken.end()


def test_the_cost_of_a_job_is_told() -> None:
    found = measure_dispatch(allowed_cores(), jobs=50, rounds=1)
    for times in (found.warm, found.asleep):
        assert 0 < times.submit_us[0] <= times.submit_us[1]
    lines = list(dispatch_lines(found))
    assert "submit" in lines[0]
    assert len(lines) == (3 if found.own_core else 2)
    assert sorted(os.sched_getaffinity(0)) == allowed_cores()


def test_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_attention, "settings", lambda threads, isas: [small(torch.bfloat16)])
    monkeypatch.setattr(bench_attention, "installed", list)
    monkeypatch.setattr(bench_attention, "measure_dispatch", lambda cores: measure_dispatch(cores, 50, 1))
    bench_attention.main(as_json=True)
    data = json.loads(capsys.readouterr().out)
    keys = "impl dtype isa threads query_heads kv_heads head_dim batch context gb_per_s stream_gb_per_s share_of_stream"
    assert set(keys.split()) <= data["rows"][0].keys()
    assert {row["impl"] for row in data["rows"]} == {"ours", "torch_sdpa", "torch_bmm"}
    assert data["label"] == "measured on this CPU"
    bench_attention.main(as_json=False)
    printed = capsys.readouterr().out
    assert "share of the read bandwidth" in printed
    assert "torch_sdpa" in printed
