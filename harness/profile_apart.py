"""A profile of this machine made by a process of its own, as cells are: what it pins and allocates goes with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.errors import UnfitEnvironmentError
from harness.profile_file import Profile, load_profile

PROGRAM = "from harness.cli import main; main()"


def profiled_apart(path: Path, options: Mapping[str, object], quick: bool = False) -> Profile:
    """`options`: those of `harness profile`, by their names without the dashes. Only what ops take alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    flags = ["--alone", *(["--quick"] if quick else [])]
    command = [sys.executable, "-c", PROGRAM, "profile", *flags, "--out", str(path), *words]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise UnfitEnvironmentError(f"harness profile failed: {ended.stderr.strip()}")
    return load_profile(path)
