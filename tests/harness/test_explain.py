"""`harness explain run`: the numbers are the predictor's, the decisions the policies' own."""

from __future__ import annotations

import json

import pytest

from engines.apex.paper import decode_bound
from harness.config import load_experiment
from harness.errors import ConfigError
from harness.explain import Explanation, explain
from harness.plan import expand

from .conftest import Call

PLACING = ["static_layers", "static_kv", "weight_streaming", "lp_balanced"]
ENGINES = [engine.name for engine in load_experiment("t4_llama2").engines]


def explained(**wanted: int | str) -> Explanation:
    cells = expand(load_experiment("t4_llama2", ["backend=sim"]), "sim")
    return explain(cells, **wanted)  # type: ignore[arg-type]


def test_every_scheduler_says_what_it_would_do() -> None:
    found = explained(accel_rows=3, host_rows=64, context=500)
    assert [choice.engine for choice in found.choices] == ENGINES
    assert {"gpu_only", "static_partition", *PLACING, "neo", "apex"} <= {*ENGINES}
    modes = {choice.engine: choice.mode for choice in found.choices}
    assert modes["gpu_only"] == "gpu_only"
    assert modes["static_partition"] == "sequential"
    assert modes["neo"] == "asymmetric"
    for choice in found.choices:
        assert choice.accel_decodes == 3
        assert sum(choice.host_decodes) + choice.waited_for + choice.flying + choice.standing == 64
    assert found.choices[0].standing == 64, "gpu_only has no use for the host"
    for choice in found.choices:
        assert bool(choice.placement) is (choice.engine in PLACING), "what is placed by layer says where"


def test_the_mode_with_most_tokens_is_what_apex_takes() -> None:
    for context in (500, 1500):
        for host_rows in (4, 64):
            found = explained(engine="apex", accel_rows=8, host_rows=host_rows, context=context)
            best = max(found.modes, key=lambda rate: rate.tokens_per_s)
            assert found.choices[0].mode == best.mode


def test_the_inequality_is_equation_6() -> None:
    times = explained(accel_rows=8, host_rows=16, context=1500).times
    assert times.gpu_over_cpu is not None
    assert times.bound is not None
    assert times.r == pytest.approx(times.accel_attention_s / times.linear_s)
    assert times.bound == pytest.approx(decode_bound(times.r))
    assert times.gpu_over_cpu == pytest.approx((8 / times.accel_attention_s) / (16 / times.host_attention_s))
    assert times.asymmetric_beats_gpu_only is (times.gpu_over_cpu < times.bound)
    assert explained(accel_rows=8, host_rows=0).times.gpu_over_cpu is None


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match="engine vllm: is none of this experiment's schedulers: gpu_only"):
        explained(engine="vllm")
    with pytest.raises(ConfigError, match="nobody decodes"):
        explained(accel_rows=0, host_rows=0)


def test_on_the_command_line(call: Call) -> None:
    answer = call("explain", "run", "--config", "t4_llama2", "--backend", "sim", "--json")
    assert answer.code == 0
    assert [choice["engine"] for choice in json.loads(answer.out)["choices"]] == ENGINES
    shown = call("explain", "run", "--config", "t4_llama2", "--backend", "sim")
    assert "N_G / N_C" in shown.out
    assert "asymmetric" in shown.out
