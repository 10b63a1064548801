"""The far end of `harness bench attention`: one kernel in a Python of its own. Standard library only, as host.py is.

    python -P turns.py WORKER.py

JSON lines on stdin, one answer each on stdout; whatever else is printed goes to stderr. {"query_heads": ..., "cores":
...} lays a shape out, {"run": true} reads it once and is answered with the seconds. WORKER.py defines
`laid_out(order)`, which returns what to run, or None where it has no kernel for the order.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from typing import Any


def main(path: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    laid_out: Callable[[dict[str, Any]], Callable[[], None] | None] = runpy.run_path(path)["laid_out"]
    run: Callable[[], None] | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if "run" not in order:
            os.sched_setaffinity(0, order["cores"])
            run = laid_out(order)
            answer: dict[str, Any] = {"can": run is not None}
        elif run is None:
            raise SystemExit("run before a shape was laid out")
        else:
            begun_s = time.perf_counter()
            run()
            answer = {"seconds": time.perf_counter() - begun_s}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
