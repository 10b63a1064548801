"""Server-sent events out of bytes that come in pieces of any size, as the standard has them, and stricter in two ways.

A line that is no field of an event is garbage and not a field to ignore: only another protocol has such lines. And an
event has a largest size, so that a line without an end costs no memory.
"""

from __future__ import annotations

from engines.openai.faults import Fault, FaultError

MOST_EVENT_BYTES = 1 << 20
FIELDS_WITHOUT_USE = frozenset(
    {b"", b"event", b"id", b"retry"}
)  # "" is a comment, which servers send to stay connected
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventParser:
    """Of one stream. `feed` gives the data of every event that has become complete."""

    __slots__ = ("_after_cr", "_began", "_data", "_data_bytes", "rest")

    def __init__(self) -> None:
        self.rest = b""  # of a line that has not ended
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False  # a line feed that comes now belongs to it
        self._began = False

    def feed(self, piece: bytes) -> list[bytes]:
        events: list[bytes] = []
        *lines, self.rest = (self.rest + self._with_line_feeds(piece)).split(b"\n")
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data, self._data_bytes = [], 0
        if len(self.rest) > MOST_EVENT_BYTES:
            raise FaultError(Fault.GARBAGE, f"a line of more than {MOST_EVENT_BYTES:,} bytes")
        return events

    def _with_line_feeds(self, piece: bytes) -> bytes:
        """Lines may end in CR LF, LF or CR, and a piece between the two bytes of the first."""
        if not piece:
            return piece
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
            if not piece:
                return piece
        self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in piece else piece

    def _take(self, line: bytes) -> None:
        if not self._began:
            self._began = True
            line = line.removeprefix(BYTE_ORDER_MARK)
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value)
            if self._data_bytes > MOST_EVENT_BYTES:
                raise FaultError(Fault.GARBAGE, f"an event of more than {MOST_EVENT_BYTES:,} bytes")
        elif field not in FIELDS_WITHOUT_USE:
            words = line[:MOST_EVENT_BYTES].decode(errors="replace")
            raise FaultError(Fault.GARBAGE, "a line that is no server-sent event", words)
