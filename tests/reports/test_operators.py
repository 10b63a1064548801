"""The section on operators, and memory over time: what is drawn, what is said, and nothing where nothing is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from markupsafe import Markup

from reports import charts
from reports.drawing import Alt
from reports.evidence import gather
from reports.page import write_report
from reports.sections import occupancy, operators
from reports.values import GAP
from results.memory_use import MemoryUse
from results.operator_rows import OperatorRow
from results.query import Run, load_run
from results.schema import CellSummary, Label
from results.store import RunFolder
from tests.reports.pages import cell, fragment, parse, rows, run_of, section
from tests.results.run_folders import HOSTILE, Shape, build

MATRICES = OperatorRow("output+up+down", "GPU", 120, 3.0, 600 * 2**30)
LINK = OperatorRow("weights over the link", "H2D", 40, 6.0, 60 * 2**30)
ATTENTION = OperatorRow("attention", "CPU", 80, 1.0, 0.0)


def worked(engine: str, *found: OperatorRow, repeat: int = 0) -> CellSummary:
    return cell(engine, repeat=repeat, operators=found)


def test_operators_in_a_table_the_longest_first(tmp_path: Path) -> None:
    built = operators.build(run_of(tmp_path, worked("apex", MATRICES, LINK, ATTENTION), cell("mock")))
    assert built is not None
    table = fragment(built.body).one("table")
    assert rows(table) == [
        ["weights over the link", "to GPU", "40", "6,000 ms", "60.0 %", "60 GiB", "10 GiB/s"],
        ["output+up+down", "GPU", "120", "3,000 ms", "30.0 %", "600 GiB", "200 GiB/s"],
        ["attention", "CPU", "80", "1,000 ms", "10.0 %", "0 B", "–"],
    ]
    assert "emulated" in table.one("caption").text
    assert "mock" not in fragment(built.body).text


def test_repeats_are_medians(tmp_path: Path) -> None:
    cells = [
        worked("apex", dataclasses.replace(LINK, seconds=seconds, ops=ops), repeat=repeat)
        for repeat, (seconds, ops) in enumerate([(1.0, 10), (20.0, 30), (12.0, 20)])
    ]
    built = operators.build(run_of(tmp_path, *cells))
    assert built is not None
    [row] = rows(fragment(built.body).one("table"))
    assert row[2:4] == ["20", "12 s"]


def test_bars_are_relative_to_the_engine_with_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    whole = charts.stacked_bars

    def watched(stacks: Sequence[charts.Stack], alt: Alt) -> Markup:
        drawn.append({stack.title: stack.pieces for stack in stacks})
        return whole(stacks, alt)

    monkeypatch.setattr(charts, "stacked_bars", watched)
    half = dataclasses.replace(LINK, seconds=5.0)
    run = run_of(tmp_path, worked("apex", MATRICES, LINK, ATTENTION), worked("neo", half))
    built = operators.build(run)
    assert built is not None
    weights, matrices, host = map(operators.SORTS.index, ("weights", "matrices, GPU", "attention, host"))
    apex, neo = drawn
    assert apex["time"] == ((matrices, 30.0), (host, 10.0), (weights, 60.0))
    assert neo["time"] == ((weights, 50.0),)
    assert neo["bytes"][0][1] == pytest.approx(100 * 60 / 660)
    assert [key.text for key in fragment(built.body).one("ul", class_="legend").all("li")] == [
        "matrices, GPU",
        "attention, host",
        "weights",
    ]
    pictures = fragment(built.body).all("svg", role="img")
    said = pictures[0].attributes["aria-label"].replace(GAP, " ")
    assert said.startswith("apex on chat, emulated: 10 s of work, 660 GiB; 1 repeat.")
    assert "Longest: weights over the link (to GPU) 6,000 ms, output+up+down (GPU) 3,000 ms and" in said


@pytest.mark.parametrize(
    ("operator", "unit", "sort"),
    [
        ("output+up+down+qkv", "GPU", "matrices, GPU"),
        ("output+up+down+head", "GPU", "matrices, GPU"),
        ("up", "CPU", "matrices, host"),
        ("attention", "GPU", "attention, GPU"),
        ("rows over the link", "GPU", "rows"),
        ("weights from disk", "DISK", "weights"),
        ("KV to disk", "DISK", "KV"),
        (HOSTILE, "GPU", "other"),
    ],
)
def test_every_operator_has_a_colour(operator: str, unit: str, sort: str) -> None:
    assert operators.SORTS[operators.Operator(operator, unit, 1, 1.0, 1.0).sort] == sort


def test_operators_without_time_or_bytes_break_nothing(tmp_path: Path) -> None:
    idle = OperatorRow("head", "GPU", 0, 0.0, 0.0)
    built = operators.build(run_of(tmp_path, worked("apex", idle)))
    assert built is not None
    assert rows(fragment(built.body).one("table")) == [["head", "GPU", "0", "0 ms", "–", "0 B", "–"]]


def test_names_from_a_file_are_escaped(tmp_path: Path) -> None:
    built = operators.build(run_of(tmp_path, worked("apex", dataclasses.replace(LINK, operator=HOSTILE, unit=HOSTILE))))
    assert built is not None
    assert HOSTILE not in built.body
    assert rows(fragment(built.body).one("table"))[0][:2] == [HOSTILE, HOSTILE]


def test_no_operators_no_section(tmp_path: Path) -> None:
    assert operators.build(run_of(tmp_path, cell("gpu_only"))) is None


USE = MemoryUse(
    {"accel": 10 * 2**30, "host": 0, "disk": 0}, {"accel": 2**23, "host": 2**22, "disk": 0}, host_block=2**24
)


def told(out_dir: Path, *engines: str) -> Run:
    """A run in which these engines say what their blocks take."""
    shape = Shape(engines=("gpu_only", "apex"), workloads=("chat",), repeats=2, steps=40)
    folder = RunFolder.open(build(out_dir, shape))
    for cell_id in folder.cell_ids():
        summary = folder.read_cell_summary(cell_id)
        if summary.engine in engines:
            resolved = {**summary.resolved, "memory": USE.to_json()}
            folder.write_cell_summary(dataclasses.replace(summary, resolved=resolved, operators=(MATRICES, LINK)))
    return load_run(folder.path)


def test_memory_over_time_follows_blocks(tmp_path: Path) -> None:
    run = told(tmp_path, "apex")
    timelines = gather(run).timelines
    [first, _] = timelines["apex", "chat"]
    used = first.values["accel_blocks_used"]
    assert used.max() > 0
    assert first.values["accel_bytes"] == pytest.approx(10 * 2**30 + 2**23 * used)
    both = 2**22 * used + 2**24 * first.values["host_blocks_used"]
    assert first.values["host_bytes"] == pytest.approx(both)
    assert "accel_bytes" not in timelines["gpu_only", "chat"][0].values


def test_memory_is_drawn_for_those_who_say_what_it_is(tmp_path: Path) -> None:
    run = told(tmp_path, "apex")
    built = occupancy.build(run, gather(run))
    said = {svg.attributes["aria-label"] for svg in fragment(built.body).all("svg", role="img")}
    [memory] = [each for each in said if each.startswith("Memory, accelerator on chat over time, emulated.")]
    assert "gpu_only" not in memory
    assert "apex 11." in memory
    assert "GiB" in memory
    assert not [each for each in said if each.startswith("Disk")]


def test_the_page_has_both(tmp_path: Path) -> None:
    page = parse(write_report(told(tmp_path, "apex", "gpu_only").folder.path))
    assert len(section(page, "operators").all("table")) == 2
    assert "Memory, accelerator" in section(page, "occupancy").text
    assert Label.EMULATED in section(page, "operators").text
