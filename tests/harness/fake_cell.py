"""Stands in for harness.cell in tests of the runner: does what FAKE_CELL says for its position in the run.

Words, comma separated, one per cell: ok, invalid, crash, segfault, kill, hang, stubborn, silent, memory, broken, torn,
talk.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    cell_dir = Path(sys.argv[1])
    spec = json.loads((cell_dir / "spec.json").read_text())
    word = os.environ["FAKE_CELL"].split(",")[spec["order"]]
    print("a library says hello on stdout")
    print(json.dumps({"event": "progress", "done": 1, "total": 2, "time_s": 0.5}), flush=True)
    behave(word, cell_dir, spec)


def behave(word: str, cell_dir: Path, spec: dict) -> None:  # type: ignore[type-arg]
    if word == "crash":
        raise RuntimeError("the engine lost its way")
    if word == "memory":
        raise MemoryError("no room for 12 blocks")
    if word in ("kill", "segfault"):
        os.kill(os.getpid(), signal.SIGKILL if word == "kill" else signal.SIGSEGV)
    if word == "stubborn":  # ignores the polite request, and leaves a child behind that holds its pipe
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (cell_dir / "child.pid").write_text(str(child.pid))
    if word in ("hang", "stubborn"):
        time.sleep(60)
    if word == "silent":
        return
    if word == "torn":
        (cell_dir / "summary.json").write_text("{")
        return
    if word == "talk":  # a child that outlives the cell keeps stdout open
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (cell_dir / "child.pid").write_text(str(child.pid))
    write_summary(cell_dir, spec, "invalid" if word == "invalid" else "ok")
    if word == "broken":
        raise RuntimeError("failed after the summary was written")


def write_summary(cell_dir: Path, spec: dict, status: str) -> None:  # type: ignore[type-arg]
    summary = {
        "schema_version": 1,
        "cell_id": spec["cell_id"],
        "engine": spec["engine"]["name"],
        "workload": spec["workload"]["name"],
        "backend": spec["backend"],
        "label": spec["label"],
        "repeat": spec["repeat"],
        "status": status,
        "metrics": {"output_tokens_per_s": 10.0, "attempt": float(os.environ.get("FAKE_ATTEMPT", "1"))},
        "resolved": {},
        "notes": [],
        "unavailable": {},
    }
    (cell_dir / "summary.json").write_text(json.dumps(summary))


if __name__ == "__main__":
    main()
