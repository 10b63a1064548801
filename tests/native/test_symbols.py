"""No function compiled for a newer instruction set can be the copy that the linker keeps for everybody.

An inline function of a header is a weak symbol in every object that uses it. One compiled with AVX-512 flags would
fault on a machine without, in code that has nothing to do with kernels.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OBJECTS = sorted(ROOT.glob("build/*/CMakeFiles/kernels_*.dir/kernel.cc.o"))


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm of the binutils")
@pytest.mark.skipif(not OBJECTS, reason="the objects of the extension's build are not here")
@pytest.mark.parametrize("kernels", OBJECTS, ids=lambda path: str(path.parts[-2]))
def test_kernels_show_nothing_but_their_table(kernels: Path) -> None:
    listing = subprocess.run(["nm", "--defined-only", str(kernels)], check=True, capture_output=True, text=True).stdout
    symbols = [line.split()[-2:] for line in listing.splitlines()]
    shared = {name for kind, name in symbols if kind.isupper() or kind in "wvu"}
    assert shared, "the table at least"
    assert all("kKernels" in name for name in shared), shared
