"""What has to hold of a simulated machine whatever its constants are: more of anything is no worse, and the paper's
formulas come out where their assumptions hold.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from engines.apex.policy import Apex
from engines.core.cost import Work
from engines.core.roofline import Roofline
from engines.hardware import Hardware, Interference, load_hardware
from harness.catalogue_entry import write_entry
from harness.config import load_experiment
from harness.explain import explain
from harness.lean import figures
from harness.plan import expand
from harness.steady import Machine, SimBed, State, steady_rate

RATE = "output_tokens_per_s_whole_run"
MORE = 1.3
LOSS = 0.02  # a scheduler may round a batch the other way
LAYERS = 32
T4 = "t4_g4dn_4xlarge"

ENGINES = (
    "gpu_only",
    "{kind: static_partition, host_share: 0.5}",
    "neo",
    "apex",
    "weight_streaming",
    "{kind: lp_balanced, prompt_tokens: 500, output_tokens: 60, batch: 16}",
)


def _gpu(machine: Hardware, **changes: float) -> Hardware:
    return replace(machine, gpu=replace(machine.gpu, **changes))  # type: ignore[arg-type]


def _cpu(machine: Hardware, **changes: float) -> Hardware:
    return replace(machine, cpu=replace(machine.cpu, **changes))  # type: ignore[arg-type]


def _disturbed(machine: Hardware, factor: float) -> Hardware:
    return replace(machine, interference=Interference(host=factor, links=factor))


def _faster_link(machine: Hardware) -> Hardware:
    link = machine.link
    rates = {"h2d_bytes_per_s": link.h2d_bytes_per_s * MORE, "d2h_bytes_per_s": link.d2h_bytes_per_s * MORE}
    return replace(machine, link=replace(link, **rates))


def _more_flops(machine: Hardware) -> Hardware:
    return replace(
        machine,
        gpu=replace(machine.gpu, flops={dtype: value * MORE for dtype, value in machine.gpu.flops.items()}),
        cpu=replace(machine.cpu, flops=machine.cpu.flops * MORE),
    )


MACHINES = {
    "GPU bandwidth": lambda m: _gpu(m, bandwidth_bytes_per_s=m.gpu.bandwidth_bytes_per_s * MORE),
    "flops": _more_flops,
    "CPU bandwidth": lambda m: _cpu(m, read_bandwidth_bytes_per_s=m.cpu.read_bandwidth_bytes_per_s * MORE),
    "link": _faster_link,
}
BUDGETS = {"GPU memory": "budget.accel_memory=15GiB", "host memory": "budget.host_memory=52GiB"}


def _rate(engine: str, hardware: str, *sets: str) -> float:
    experiment = load_experiment(
        "t4_llama2",
        [
            f"engines=[{engine}]",
            f"hardware={hardware}",
            "budget.cpu_threads=auto",
            "workloads=[{kind: long_output, prompt: 500, output: 60, jitter: 0.1, requests: 24}]",
            "measure.warmup_requests=0",
            *sets,
        ],
    )
    return figures(expand(experiment, "sim")[0]).metrics[RATE]


@pytest.fixture(scope="module")
def rates() -> dict[str, float]:
    return {engine: _rate(engine, T4) for engine in ENGINES}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", MACHINES)
def test_a_better_machine_slows_no_engine_down(what: str, engine: str, rates: dict[str, float], tmp_path: Path) -> None:
    better = MACHINES[what](load_hardware(T4))
    path = tmp_path / "better.yaml"
    write_entry(path, better, what)
    assert _rate(engine, str(path)) >= (1 - LOSS) * rates[engine]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", BUDGETS)
def test_more_memory_slows_no_engine_down(what: str, engine: str, rates: dict[str, float]) -> None:
    assert _rate(engine, T4, BUDGETS[what]) >= (1 - LOSS) * rates[engine]


@pytest.mark.parametrize("engine", ["gpu_only", "{kind: static_partition, host_share: 0.5}", "neo", "apex"])
def test_units_in_each_others_way_slow_down_who_has_them_work_side_by_side(
    engine: str, rates: dict[str, float], tmp_path: Path
) -> None:
    """static_partition's host works in turns with the accelerator; only copies of prompts' KV are beside it."""
    path = tmp_path / "disturbed.yaml"
    write_entry(path, _disturbed(load_hardware(T4), 1.5), "in each other's way")
    found = _rate(engine, str(path))
    if engine == "gpu_only":
        assert found == rates[engine]
    elif engine in ("neo", "apex"):
        assert found < 0.97 * rates[engine]
    else:
        assert 0.99 * rates[engine] < found <= rates[engine]


@pytest.mark.parametrize("engine", ["gpu_only", "neo", "apex"])
def test_a_larger_instance_with_the_same_gpu_slows_no_engine_down(engine: str) -> None:
    """Cores alone cost nothing in the model: they come with a share of the memory's bandwidth, and with memory."""
    hosts = [f"a10g_g5_{size}xlarge" for size in (2, 4, 8, 16)]
    assert [load_hardware(host).cpu.cores for host in hosts] == [4, 8, 16, 32]
    sizes = ("budget.accel_memory=14GiB", "budget.host_memory=auto")
    found = [_rate(engine, host, *sizes) for host in hosts]
    assert all(larger >= (1 - LOSS) * smaller for smaller, larger in pairwise(found)), found
    assert (found[-1] > found[0]) is (engine != "gpu_only"), found  # whoever uses the host gains by a better one


# --- the paper's formulas ---------------------------------------------------------------------------------------------


def _free_host(costs: Roofline) -> Roofline:
    """Attention on the host, and the way there, in next to no time."""
    free = replace(
        costs.machine,
        host_attention_bytes_per_s=1e18,
        host_attention_fixed_s=1e-9,
        h2d_bytes_per_s=1e18,
        d2h_bytes_per_s=1e18,
        link_latency_s=1e-9,
    )
    return Roofline(costs.model, free)


@pytest.mark.parametrize("state", [State(500, 3, 64), State(1500, 8, 16), State(1500, 20, 64)], ids=str)
def test_with_free_host_attention_asynchronous_overlap_gains_what_its_formula_says(state: State) -> None:
    """Every host request then stays aboard for a whole pass: (B_G + C) tokens in T_lin(B_G + C) + T_gatt."""
    costs = _free_host(Machine(T4).itself())
    alone, overlapped = (
        steady_rate(Apex(mode=mode), state, SimBed(costs), costs, (40, 96), LAYERS).tokens_per_s
        for mode in ("gpu_only", "async_overlap")
    )
    accel, both = state.accel_rows, state.accel_rows + state.host_rows
    attention_s = costs.accel_attention_s(_decodes(accel, state.context))

    def step_s(rows: int) -> float:
        return LAYERS * (costs.linear_s(rows) + attention_s) + costs.head_s(rows) + costs.step_overhead_s

    formula = both / accel * step_s(accel) / step_s(both)
    assert overlapped / alone == pytest.approx(formula, rel=0.03)


def _decodes(rows: int, context: int) -> Work:
    return Work(tokens=rows, decode_rows=rows, decode_kv_tokens=rows * context)


def test_the_papers_selector_pipelines_exactly_where_equation_6_says() -> None:
    seen = set()
    for machine in ("t4_llama2", "a10_llama2"):
        cells = expand(load_experiment(machine, ["engines=[{kind: apex, selector: paper}]"]), "sim")
        for accel_rows in (1, 4, 16, 64):
            for context in (200, 1000, 3000):
                found = explain(cells, None, accel_rows, 4 * accel_rows, context)
                pipelines = found.choices[0].mode == "asymmetric"
                assert pipelines is found.times.asymmetric_beats_gpu_only, (machine, accel_rows, context)
                seen.add(pipelines)
    assert seen == {True, False}
