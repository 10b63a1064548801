"""What the processes of a run cost the host: CPU, memory, context switches, threads; and how fast the cores run.

Rates are over the time since the previous sample. Looking for child processes reads all of /proc, and the frequency
asks every core, so both are done once a second, or more rarely where they take long; a child that starts and ends in
between is not seen, and rows in between have no frequency.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from harness.collectors.base import Row

SHORTEST_S = 0.02  # CPU times tick in steps of 10 ms: over less than two of them a rate is noise
SLOW_EVERY_S = 1.0
SLOW_SHARE = 0.005  # of the wall time, at most, for the slow readings

COLUMNS = (
    "process_cpu_percent",  # of one core, summed over the process tree
    "process_rss_bytes",
    "process_threads",
    "process_count",
    "process_voluntary_switches_per_s",
    "process_involuntary_switches_per_s",
    "system_cpu_percent",  # of the whole machine
    "cpu_frequency_mhz",  # mean over cores
)


@dataclass(frozen=True, slots=True)
class _Reading:
    cpu_s: float
    voluntary: int
    involuntary: int


class CpuCollector:
    """The process tree under `pid`, by default this process."""

    columns = COLUMNS

    def __init__(self, pid: int | None = None) -> None:
        self.unavailable: dict[str, str] = {}
        self._pid = pid
        self._tree: list[psutil.Process] = []
        self._look_again_at_s = 0.0
        self._before: dict[int, _Reading] = {}
        self._before_at_s = 0.0

    def start(self) -> None:
        root = psutil.Process(self._pid)
        self._tree = [root, *root.children(recursive=True)]
        psutil.cpu_percent()  # the first call only sets the point from which the next one counts
        if _frequency_mhz() is None:
            self.unavailable["cpu_frequency_mhz"] = "the system does not tell it"
        self._read()

    def sample(self) -> Row:
        slow = self._slow_readings() if time.monotonic() >= self._look_again_at_s else {}
        return self._read() | slow

    def close(self) -> None:
        self._tree = []

    def _slow_readings(self) -> Row:
        before_s = time.monotonic()
        root = self._tree[0]
        known = {process.pid: process for process in self._tree}
        self._tree = [root, *(known.get(child.pid, child) for child in root.children(recursive=True))]
        frequency_mhz = None if "cpu_frequency_mhz" in self.unavailable else _frequency_mhz()
        after_s = time.monotonic()
        self._look_again_at_s = after_s + max(SLOW_EVERY_S, (after_s - before_s) / SLOW_SHARE)
        return {} if frequency_mhz is None else {"cpu_frequency_mhz": frequency_mhz}

    def _read(self) -> Row:
        now_s = time.monotonic()
        readings: dict[int, _Reading] = {}
        rss_bytes = threads = 0
        for process in self._tree:
            try:
                with process.oneshot():
                    times, switches = process.cpu_times(), process.num_ctx_switches()
                    rss_bytes += process.memory_info().rss
                    threads += process.num_threads()
            except psutil.Error:  # it ended, or belongs to somebody else: the others still count
                continue
            readings[process.pid] = _Reading(times.user + times.system, switches.voluntary, switches.involuntary)
        row = self._rates(readings, now_s - self._before_at_s)
        self._before, self._before_at_s = readings, now_s
        return row | {
            "process_rss_bytes": float(rss_bytes),
            "process_threads": float(threads),
            "process_count": float(len(readings)),
        }

    def _rates(self, readings: dict[int, _Reading], elapsed_s: float) -> Row:
        # Only processes seen both times: one that ended in between would otherwise count backwards.
        pairs = [(reading, self._before[pid]) for pid, reading in readings.items() if pid in self._before]
        if not pairs or elapsed_s < SHORTEST_S:
            return {}
        return {
            "system_cpu_percent": psutil.cpu_percent(),
            "process_cpu_percent": 100 * sum(now.cpu_s - then.cpu_s for now, then in pairs) / elapsed_s,
            "process_voluntary_switches_per_s": sum(now.voluntary - then.voluntary for now, then in pairs) / elapsed_s,
            "process_involuntary_switches_per_s": sum(now.involuntary - then.involuntary for now, then in pairs)
            / elapsed_s,
        }


def _frequency_mhz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError, AttributeError):  # containers and some virtual machines
        return None
    return float(frequency.current) if frequency is not None and frequency.current > 0 else None
