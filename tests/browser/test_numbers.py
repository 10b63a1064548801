"""Every number in a table of the report is what the records say, to the last digit that the page shows.

The page is read as a reader sees it, text and unit, and compared with `summary.json`, which is read without this
project's code. Tables of single requests and of ops are not in the summary: the former are compared with the parquet
files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.browser.opened import opened
from tests.browser.shown import Shown, numbers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Every cell with a digit in it, with what says where it is from: the attributes of the cell, its row and its table.
READ = """
Array.from(document.querySelectorAll("main td")).filter(cell => /\\d/.test(cell.textContent)).map(cell => {
  const row = cell.closest("tr"), table = cell.closest("table");
  const head = table.tHead.rows[table.tHead.rows.length - 1].cells[cell.cellIndex];
  return {
    ...table.dataset, ...row.dataset, ...cell.dataset, kind: table.className,
    text: cell.textContent,
    parts: Array.from(cell.querySelectorAll("small"), each => [each.className, each.textContent]),
    lines: cell.innerHTML.split("<br>"),
    main: Array.from(cell.childNodes).filter(node => node.nodeName !== "SMALL").map(node => node.textContent).join(""),
    head: head ? head.textContent : "",
    unit: head?.querySelector("small")?.textContent.split(",")[0] ?? "",
  };
})
"""
Cell = dict[str, Any]
Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def cells(browser: Browser, report: Path) -> list[Cell]:
    with opened(browser, report.as_uri()) as seen:
        found: list[Cell] = seen.page.evaluate(READ)
    assert len(found) > 100, "the page was not read"
    return found


@pytest.fixture(scope="module")
def records(report: Path) -> Records:
    """Of the cells themselves, which are the truth where a run's own summary is older."""
    return [json.loads(path.read_text()) for path in sorted(report.parent.glob("cells/*/summary.json"))]


def test_every_cell_with_a_number_is_of_a_kind_that_is_compared(cells: list[Cell]) -> None:
    compared = {*COMPARED, "sortable"}
    elsewhere = {"ops", "problems", "definitions"}  # an excerpt of a trace; sentences; formulas
    assert {cell["kind"] for cell in cells} - compared - elsewhere == set()


def test_numbers_are_those_of_the_summary(cells: list[Cell], records: Records) -> None:
    seen = 0
    for cell in cells:
        if cell["kind"] in COMPARED:
            pairs = list(COMPARED[cell["kind"]](cell, records))
            assert pairs, f"nothing to compare with: {cell}"
            for shown, exact in pairs:
                assert shown.is_rounded_from(exact), f"{shown} is not {exact}: {cell}"
            seen += len(pairs)
    assert seen > 200


def test_numbers_of_requests_are_those_of_the_files(cells: list[Cell], report: Path) -> None:
    requests = [cell for cell in cells if cell["kind"] == "sortable"]
    files = {cell["cell"] for cell in requests}
    assert files
    rows = {
        name: {
            row["request_id"]: row
            for row in pq.read_table(report.parent / "cells" / name / "requests.parquet").to_pylist()
        }
        for name in files
    }
    number = -1
    for cell in requests:
        if cell["head"] == "Request":
            number = int(cell["text"].replace(",", ""))
        exact = _of_request(cell["head"], rows[cell["cell"]].get(number, {}))
        if exact is not None:
            (shown,) = numbers(cell["text"], "ms" if "(ms)" in cell["head"] else "")
            assert shown.is_rounded_from(exact), f"{shown} is not {exact}: {cell}"


def _of_request(head: str, row: dict[str, Any]) -> float | None:
    spans = {
        "Queue (ms)": ("arrival_s", "first_scheduled_s", 1),
        "TTFT (ms)": ("arrival_s", "first_token_s", 1),
        "TPOT (ms)": ("first_token_s", "last_token_s", row.get("output_tokens", 2) - 1),
        "E2E (ms)": ("arrival_s", "last_token_s", 1),
    }
    if head in spans:
        start, end, parts = spans[head]
        return float((row[end] - row[start]) / parts)
    plain = {"Prompt tokens": "prompt_tokens", "Output tokens": "output_tokens", "Preemptions": "preemptions"}
    return float(row[plain[head]]) if head in plain else None


def _group(cell: Cell, records: Records, *, ok: bool = True) -> Records:
    return [
        record
        for record in records
        if record["engine"] == cell.get("engine", record["engine"])
        and record["workload"] == cell.get("workload", record["workload"])
        and (not ok or record["status"] == "ok")
    ]


def _metric(group: Records, key: str) -> list[float]:
    return [record["metrics"][key] for record in group if key in record["metrics"]]


def _figures(cell: Cell, records: Records) -> Iterator[tuple[Shown, float]]:
    """Median; beneath, the lowest and the highest of the repeats, or one repeat's interval; in brackets, the band."""
    if "metric" not in cell:  # a reason instead of figures
        errors = " ".join(record.get("error") or "" for record in _group(cell, records, ok=False))
        yield from ((shown, numbers(errors)[at].value) for at, shown in enumerate(numbers(cell["text"])))
        return
    group, metric = _group(cell, records), cell["metric"]
    values = _metric(group, metric)
    unit = "s" if metric == "window_s" else cell["unit"]
    yield _only(numbers(cell["main"], unit)), median(values)
    for kind, text in cell["parts"]:
        shown = numbers(text.strip("[]"), unit)
        if not shown:
            assert text in {"whole run", "plateau", "mixed"}
            continue
        low, high = _band(group, metric) if kind == "band" else _span(group, metric)
        yield shown[0], low
        yield shown[-1], high


def _span(group: Records, metric: str) -> tuple[float, float]:
    values = _metric(group, metric)
    if len(values) > 1:
        return min(values), max(values)
    return _metric(group, f"{metric}_low")[0], _metric(group, f"{metric}_high")[0]


def _band(group: Records, metric: str) -> tuple[float, float]:
    """The least and the most of the drawn machines, over the repeat they were drawn for, about the median."""
    record = next(record for record in group if metric in record.get("draws", {}).get("values", {}))
    nominal, drawn = record["metrics"][metric], record["draws"]["values"][metric]
    scale = median(_metric(group, metric)) / nominal
    return min([nominal, *drawn]) * scale, max([nominal, *drawn]) * scale


def _every(cell: Cell, records: Records) -> Iterator[tuple[Shown, float]]:
    values = _metric(_group(cell, records), cell["metric"])
    exact = [median(values), min(values), max(values)]
    shown = numbers(cell["text"])
    yield from zip(shown, exact if len(shown) > 2 else (exact[0], exact[-1]), strict=False)


def _modes(cell: Cell, records: Records) -> Iterator[tuple[Shown, float]]:
    group, keys = _group(cell, records), cell["metric"].split(" ")
    if keys == ["regret_share"]:
        yield from _every(cell, records)
    elif keys[0].startswith("mode_share"):
        for line, key in zip(cell["lines"], keys, strict=True):
            for shown in numbers(line.replace("&nbsp;", " ")):
                yield shown, median(record["metrics"].get(key, 0.0) for record in group)
    else:
        unit = "ms" if "tpot" in keys[0] else ""
        known = [key for key in keys if _metric(group, key)]
        for shown, key in zip(numbers(cell["text"], unit), known, strict=True):
            yield shown, median(_metric(group, key))


def _operators(cell: Cell, records: Records) -> Iterator[tuple[Shown, float]]:
    told = [row for record in _group(cell, records) for row in record["operators"]]

    def total(operator: str, key: str) -> float:
        return float(median(row[key] for row in told if f"{row['operator']}/{row['unit']}" == operator))

    key, operator = cell["key"], cell["operator"]
    if key == "share":
        exact = total(operator, "seconds") / sum(
            total(each, "seconds") for each in {f"{row['operator']}/{row['unit']}" for row in told}
        )
    elif key == "rate":
        exact = total(operator, "bytes") / total(operator, "seconds")
    else:
        exact = total(operator, key)
    yield _only(numbers(cell["text"])), exact


def _took(cell: Cell, records: Records) -> Iterator[tuple[Shown, float]]:
    """What the engines resolved, as a range where their cells differ; of the tokens' check, sums."""
    group = _group(cell, records, ok=False)
    if cell["key"] == "parity":
        checks = [record["parity"] for record in group if record.get("parity", {}).get("held")]
        sums = [sum(check[name] for check in checks) for name in ("checked_tokens", "checked_requests")]
        yield from zip(numbers(cell["text"]), sums, strict=False)
        return
    values = [value for record in group if (value := _inside(record["resolved"], cell["key"])) is not None]
    if all(isinstance(value, int | float) for value in values):
        shown = numbers(cell["text"])
        yield shown[0], min(values)
        yield shown[-1], max(values)
    else:
        assert all(str(value) in cell["text"] or len(set(map(str, values))) > 3 for value in values), cell
        yield Shown("", 0.0, 1.0), 0.0  # text that was compared as such


def _drawn(cell: Cell, records: Records) -> Iterator[tuple[Shown, float]]:
    """Of the repeats, each as its first engine saw it."""
    group = {
        record["repeat"]: record
        for record in reversed(_group(cell, records, ok=False))
        if "workload" in record["resolved"]
    }
    values: list[float] = [
        sum(float(_inside(record["resolved"], key) or 0.0) for key in cell["key"].split(" "))
        for record in group.values()
    ]
    yield numbers(cell["main"])[0], median(values)
    for _, text in cell["parts"]:
        yield numbers(text)[0], min(values)
        yield numbers(text)[-1], max(values)


def _inside(data: Any, key: str) -> Any:
    """`a.b` of nested mappings, whose own keys may have dots."""
    if key in data:
        return data[key]
    for head in data:
        if key.startswith(f"{head}.") and isinstance(data[head], dict):
            return _inside(data[head], key.removeprefix(f"{head}."))
    return None


def _only(shown: Sequence[Shown]) -> Shown:
    assert len(shown) == 1, shown
    return shown[0]


COMPARED: dict[str, Callable[[Cell, Records], Iterator[tuple[Shown, float]]]] = {
    "figures": _figures,
    "every": _every,
    "modes": _modes,
    "operators": _operators,
    "took": _took,
    "drawn": _drawn,
}
