"""Two clocks behind one seam: wall time and simulated time. Seconds since the start."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the clock was made."""

    def wait_until(self, moment_s: float) -> None:
        """Return at `moment_s`, at once when it has passed."""

    def restart(self) -> None:
        """From now on it is 0."""


class MonotonicClock:
    """Wall time. Sleeping alone is late by 50-100 us at best, so the last `spin_s` of a wait are spun.

    On a busy machine an ordinary sleeper wakes up to 4 ms late; whoever cannot have that spins all of it.
    """

    def __init__(self, spin_s: float = 80e-6) -> None:
        self._spin_s = spin_s
        self.restart()

    def restart(self) -> None:
        self._origin = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._origin

    def wait_until(self, moment_s: float) -> None:
        target = self._origin + moment_s
        sleep_s = target - time.perf_counter() - self._spin_s
        if sleep_s > 0:
            time.sleep(sleep_s)
        while time.perf_counter() < target:
            pass


class VirtualClock:
    """Simulated time: it moves only when somebody moves it."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now(self) -> float:
        return self._now_s

    def wait_until(self, moment_s: float) -> None:
        self._now_s = max(self._now_s, moment_s)

    def restart(self) -> None:
        self._now_s = 0.0


def stopwatch() -> float:
    """A raw reading for measuring how long a decision took; it never influences one."""
    return time.perf_counter()
