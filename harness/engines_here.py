"""Every engine that can be named on this machine: where it comes from, what it is, and why it cannot be had.

Ours are asked in this process. What others bring is loaded as a cell would load it, in a process of its own: it may
end Python, hang, crash or print, and is a line in a list all the same. `python -m harness.engines_here FOLDER` is that
process; which engine it looks at, and what it found, stands in the folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from engines.plugins import one_line, raised
from engines.registry import BUILT_IN, EngineEntry, engine_entries, load, summary_of, why_unavailable
from harness.child import run_child
from harness.interrupts import Interrupts
from results.files import read_json, write_json

OK = "ok"
LOAD_LIMIT_S = 60.0
AT_A_TIME = 4
ASKED_FILE = "asked.json"
FOUND_FILE = "found.json"
MODULE = "harness.engines_here"


@dataclass(frozen=True, slots=True)
class EngineHere:
    """`form` and `summary` are empty where the engine could not be loaded."""

    kind: str
    origin: str
    form: str
    state: str  # OK, or in one line what is wrong and what to do about it
    summary: str


def engines_here(load_limit_s: float = LOAD_LIMIT_S) -> list[EngineHere]:
    """Ours first, then everybody's."""
    theirs = [entry for entry in engine_entries() if entry is not BUILT_IN.get(entry.kind)]
    return [*map(looked_at, BUILT_IN.values()), *_looked_at_apart(theirs, load_limit_s)]


def looked_at(entry: EngineEntry) -> EngineHere:
    """Loads it into this process."""
    found = load(entry)
    if isinstance(found, str):
        return _unknown(entry, found)
    form = "policy" if hasattr(found, "decide") else "engine of its own"
    return EngineHere(entry.kind, entry.status, form, why_unavailable(entry.kind) or OK, summary_of(entry.kind))


def _looked_at_apart(entries: Sequence[EngineEntry], load_limit_s: float) -> list[EngineHere]:
    if not entries:
        return []
    with Interrupts() as interrupts, ThreadPoolExecutor(AT_A_TIME) as pool:
        found = list(pool.map(partial(_apart, load_limit_s=load_limit_s, interrupts=interrupts), entries))
    if interrupts.count:
        raise KeyboardInterrupt
    return found


def _apart(entry: EngineEntry, load_limit_s: float, interrupts: Interrupts) -> EngineHere:
    if entry.problem:
        return _unknown(entry, entry.problem)
    with TemporaryDirectory(prefix="harness-engine-") as folder:
        write_json(Path(folder) / ASKED_FILE, asdict(entry))
        ending = run_child(Path(folder), load_limit_s, lambda progress: None, interrupts, MODULE)
        found = Path(folder) / FOUND_FILE
        if found.is_file():
            return EngineHere(**read_json(found))  # type: ignore[arg-type]
    how = ending.reason or "the process that loaded it ended"
    if ending.wall_s >= load_limit_s:
        how = f"not loaded within {load_limit_s:g} s"
    return _unknown(entry, f"{one_line(how)}; reinstall or remove {entry.status}")


def _unknown(entry: EngineEntry, why: str) -> EngineHere:
    return EngineHere(entry.kind, entry.status, "", why, "")


def main() -> None:
    """Whatever the engine has left running or wants to do at the end has no say in when this process ends."""
    folder = Path(sys.argv[1])
    entry = EngineEntry(**read_json(folder / ASKED_FILE))  # type: ignore[arg-type]
    try:
        found = looked_at(entry)
    except BaseException as error:
        found = _unknown(entry, f"cannot be looked at: {raised(error)}; reinstall or remove {entry.status}")
    write_json(folder / FOUND_FILE, asdict(found))
    os._exit(0)


if __name__ == "__main__":
    main()
