"""What can be known to go wrong before anything runs: workloads that cannot be built, cells that do not fit.

Names, types and options have been checked when the experiment was read (experiment.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec

from harness.errors import ConfigError, UnfitEnvironmentError
from harness.plan import CellSpec, ResolvedBackend

NATIVE_EXTENSION = "engines.apex._cpu"


def require_runnable(cells: Sequence[CellSpec], backend: ResolvedBackend) -> None:
    """ConfigError with one line per problem of any cell; UnfitEnvironmentError where nothing could run at all."""
    require_native(backend)
    require_engines(cells)
    problems = list(dict.fromkeys(_workload_problems(cells))) or list(dict.fromkeys(_cell_problems(cells)))
    if problems:
        raise ConfigError(problems)


def require_native(backend: ResolvedBackend) -> None:
    """UnfitEnvironmentError where a backend with real tensors has no kernels for the host."""
    if backend in ("cpu", "cuda") and find_spec(NATIVE_EXTENSION) is None:
        message = f"backend {backend} needs {NATIVE_EXTENSION}, which is not built; run `make install`"
        raise UnfitEnvironmentError(message)


def require_engines(cells: Iterable[CellSpec]) -> None:
    """UnfitEnvironmentError, in one line, where engines cannot be had on this machine."""
    one_each = {cell.engine.name: cell for cell in cells}
    missing = [line for cell in one_each.values() if (line := _missing(cell))]
    if missing:
        raise UnfitEnvironmentError("; ".join(missing))


def _missing(cell: CellSpec) -> str | None:
    """An engine of its own has the last word in its `problems`, because an option may bring what is missing.

    What else they say is a mistake in the configuration, and worth knowing before anything is installed.
    """
    from engines.registry import is_policy, why_unavailable

    why = why_unavailable(cell.engine.kind)
    if why is None:
        return None
    line = f"engine {cell.engine.name}: {why}"
    if is_policy(cell.engine.kind):
        return line
    from harness.served import served_problems

    problems = served_problems(cell)
    return line if problems == [line] or not (problems or cell.engine.options) else None


def _workload_problems(cells: Sequence[CellSpec]) -> Iterator[str]:
    """Each workload is drawn once: this reads trace files to their end and finds the line that is no request."""
    from workloads import WorkloadError, build

    one_each = {cell.workload.name: cell for cell in reversed(cells)}
    for name, cell in reversed(one_each.items()):
        try:
            build(cell.workload.options, cell.measure.seed)
        except WorkloadError as error:
            for line in str(error).splitlines():
                yield line if line.startswith("workload ") else f"workload {name}: {line}"


def _cell_problems(cells: Sequence[CellSpec]) -> Iterator[str]:
    """A repeat differs from the first in its seed only, and lengths are clipped to what fits, so one is enough."""
    from harness.build import check

    for cell in cells:
        if cell.repeat == 0:
            yield from check(cell)
