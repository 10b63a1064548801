"""Schedulers starved of accelerator blocks: emulated with real threads and tensors, and simulated, they agree.

The proof that the simulator and the emulation mean the same overlap: rates within 5 %, and the same order.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from harness.runner import PARTIAL_EXIT_CODE
from results.schema import Status
from results.store import RunFolder
from tests.e2e.commands import harness

EXPERIMENT = {
    "schema_version": 1,
    "name": "hybrids",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "tiny-1m",
    "dtype": "float32",
    "budget": {
        "accel_kv_tokens": 96,
        "host_kv_tokens": 4096,
        "cpu_threads": 1,
        "max_batch": 12,
        "max_batch_tokens": 64,
    },
    "engines": ["gpu_only", "neo", {"kind": "apex", "name": "ao", "mode": "async_overlap"}],
    "workloads": [{"kind": "long_output", "prompt": 16, "output": 16, "jitter": 0.2, "requests": 10}],
    "emulation": {"pace": {"reference_model": "llama-2-7b", "time_scale": 12, "tokens_each": 20}},
    "measure": {"warmup_requests": 1, "seed": 3, "time_limit_s": 100},
}
ATTEMPTS = 3
pytestmark = pytest.mark.alone


@dataclass(frozen=True)
class Rates:
    """Output tokens per second by engine, and which cells a busy machine made invalid."""

    by_engine: dict[str, float]
    invalid: list[str]


def rates(backend: str, here: Path) -> Rates:
    (here / "hybrids.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    answer = harness("run", "--config", "hybrids.yaml", "--backend", backend, "--out", "out", cwd=here)
    assert answer.code in (0, PARTIAL_EXIT_CODE), answer.err
    [path] = (here / "out").iterdir()
    cells = RunFolder.open(path).read_run_summary().cells
    assert all(cell.status in (Status.OK, Status.INVALID) for cell in cells), answer.err
    return Rates(
        {cell.engine: cell.metrics["output_tokens_per_s"] for cell in cells if cell.status is Status.OK},
        [cell.engine for cell in cells if cell.status is Status.INVALID],
    )


def test_emulated_and_simulated_rates_agree(tmp_path_factory: pytest.TempPathFactory) -> None:
    simulated = rates("sim", tmp_path_factory.mktemp("sim"))
    for _ in range(ATTEMPTS):
        emulated = rates("cpu", tmp_path_factory.mktemp("cpu"))
        if not emulated.invalid:
            break
    assert not emulated.invalid, "this machine is too busy to emulate"
    assert emulated.by_engine == pytest.approx(simulated.by_engine, rel=0.05)
    order = sorted(simulated.by_engine, key=lambda engine: simulated.by_engine[engine])
    for slower, faster in pairwise(order):
        gap = simulated.by_engine[faster] / simulated.by_engine[slower]
        if gap > 1.05:
            assert emulated.by_engine[faster] > emulated.by_engine[slower]
    assert simulated.by_engine["neo"] > 1.1 * simulated.by_engine["gpu_only"], "the host is of use here"
