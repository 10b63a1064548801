"""A configuration whose allocation fails: the system's no is a kept result with the reason, not a crash of the run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.faults.conftest import healthy, installed, the_run

# Also where the system hands out memory that it does not have.
AT_MOST = "import resource; resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)); "


@pytest.mark.skipif(find_spec("engines.apex._cpu") is None, reason="the native extension is not built")
def test_a_host_cache_larger_than_the_machine(tmp_path: Path) -> None:
    harness = installed(tmp_path)
    config = harness.config(
        [healthy("hungry") | {"preemption": "swap"}],
        backend="cpu",
        dtype="float32",
        budget={"accel_kv_tokens": 4096, "host_kv_tokens": 1_000_000_000, "cpu_threads": 1, "max_batch": 8},
        emulation={"mode": "native"},
    )
    answer = harness("run", "--config", config, "--out", "runs", before=AT_MOST)
    assert answer.code == 4, answer.err
    assert "Traceback" not in answer.err
    (cell,) = the_run(tmp_path / "runs").cells
    assert (cell.error or "").startswith("out of memory: MemoryError: the system refuses "), cell.error
