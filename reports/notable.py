"""The requests of a cell worth a line of their own: those that did not finish, and the slowest of those that did.

All the others are in the distributions. Requests stream by, so that a cell of any length takes little memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from results.store import iter_requests

# Of the lines of a cell, those kept for requests that did not finish, however many slow ones there are.
UNFINISHED_SHARE = 3


def notable_requests(cell_dir: Path, columns: Sequence[str], most: int) -> list[dict[str, object]]:
    """At most so many rows: first what did not finish, in its order, then by the time to the last token, longest first.

    `columns` must have `status`, `arrival_s` and `last_token_s`.
    """
    unfinished: pa.Table | None = None
    slow: pa.Table | None = None
    for batch in iter_requests(cell_dir, columns):
        rows = pa.Table.from_batches([batch])
        finished = pc.equal(rows["status"], "finished")
        unfinished = _joined(unfinished, rows.filter(pc.invert(finished))).slice(0, most)
        slow = _slowest(_joined(slow, rows.filter(finished)), most)
    if unfinished is None or slow is None:
        return []
    kept = unfinished.slice(0, max(most // UNFINISHED_SHARE, most - slow.num_rows))
    rows_of: list[dict[str, object]] = [*kept.to_pylist(), *slow.slice(0, most - kept.num_rows).to_pylist()]
    return rows_of


def _joined(earlier: pa.Table | None, later: pa.Table) -> pa.Table:
    return later if earlier is None else pa.concat_tables([earlier, later])


def _slowest(rows: pa.Table, most: int) -> pa.Table:
    """Equals keep their order."""
    lasted = pc.subtract(rows["last_token_s"], rows["arrival_s"])
    order = pc.array_sort_indices(lasted.combine_chunks(), order="descending")
    return rows.take(order.slice(0, most))
