"""The report of a bundle, made again from its records: the same bytes from the same code, else the same numbers.

Other code may draw a page otherwise; then every number that a reader of the bundled page sees has to be in the new one.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from harness.bundle import REPORT_FILE
from harness.differences import Ledger

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?")
_NOT_READ = frozenset({"script", "style"})
_AROUND = 40  # characters of context


def check_report(folder: Path, same_code: bool, ledger: Ledger) -> None:
    from reports.page import page_of

    expected = page_of(folder).encode("utf-8", errors="replace")
    found = (folder / REPORT_FILE).read_bytes()
    ledger.recomputed += 1
    if found == expected:
        return
    if same_code:
        at = next((at for at, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), len(expected))
        ledger.differs(REPORT_FILE, f"byte {at}", _around(expected, at), _around(found, at))
        return
    ours, theirs = _numbers(expected), _numbers(found)
    for number, times in (theirs - ours).items():
        ledger.differs(
            REPORT_FILE, f"the number {number}, in a page made by other code", f"{theirs[number] - times} times",
            f"{theirs[number]} times",
        )  # fmt: skip


def _around(page: bytes, at: int) -> str:
    return repr(page[max(0, at - _AROUND) : at + _AROUND].decode("utf-8", errors="replace"))


def _numbers(page: bytes) -> Counter[str]:
    reader = _Visible()
    reader.feed(page.decode("utf-8", errors="replace"))
    reader.close()
    return Counter(number for text in reader.texts for number in _NUMBER.findall(text))


class _Visible(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _NOT_READ

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in _NOT_READ

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.texts.append(data)
