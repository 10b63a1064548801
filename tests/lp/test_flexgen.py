"""FlexGen's equations against a second evaluation by hand, and the planner against everything it could have done."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from engines.lp_balanced.constants import ConstantsError, load_constants
from engines.lp_balanced.flexgen import Fractions, Layer
from engines.lp_balanced.planner import ALPHA, Memory, NoPlanError, plan, solve
from engines.lp_balanced.shapes import OPT
from tests.harness.conftest import Call

GIB = 2**30
T4 = load_constants("flexgen_t4")
LAYER = Layer(OPT["opt-30b"], T4, s=512, n=32, gpu_batch=16, batches=11)
MEMORY = Memory(16 * GIB, 208 * GIB, 1500 * GIB)
SOME = Fractions(0.2, 0.5, 0.3, 0.1, 0.6, 0.3, 0.25, 0.75, 0.0)


def test_times_equal_a_hand_evaluation() -> None:
    """Once more with the numbers in the printed order: h1 7168, h2 28672, bls 176, GB 2^30."""
    weights = 8 * 7168 * 7168 + 4 * 7168 * 28672
    assert LAYER.model.layer_bytes == weights
    prefill = LAYER.prefill_s(SOME)
    load = (weights * 0.8 + 2 * 512 * 7168 * 176 * 0.75) / (12.89 * GIB) + weights * 0.3 / (0.473 * GIB)
    store = 4 * 513 * 7168 * 176 * 0.9 / (0.97 * GIB) + 2 * 512 * 7168 * 176 * 0.75 / (4.82 * GIB)
    store += 4 * 176 * 513 * 7168 * 0.3 / (0.746 * GIB)
    compute = 176 * (8 * 512 * 7168**2 + 4 * 512 * 7168 * 28672) / 21.24e12 + 4 * 176 * 512**2 * 7168 / 9.97e12
    assert prefill == pytest.approx({"load": load, "store": store, "compute": compute}, rel=1e-6)
    decode = LAYER.decode_s(SOME)
    ctog = (weights * 0.8 + 2 * 7168 * 176 * 0.75) / (12.89 * GIB)
    disk = 4 * 176 * 528 * 7168 * 0.3 / (0.473 * GIB) + weights * 0.3 / (0.95 * 0.473 * GIB)
    cpu_flops = 0.0123e12 * (1 - 0.0328 * 2)  # a = log2(64 / 16), b = 0
    compute = 176 * (8 * 7168**2 + 4 * 7168 * 28672) / 4.3e12 + 4 * 176 * 528 * 7168 * 0.1 / 0.079e12
    compute += 4 * 176 * 528 * 7168 * 0.9 / cpu_flops
    assert decode["to the CPU"] == pytest.approx(ctog + 2 * 7168 * 176 * 0.75 / (4.82 * GIB), rel=1e-6)
    assert decode["from the disk"] == pytest.approx(ctog + disk, rel=1e-6)
    assert decode["to the disk"] == pytest.approx(ctog + 4 * 176 * 7168 * 0.3 / (2.015 * GIB), rel=1e-6)
    assert decode["compute"] == pytest.approx(ctog + compute, rel=1e-6)
    total = 48 * max(prefill.values()) + 48 * 31 * max(decode.values())
    assert LAYER.total_s(SOME) == pytest.approx(total, rel=1e-6)


def test_peaks_equal_a_hand_evaluation() -> None:
    weights = 8 * 7168 * 7168 + 4 * 7168 * 28672
    peaks = LAYER.peak_bytes(SOME)
    gpu = weights * 48 * 0.2 + 4 * 544 * 7168 * 176 * 48 * 0.1 + 2 * weights * 0.8
    workspace = 16 * (18 * 512 * 7168 + 2 * 56 * 512**2 + 2 * 512 * 28672)
    assert peaks["GPU"]["prefill"] == pytest.approx(
        gpu + 2 * 512 * 7168 * 176 * 0.25 + 2 * 512 * 7168 * 16 * 0.75 + workspace, rel=1e-9
    )
    decoding = 2 * 7168 * 176 * 0.25 + 2 * 7168 * 16 * 0.75 + 4 * 16 * 544 * 7168 * 0.1 + 16 * (14 * 7168 + 2 * 28672)
    decoding += 16 * 0.1 * (2 * 7168 + 2 * 544 * 7168 + 2 * 56 * 544) + 16 * 0.1 * (2 * 544 * 7168 + 2 * 7168)
    assert peaks["GPU"]["decode"] == pytest.approx(gpu + decoding, rel=1e-9)
    assert peaks["disk"]["peak"] == pytest.approx(weights * 48 * 0.3 + 4 * 544 * 7168 * 176 * 48 * 0.3, rel=1e-9)
    cpu = weights * 48 * 0.5 + 2 * 512 * 7168 * 176 * 0.75 + 4 * 512 * 7168 * 176 * 48 * 0.6
    assert peaks["CPU"]["prefill"] == pytest.approx(cpu + weights * 0.8 + 2 * 512 * 7168 * 16 * 0.75, rel=1e-9)


@pytest.mark.parametrize(("gpu", "cpu"), [(4, 24), (8, 16), (6, 200)])
def test_no_placement_of_a_grid_beats_the_optimum(gpu: int, cpu: int) -> None:
    layer = replace(LAYER, model=OPT["opt-6.7b"], gpu_batch=4, batches=6)
    memory = Memory(gpu * GIB, cpu * GIB, 400 * GIB)
    found = solve(layer, memory)
    assert found is not None
    tenths = [number / 10 for number in range(11)]
    halves = [(a, b, round(1 - a - b, 1)) for a, b in itertools.product(tenths, tenths) if a + b <= 1.001]
    tried = 0
    for w, c, hidden in itertools.product(halves, halves, (0.0, 0.5, 1.0)):
        fractions = Fractions(*w, *c, hidden, 1 - hidden, 0.0)
        peaks = layer.peak_bytes(fractions)
        limits = memory.limits()
        if all(size <= limits[tier] for tier, phases in peaks.items() for size in phases.values()):
            tried += 1
            assert layer.total_s(fractions) >= found.total_s * (1 - 1e-9)
    assert tried > 50, "the grid hardly ever fits: it says nothing"


def test_what_fits_lies_on_the_gpu() -> None:
    found = plan(replace(LAYER, model=OPT["opt-1.3b"]), Memory(80 * GIB, 200 * GIB, 100 * GIB))
    placed = found.fractions
    assert (placed.wg, placed.cg, placed.hg) == pytest.approx((1.0, 1.0, 1.0))


def test_a_plan_keeps_within_every_memory() -> None:
    found = plan(LAYER, MEMORY)
    for tier, limit in MEMORY.limits().items():
        assert found.peak_bytes[tier] <= limit * (1 + 1e-6)
    fractions = found.fractions
    for shares in ((fractions.wg, fractions.wc, fractions.wn), (fractions.cg, fractions.cc, fractions.cn)):
        assert sum(shares) == pytest.approx(1.0)
    assert "GPU memory" in found.binds


def test_a_dual_is_what_more_memory_saves() -> None:
    found = solve(LAYER, MEMORY)
    more = solve(LAYER, replace(MEMORY, gpu=MEMORY.gpu + GIB // 100))
    assert found is not None
    assert more is not None
    saved = (found.total_s - more.total_s) / LAYER.block
    assert saved == pytest.approx(found.duals["GPU memory, prefill"] / 100, rel=0.02)


def test_the_published_run_comes_out_within_a_few_per_cent() -> None:
    """OPT-30B on a T4, prompt 512, output 32: 7.32 tokens/s published. The others do not: see the log."""
    assert plan(LAYER, MEMORY).tokens_per_s == pytest.approx(7.32, rel=0.05)


def test_no_plan_says_what_is_short() -> None:
    with pytest.raises(NoPlanError, match=r"GPU memory is short of 1\.02 GiB and disk memory is short of 43\.\d+ GiB"):
        plan(LAYER, Memory(2 * GIB, 8 * GIB, 20 * GIB))
    enough = Memory(int(3.1 * GIB), 8 * GIB, 64 * GIB)
    assert plan(LAYER, enough).layer.block >= 1, "what it said was short is enough"
    assert ALPHA == 0.8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cpu_tflops": -1}, "cpu_tflops: expected a number above zero, not -1"),
        ({"cpu_tflops": True}, "cpu_tflops: expected a number above zero, not True"),
        ({"speed": 3}, "speed: unknown"),
        ({"cpu_c1": None}, "cpu_c1: expected a number above zero, not None"),
    ],
)
def test_constants_of_your_own(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "mine.yaml"
    shipped = yaml.safe_load((Path("engines/lp_balanced/flexgen_t4.yaml")).read_text())
    path.write_text(yaml.safe_dump(shipped))
    assert load_constants(str(path)) == T4
    path.write_text(yaml.safe_dump(shipped | change))
    with pytest.raises(ConstantsError, match=said):
        load_constants(str(path))


def test_on_the_command_line(call: Call) -> None:
    options = ("--model", "opt-30b", "--prompt", "512", "--output", "32")
    memories = ("--gpu-memory", "16GiB", "--cpu-memory", "208GiB", "--disk", "1500GiB")
    found = json.loads(call("explain", "lp", *options, *memories, "--json").out)
    assert set(Fractions.names()) | {"gpu_batch", "num_gpu_batches", "predicted_tokens_per_s"} <= set(found)
    fixed = call("explain", "lp", *options, *memories, "--gpu-batch", "8", "--num-gpu-batches", "2")
    assert "for a block of 8 x 2" in fixed.out
    for wrong, said in (
        (("--model", "opt-31b"), 'did you mean "opt-30b"?'),
        (("--gpu-memory", "much"), "--gpu-memory: expected a size"),
        (("--constants", "none.yaml"), "constants none.yaml: no such file, and not shipped (flexgen_t4)"),
        (("--gpu-memory", "1GiB"), "GPU memory is short of"),
    ):
        answer = call("explain", "lp", *options, *memories, *wrong)
        assert answer.code == 2
        assert said in answer.errors[0]
