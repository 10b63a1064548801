"""A simulated cell of a bundle, simulated again: whatever it shows has to come out once more.

That finds what no recount can, records forged to the last row. Only the time that our own scheduler took differs, for
that is read from a clock.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from harness.build import JOURNAL_FILE
from harness.cell import TRACE_FILE
from harness.child import run_child
from harness.differences import Ledger
from harness.interrupts import Interrupts
from harness.plan import CellSpec
from harness.saturating_cell import SPEC_FILE
from results.readers import iter_requests, iter_steps
from results.schema import REQUESTS_FILE, STEPS_FILE, SUMMARY_FILE

MOST_S = 3600.0  # whatever time limit a bundle brings along
READ_FROM_A_CLOCK = ("cell_wall_s", "scheduler_us", "scheduler_share")
LEFT_OUT = frozenset({"scheduler_s"})


def simulate_again(spec: CellSpec, cell_dir: Path, ledger: Ledger, interrupts: Interrupts) -> bool:
    """False where it could not be, which is said, and is no difference."""
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "cell"
        again.mkdir()
        shutil.copyfile(cell_dir / SPEC_FILE, again / SPEC_FILE)
        ending = run_child(again, min(spec.measure.time_limit_s, MOST_S), lambda progress: None, interrupts)
        if ending.interrupted:
            raise KeyboardInterrupt
        if ending.reason is not None:
            ledger.take("the simulation", f"cannot be made again here: {ending.reason.splitlines()[0]}")
            return False
        _compare(again, cell_dir, f"cells/{cell_dir.name}", ledger)
    return True


def _compare(again: Path, cell_dir: Path, where: str, ledger: Ledger) -> None:
    what = "simulated again"
    ledger.compare(f"{where}/{SUMMARY_FILE}", what, _summary(again), _summary(cell_dir))
    for file, rows in ((REQUESTS_FILE, iter_requests), (STEPS_FILE, iter_steps)):
        expected, found = (list(rows(folder)) for folder in (again, cell_dir))
        ledger.compare(f"{where}/{file}", f"{what}, columns", _columns(expected), _columns(found))
    ledger.compare(
        f"{where}/{TRACE_FILE}", what, *(json.loads((folder / TRACE_FILE).read_bytes()) for folder in (again, cell_dir))
    )
    ledger.compare(f"{where}/{JOURNAL_FILE}", f"{what}, lines", _lines(again), _lines(cell_dir))


def _summary(cell_dir: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((cell_dir / SUMMARY_FILE).read_bytes())
    kept = {key: value for key, value in data["metrics"].items() if not key.startswith(READ_FROM_A_CLOCK)}
    return data | {"metrics": kept}


def _columns(batches: list[Any]) -> dict[str, list[Any]]:
    names = batches[0].schema.names if batches else []
    return {
        name: [value for batch in batches for value in batch.column(name).to_pylist()]
        for name in names
        if name not in LEFT_OUT
    }


def _lines(cell_dir: Path) -> list[str]:
    with gzip.open(cell_dir / JOURNAL_FILE, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]
