"""From an exit code and the last words of a process to one line that says why it ended.

Words of many libraries for two things that people must tell apart from a bug: no memory, and no room on the disk.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

TRACEBACK = "Traceback (most recent call last):"
ASIDE = "Exception ignored"  # printed while a process is torn down, after what really happened
FATAL = "Fatal Python error: "

OUT_OF_MEMORY_HEAD = "out of memory"
DISK_FULL_HEAD = "disk full"
OUT_OF_MEMORY = (
    "memoryerror",
    "outofmemoryerror",
    "out of memory",
    "std::bad_alloc",
    "allocate memory",
    "failed to map segment from shared object",
)
DISK_FULL = ("no space left on device", "disk quota exceeded", "file too large")


def reason_for(returncode: int, last_words: str) -> str:
    """One line. A process that could not be ended at all has no exit code; it is never asked for here."""
    for head, signs in ((OUT_OF_MEMORY_HEAD, OUT_OF_MEMORY), (DISK_FULL_HEAD, DISK_FULL)):
        for line in _final_lines(last_words):
            if any(sign in line.lower() for sign in signs):
                return f"{head}: {line}"
    if returncode == -signal.SIGKILL:
        return "killed by SIGKILL, most often the system's answer to running out of memory"
    how = f"crashed with {_signal_name(-returncode)}" if returncode < 0 else f"exited with code {returncode}"
    word = _last_word(last_words)
    return f"{how}: {word}" if word else how


def is_disk_full(reason: str) -> bool:
    return reason.startswith(DISK_FULL_HEAD)


def _last_word(text: str) -> str:
    """The exception that ended the process, or what it said last."""
    raised = list(_raised(text))
    if raised:
        return raised[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    fatal = [line.removeprefix(FATAL) for line in lines if line.startswith(FATAL)]
    return (fatal or lines or [""])[-1]


def _final_lines(text: str) -> Iterator[str]:
    """Lines that name what went wrong: exceptions and what native code says, not the source lines between them."""
    yield from _raised(text)
    yield from (line.strip() for line in text.splitlines() if line[:1].strip() or line.startswith("  what():"))


def _raised(text: str) -> Iterator[str]:
    """The last line of every traceback that somebody was meant to see, in their order."""
    inside = False
    before = ""
    for line in text.splitlines():
        if line == TRACEBACK:
            inside = not before.startswith(ASIDE)
        elif inside and line[:1].strip():
            inside = False
            yield line.strip()
        before = line


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
