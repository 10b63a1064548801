"""An engine that schedules like gpu_only and at its fifth decision does what its option says. For tests only.

It comes to the harness as anybody's plugin does, so that everything else in the cell is the real thing.
FAULTS=off in the environment disarms it; a hanging one first writes its process id into the file named by FAULTS_MARK.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from engines.core.cost import Predictor
from engines.core.placement import Placement
from engines.core.policy import Decision, View
from engines.core.types import Capabilities
from engines.gpu_only.policy import GpuOnly

STRIKES_AT = 5

_decisions = count(1)
_healthy = GpuOnly()


@dataclass(frozen=True, slots=True)
class Faulty:
    fault: Literal["raise", "kill", "segfault", "memory", "hang", "freeze"]

    @property
    def name(self) -> str:
        return f"faulty_{self.fault}"

    @property
    def uses_host_kv(self) -> bool:
        return False

    def partition(self, capabilities: Capabilities, predict: Predictor | None) -> Placement:
        return _healthy.partition(capabilities, predict)

    def decide(self, view: View) -> Decision:
        if next(_decisions) == STRIKES_AT and os.environ.get("FAULTS") != "off":
            strike(self.fault)
        return _healthy.decide(view)


def strike(fault: str) -> None:
    if fault == "raise":
        raise RuntimeError("the policy lost its way")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "memory":
        taken_bytes = 1024 * int(Path("/proc/self/statm").read_text().split()[0]) * (resource.getpagesize() // 1024)
        resource.setrlimit(resource.RLIMIT_AS, (taken_bytes + (64 << 20),) * 2)
        bytearray(1 << 30)
    if mark := os.environ.get("FAULTS_MARK"):
        Path(mark).write_text(str(os.getpid()))
    if fault == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(3600)
