"""Requests as columns: a sequence like any other, in a sixth of the memory. A workload of a million is held once and
read a request at a time, so that only those in flight are objects.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from workloads.types import Request

CODES = {"int": "q", "float": "d"}


class PackedRequests(Sequence[Request]):
    """Of any source, which is read once. What comes out is equal to what went in, and not the same objects."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._columns = {field.name: array(CODES[str(field.type)]) for field in fields(Request)}
        columns = [(name, column.append) for name, column in self._columns.items()]
        for request in requests:
            for name, append in columns:
                append(getattr(request, name))

    def column(self, name: str) -> npt.NDArray[Any]:
        """Of a field, without making a request for each value."""
        return np.array(self._columns[name])

    def __len__(self) -> int:
        return len(self._columns["request_id"])

    @overload
    def __getitem__(self, place: int) -> Request: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Request, ...]: ...
    def __getitem__(self, place: int | slice) -> Request | tuple[Request, ...]:
        if isinstance(place, slice):
            return tuple([self._at(each) for each in range(*place.indices(len(self)))])
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self._at(place)

    def __iter__(self) -> Iterator[Request]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple([column.tobytes() for column in self._columns.values()]))

    def __repr__(self) -> str:
        return f"<{len(self)} requests>"

    def _at(self, place: int) -> Request:
        return Request(*[column[place] for column in self._columns.values()])
