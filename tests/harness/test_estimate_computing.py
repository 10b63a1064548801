"""What `harness plan` says of a simulated cell: steps are counted about right; slow policies are known to be slow."""

from dataclasses import replace

import pytest

from engines.registry import make_engine
from harness import estimate_computing
from harness.bench_sim import cell_of, serve_once
from harness.estimate_computing import computing_s, steps_about
from harness.needs import needs, total_time
from workloads import build


@pytest.mark.parametrize("engine", ["gpu_only", "static_partition", "neo", "weight_streaming"])
def test_steps_are_counted_about_right(engine: str) -> None:
    spec = cell_of("t4_llama2", engine, "long_output-100", 12)
    requests = build(spec.workload.options, spec.measure.seed).requests
    about = steps_about(spec, make_engine(spec.engine.kind, spec.engine.options), requests)
    assert 0.4 < about / serve_once(spec).iterations < 2.5


def test_slow_policies_are_known_to_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate_computing, "slowness", lambda: 1.0)
    took = {}
    for engine in ("gpu_only", "weight_streaming", "lp_balanced"):
        spec = replace(cell_of("t4_llama2", engine, "long_output-400", 40), draws=0)
        took[engine] = computing_s(spec, build(spec.workload.options, 0).requests) or 0.0
    assert 0.0 < took["gpu_only"] < took["weight_streaming"] < took["lp_balanced"]


def test_the_plan_says_how_long_it_computes() -> None:
    spec = cell_of("t4_llama2", "gpu_only", "chat", 40)
    assert total_time(needs([spec])).startswith("about ")
    assert "to simulate" in total_time(needs([spec]))
    [paced] = needs([replace(spec, backend="cpu")])
    assert paced.computing_s is None
