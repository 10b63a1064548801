"""Readers for request traces that users bring: arrival time, prompt tokens and output tokens, a line at a time.

Formats: `azure` (Azure LLM inference trace CSV), `burstgpt` (BurstGPT CSV), `mooncake` (Mooncake JSONL; its hash_ids,
which say what prompts share, are not used) and `jsonl` (ours). Not a cleaner: a line that does not fit is an error
with its number. The one exception is what BurstGPT documents: a request without response tokens failed; it is left
out and counted.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from workloads.options import shown
from workloads.types import MAX_TOKENS, WorkloadError

MAX_LINE_BYTES = 1 << 20  # a file without line ends must not be read into memory whole


@dataclass(frozen=True, slots=True)
class TraceLine:
    arrival_s: float  # on the trace's own clock
    prompt_tokens: int
    output_tokens: int


Parse = Callable[[str], TraceLine | None]  # None: a failed request, left out; ValueError: a bad line


@dataclass(frozen=True, slots=True)
class Format:
    """`keys` are the columns of a CSV header, or the keys of a JSON object, that tell this format from the others."""

    keys: tuple[str, ...]
    is_csv: bool
    expected: str
    parser: Callable[[list[str]], Parse]  # from the header's columns


def _azure(header: list[str]) -> Parse:
    columns = [header.index(name) for name in FORMATS["azure"].keys]
    origin: datetime | None = None

    def parse(line: str) -> TraceLine:
        nonlocal origin
        time, prompt, output = _cells(line, columns)
        arrival = datetime.fromisoformat(time)
        # Counted from the first line: microseconds since 1970 do not fit a float to the last digit.
        origin = origin or arrival
        return TraceLine((arrival - origin).total_seconds(), _tokens(prompt), _tokens(output))

    return parse


def _burstgpt(header: list[str]) -> Parse:
    columns = [header.index(name) for name in FORMATS["burstgpt"].keys]

    def parse(line: str) -> TraceLine | None:
        time, prompt, output = _cells(line, columns)
        if output == "0":
            return None
        return TraceLine(_seconds(float(time)), _tokens(prompt), _tokens(output))

    return parse


def _mooncake(_: list[str]) -> Parse:
    return lambda line: _json_line(line, FORMATS["mooncake"].keys, 1e-3)


def _jsonl(_: list[str]) -> Parse:
    return lambda line: _json_line(line, FORMATS["jsonl"].keys, 1.0)


FORMATS: Mapping[str, Format] = {
    "azure": Format(
        ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        True,
        "TIMESTAMP,ContextTokens,GeneratedTokens such as 2023-11-16 18:17:03.9799600,4808,10",
        _azure,
    ),
    "burstgpt": Format(
        ("Timestamp", "Request tokens", "Response tokens"),
        True,
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type such as 5,ChatGPT,472,18,490,API log",
        _burstgpt,
    ),
    "mooncake": Format(
        ("timestamp", "input_length", "output_length"),
        False,
        '{"timestamp": milliseconds, "input_length": 6758, "output_length": 500, ...}',
        _mooncake,
    ),
    "jsonl": Format(
        ("arrival_s", "prompt_tokens", "output_tokens"),
        False,
        '{"arrival_s": 0.5, "prompt_tokens": 100, "output_tokens": 20}',
        _jsonl,
    ),
}
FORMAT_NAMES = ("auto", *FORMATS)


class TraceReader:
    """The requests of one file, in the file's order; memory does not grow with the file."""

    def __init__(self, path: str | Path, format: str = "auto") -> None:
        self.path = Path(path)
        self.format = format
        self.left_out = 0

    def __iter__(self) -> Generator[TraceLine, None, None]:
        """Read from the start; `format` then says what was found, `left_out` how many failed requests were skipped."""
        self.left_out = 0
        parse: Parse | None = None
        for number, text in _numbered_lines(self.path):
            if parse is None:
                parse = self._parser(number, text)
                if FORMATS[self.format].is_csv:
                    continue
            line = self._parsed(parse, number, text)
            if line is None:
                self.left_out += 1
            else:
                yield line
        if parse is None:
            raise WorkloadError(f"{self.path} is empty; expected {self._expected()}")

    def _parser(self, number: int, first: str) -> Parse:
        if self.format == "auto":
            self.format = self._detected(number, first)
        found = FORMATS[self.format]
        header = _header(first)
        if found.is_csv and not set(found.keys) <= set(header):
            raise self._bad(number, f"no {self.format} header: {shown(first)}")
        return found.parser(header)

    def _detected(self, number: int, first: str) -> str:
        keys = _json_keys(first) if first.lstrip().startswith("{") else set(_header(first))
        for name, candidate in FORMATS.items():
            if set(candidate.keys) <= keys:
                return name
        raise self._bad(number, f"not a known trace format: {shown(first)}")

    def _parsed(self, parse: Parse, number: int, text: str) -> TraceLine | None:
        try:
            return parse(text)
        # TypeError: times with and without a zone; RecursionError: nested JSON; both are the line's fault.
        except (ValueError, TypeError, OverflowError, RecursionError, csv.Error) as error:
            raise self._bad(number, f"{_one_line(error)} in {shown(text)}") from error

    def _bad(self, number: int, what: str) -> WorkloadError:
        return WorkloadError(f"{self.path}:{number}: {what}; expected {self._expected()}")

    def _expected(self) -> str:
        if self.format in FORMATS:
            return FORMATS[self.format].expected
        return "one of " + " | ".join(f"{name}: {found.expected}" for name, found in FORMATS.items())


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, decoded, numbered from 1."""
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise WorkloadError(f"{path}:{number}: line longer than {MAX_LINE_BYTES} bytes; is this a trace?")
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise WorkloadError(f"{path}:{number}: not UTF-8 text; save the trace as UTF-8") from error
                if text:
                    yield number, text
    except OSError as error:
        raise WorkloadError(f"trace {path} cannot be read: {error.strerror or error}") from error


def _header(first: str) -> list[str]:
    try:
        return [column.strip() for column in next(csv.reader([first]))]
    except csv.Error:
        return []


def _json_keys(first: str) -> set[str]:
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):
        return set()
    return set(found) if isinstance(found, dict) else set()


def _cells(line: str, columns: list[int]) -> list[str]:
    row = next(csv.reader([line]))
    if len(row) <= max(columns):
        raise ValueError(f"only {len(row)} columns")
    return [row[column].strip() for column in columns]


def _json_line(line: str, keys: tuple[str, ...], seconds_per_unit: float) -> TraceLine:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    for key in keys:
        if isinstance(found.get(key), bool) or not isinstance(found.get(key), (int, float)):
            raise ValueError(f"{key} is missing or not a number")
    time, prompt, output = (found[key] for key in keys)
    return TraceLine(_seconds(time * seconds_per_unit), _tokens(prompt), _tokens(output))


def _seconds(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError("arrival time is negative or not finite")
    return value


def _tokens(value: object) -> int:
    """A count of tokens, from a CSV cell or a JSON number."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int):
        raise ValueError(f"token count {shown(value)} is not a whole number")
    if not 1 <= value <= MAX_TOKENS:
        raise ValueError(f"token count {shown(value)} is not in 1..{MAX_TOKENS}")
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
