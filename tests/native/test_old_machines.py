"""The installed extension on machines that are older than any at hand: the same binary, on an emulated processor."""

import shutil
import subprocess
import sys

import pytest

from engines.apex import _cpu

QEMU = shutil.which("qemu-x86_64")
PROGRAM = """
import importlib.util, sys
import numpy as np
spec = importlib.util.spec_from_file_location("engines.apex._cpu", sys.argv[1])
cpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cpu)
draw = np.random.default_rng(0)
keys, values = (draw.standard_normal((3, 2, 16, 32), dtype=np.float32) for _ in range(2))
query, out = draw.standard_normal((1, 4, 32), dtype=np.float32), np.zeros((1, 4, 32), np.float32)
table, context = np.array([[2, 0, 1]], np.int32), np.array([40], np.int32)
cpu.decode_attention(query, keys, values, table, context, out, 32**-0.5)
for head in range(4):
    k, v = (np.concatenate(pages[[2, 0, 1], head // 2])[:40] for pages in (keys, values))
    weights = np.exp(k @ query[0, head] * 32**-0.5)
    assert np.abs(weights / weights.sum() @ v - out[0, head]).max() < 1e-5
print(*cpu.available_isas())
"""


@pytest.mark.skipif(QEMU is None, reason="needs qemu-x86_64 (Debian: qemu-user) to emulate an older processor")
@pytest.mark.parametrize(("processor", "isas"), [("Nehalem", ["scalar"]), ("Haswell", ["avx2", "scalar"])])
def test_it_imports_and_computes_without(processor: str, isas: list[str]) -> None:
    assert QEMU is not None
    command = [QEMU, "-cpu", processor, sys.executable, "-c", PROGRAM, _cpu.__file__]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == isas
