"""`python -m tests.sanitize`: the native tests with the extension built for a sanitizer. `make sanitize` runs both.

The instrumented build goes to build/sanitize-*, never to where the product imports from; only the test process loads it
(tests/instrumented.py). Python and torch are not instrumented, so a report is about our own code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = "tests/native"
# Of these threads come, go, share and wait; the arithmetic is the same in all of them and has no threads of its own.
# The last are hybrid engines that overlap for real, and whose requests give up while they fly.
HYBRIDS = "tests/contract/test_hybrid_exactness.py"
THREAD_TESTS = (
    "tests/native/test_pool.py",
    "tests/native/test_reading.py",
    f"{HYBRIDS}::test_several_threads_attend",
    f"{HYBRIDS}::test_aborts_take_nothing_from_anybody_else",
)


@dataclass(frozen=True, slots=True)
class Sanitizer:
    name: str
    flag: str  # of -fsanitize
    libraries: tuple[str, ...]  # loaded before everything else, in this order
    tests: Sequence[str]
    options: Mapping[str, str] = field(default_factory=dict)
    without: str = ""  # what pytest leaves out by name

    @property
    def build(self) -> Path:
        return ROOT / "build" / f"sanitize-{self.name}"


SANITIZERS = (
    Sanitizer(
        name="address",
        flag="address,undefined",
        # The C++ library as well: its exceptions are intercepted, and Python loads it too late for that.
        libraries=("libasan.so", "libstdc++.so"),
        tests=(TESTS,),
        options={
            # Python and torch keep what they allocate to the end; leaks of our own show in tests/native/test_pool.py.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:strict_init_order=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        },
        # An emulator and the sanitizer both want most of the address space: the process is killed.
        without="old_machines",
    ),
    Sanitizer(
        name="thread",
        flag="thread",
        libraries=("libtsan.so",),
        tests=THREAD_TESTS,
        options={"TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0:ignore_noninstrumented_modules=1"},
        # A fork of a process with threads is what the sanitizer itself forbids.
        without="forked",
    ),
)


def main(names: Sequence[str]) -> int:
    unknown = set(names) - {sanitizer.name for sanitizer in SANITIZERS}
    if unknown:
        print(f"{', '.join(sorted(unknown))}: no sanitizer here; use address or thread", file=sys.stderr)
        return 2
    chosen = [sanitizer for sanitizer in SANITIZERS if not names or sanitizer.name in names]
    codes = [_run(sanitizer) for sanitizer in chosen]
    return max(codes)


def _run(sanitizer: Sanitizer) -> int:
    module = _built(sanitizer)
    print(f"{sanitizer.name}: {module.relative_to(ROOT)}", flush=True)
    tests = [sys.executable, "-m", "pytest", "-p", "tests.instrumented", "-p", "no:cacheprovider", *sanitizer.tests]
    if sanitizer.without:
        tests += ["-k", f"not {sanitizer.without}"]
    # A fixed layout of memory: the thread sanitizer's own does not fit every random one.
    command = ["setarch", os.uname().machine, "-R", *tests]
    environment = os.environ | sanitizer.options | {"INSTRUMENTED_MODULE": str(module), "OMP_NUM_THREADS": "1"}
    environment["LD_PRELOAD"] = " ".join(_library(name) for name in sanitizer.libraries)
    return subprocess.run(command, env=environment, cwd=ROOT).returncode


def _built(sanitizer: Sanitizer) -> Path:
    target = sanitizer.build / "installed"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"),
            *("--target", str(target), f"--config-settings=build-dir={sanitizer.build / 'objects'}"),
            "--config-settings=cmake.build-type=RelWithDebInfo",
            f"--config-settings=cmake.define.APEX_SANITIZE={sanitizer.flag}",
            str(ROOT),
        ],
        check=True,
    )
    (module,) = (target / "engines" / "apex").glob("_cpu.*.so")
    return module


def _library(name: str) -> str:
    """The path of the compiler's own copy."""
    found = subprocess.run(
        [os.environ.get("CXX", "g++"), f"-print-file-name={name}"], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
