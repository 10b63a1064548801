"""From last words to a reason: the words of Python, torch, CUDA, arrow and C++ as they really are."""

from __future__ import annotations

import pytest

from harness.epitaph import is_disk_full, reason_for

HEAD = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    work()  # no space left on device\n'
SEGFAULT = "Fatal Python error: Segmentation fault\n\nCurrent thread:\n  File 1\n\nExtension modules: numpy\n"


@pytest.mark.parametrize(
    "words",
    [
        HEAD + "MemoryError",
        HEAD + "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 TiB for an array",
        HEAD + "pyarrow.lib.ArrowMemoryError: malloc of size 1073741824 failed",
        HEAD + "RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you",
        HEAD + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        HEAD + "OSError: [Errno 12] Cannot allocate memory",
        HEAD + "ImportError: libfoo.so: failed to map segment from shared object",
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
    ],
)
def test_no_memory(words: str) -> None:
    assert reason_for(1, words).startswith("out of memory: ")
    assert not is_disk_full(reason_for(1, words))


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 28] No space left on device",
        "results.errors.ResultsError: a/steps.parquet: cannot be written: Disk quota exceeded",
        "OSError: [Errno 27] Error writing bytes to file. Detail: [errno 27] File too large",
    ],
)
def test_no_room_on_the_disk(line: str) -> None:
    reason = reason_for(1, HEAD + line)
    assert reason == f"disk full: {line}"
    assert is_disk_full(reason)


def test_memory_that_runs_out_first_is_the_reason_although_tidying_up_failed_as_well() -> None:
    between = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
    words = f"{HEAD}MemoryError{between}{HEAD}KeyError: 7\n"
    assert reason_for(1, words) == "out of memory: MemoryError"


def test_the_exception_counts_and_not_what_is_printed_after_it() -> None:
    words = (
        f"{HEAD}RuntimeError: lost\n"
        "Exception ignored in: <function f at 0x1>\n"
        f"{HEAD}ValueError: torn down\n"
        "resource_tracker: there appear to be 2 leaked objects\n"
    )
    assert reason_for(1, words) == "exited with code 1: RuntimeError: lost"


@pytest.mark.parametrize(
    ("code", "words", "reason"),
    [
        (-9, "", "killed by SIGKILL, most often the system's answer to running out of memory"),
        (-15, "bye\n", "crashed with SIGTERM: bye"),
        (-11, SEGFAULT, "crashed with SIGSEGV: Segmentation fault"),
        (-63, "", "crashed with signal 63"),
        (3, "", "exited with code 3"),
        (3, "  \n\n", "exited with code 3"),
        (3, "usage: cell DIR\n", "exited with code 3: usage: cell DIR"),
    ],
)
def test_everything_else(code: int, words: str, reason: str) -> None:
    assert reason_for(code, words) == reason
