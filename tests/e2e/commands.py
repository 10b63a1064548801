"""The installed command in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND = Path(sys.executable).with_name("harness")


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    out: str
    err: str


def harness(*arguments: object, cwd: Path, timeout_s: float = 120) -> Answer:
    """`harness ...`, started in a folder that has nothing to do with the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_SET_")}
    ended = subprocess.run(
        [COMMAND, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
    return Answer(ended.returncode, ended.stdout, ended.stderr)
