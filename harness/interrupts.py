"""Ctrl-C and polite requests to end, while cells run: counted, and looked at between two safe moments.

An exception out of nowhere, between any two instructions, can lose a process just started or a file half renamed. Here
the first request ends the run in order, the second one ends it without patience, further ones change nothing.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Takes the signals over inside a `with`; in a thread that is not the main one nothing is taken over.

    Once interrupted, Ctrl-C stays ignored afterwards: all that is left for this process is to say so and to end.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for which in SIGNALS:
                if signal.getsignal(which) is not signal.SIG_IGN:  # ignored on purpose, as by nohup
                    self._before[which] = signal.signal(which, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)
        if self.count and signal.SIGINT in self._before:
            ignore_further()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def ignore_further() -> None:
    """An impatient second Ctrl-C must not tear apart how the first one is answered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
