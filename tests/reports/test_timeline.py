"""The overlap timeline: which steps are shown, how ops are drawn, and what is said beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports import lanes
from reports.evidence import gather
from reports.sections import overlap
from reports.traces import MOST_STEPS, Excerpt, read_excerpt
from results.errors import ResultsError
from results.query import load_run
from tests.reports.pages import Element, fragment, rows
from tests.reports.traces import OpTuple, decode_steps, write_trace
from tests.results.run_folders import Shape, build


def excerpt_of(cell_dir: Path, ops: list[OpTuple]) -> Excerpt:
    write_trace(cell_dir, ops)
    found = read_excerpt(cell_dir)
    assert found is not None
    return found


def drawing(excerpt: Excerpt) -> Element:
    return fragment(lanes.draw(excerpt, "what it says"))


def test_steps_from_the_middle_are_shown(tmp_path: Path) -> None:
    found = excerpt_of(tmp_path, decode_steps(100))
    assert found.steps == (48, 49, 50, 51, 52, 53)
    assert len(found.steps) == MOST_STEPS
    assert found.traced == (1, 100)
    assert list(found.lanes.values()) == ["GPU"]


def test_steps_of_many_ops_are_fewer(tmp_path: Path) -> None:
    assert len(excerpt_of(tmp_path, decode_steps(20, layers=32)).steps) == 3


def test_steps_in_which_more_units_work_are_preferred(tmp_path: Path) -> None:
    ops = decode_steps(100)
    found = excerpt_of(tmp_path, [*ops, ("H2D", "move", 70, 0.76, 0.763), ("CPU", "host_attention 1", 71, 0.77, 0.775)])
    assert {70, 71} <= set(found.steps)
    assert list(found.lanes.values()) == ["GPU", "CPU", "H2D"]


def test_a_step_that_dwarfs_the_others_is_avoided(tmp_path: Path) -> None:
    ops = [("GPU", "between 0", step, float(step), step + (0.9 if step == 50 else 0.01)) for step in range(1, 101)]
    assert 50 not in excerpt_of(tmp_path, ops).steps


def test_a_short_trace_is_shown_whole(tmp_path: Path) -> None:
    assert excerpt_of(tmp_path, decode_steps(2)).steps == (1, 2)


def test_no_trace_no_timeline(tmp_path: Path) -> None:
    assert read_excerpt(tmp_path) is None
    write_trace(tmp_path, [])
    assert read_excerpt(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"traceEvents": 3}'])
def test_a_trace_that_cannot_be_read_says_why(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.json").write_text(text)
    with pytest.raises(ResultsError, match=r"trace\.json: "):
        read_excerpt(tmp_path)


def test_events_of_other_shapes_are_passed_over(tmp_path: Path) -> None:
    strange = [3, {}, {"ph": "X"}, {"ph": "X", "tid": 0, "ts": "now", "dur": 1, "args": {"step": 1}}, {"ph": "M"}]
    good = {"ph": "X", "tid": 0, "ts": 5, "dur": 2, "name": "first 0", "args": {"step": 1}}
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": [*strange, good]}))
    found = read_excerpt(tmp_path)
    assert found is not None
    assert [op.name for op in found.ops] == ["first 0"]
    assert found.lanes == {0: "0"}


def test_every_op_is_a_block_with_its_name(tmp_path: Path) -> None:
    found = excerpt_of(tmp_path, [("GPU", "first 0", 1, 0.0, 0.75), ("CPU", "host_attention 0", 1, 0.5, 1.0)])
    blocks = drawing(found).all("rect")
    assert [block.one("title").text for block in blocks] == [
        "first 0, step 1: 750 ms",
        "host_attention 0, step 1: 500 ms",
    ]
    assert [(block.attributes["x"], block.attributes["class"]) for block in blocks] == [
        ("0.0", "op0"),
        ("500.0", "op2"),
    ]
    assert blocks[0].attributes["y"] != blocks[1].attributes["y"]
    assert drawing(found).one("svg").attributes["aria-label"] == "what it says"


def test_ops_too_narrow_to_see_are_drawn_together(tmp_path: Path) -> None:
    tiny = [("GPU", f"attention {layer}", 1, layer * 1e-6, (layer + 1) * 1e-6) for layer in range(500)]
    found = excerpt_of(tmp_path, [*tiny, ("GPU", "last 0", 1, 0.01, 1.0)])
    blocks = drawing(found).all("rect")
    assert len(blocks) == 2
    assert blocks[0].one("title").text.startswith("500 ops, attention 0 to attention 499: 500 µs")
    assert float(blocks[0].attributes["width"]) > 0


def test_instants_do_not_break_the_axis(tmp_path: Path) -> None:
    found = excerpt_of(tmp_path, [("GPU", "first 0", 1, 1.0, 1.0)])
    assert [mark.text for mark in lanes.time_marks(found)] == ["0 s"]
    assert len(drawing(found).all("rect")) == 1


def test_times_are_round_and_steps_have_room(tmp_path: Path) -> None:
    found = excerpt_of(tmp_path, decode_steps(6))
    times = [mark.text.replace("\u00a0", " ") for mark in lanes.time_marks(found)]
    assert times == ["0", "20 ms", "40 ms"]
    assert [mark.text for mark in lanes.step_marks(found)] == ["1", "2", "3", "4", "5", "6"]
    crowded = excerpt_of(tmp_path, [("GPU", "last 0", step, step / 100, step / 100 + 0.01) for step in (1, 2, 3, 90)])
    assert [mark.text for mark in lanes.step_marks(crowded)] == ["1", "", "", "90"]


def test_the_section_names_steps_lanes_and_ops(tmp_path: Path) -> None:
    path = build(tmp_path, Shape(engines=("gpu_only", "apex"), workloads=("chat",), repeats=2, requests=4, steps=4))
    write_trace(path / "cells" / "e0-w0-r0", decode_steps(40))
    move: OpTuple = ("D2H", "move", 20, 0.209, 0.2205)
    write_trace(path / "cells" / "e1-w0-r0", [*decode_steps(40), move])
    run = load_run(path)
    page = fragment(overlap.build(run, gather(run)).body)
    figure = page.one("figure")
    assert [entry.text for entry in figure.one("ul", class_="legend").all("li")] == [
        "linear layers",
        "attention",
        "over the link",
    ]
    assert [svg.attributes["aria-label"] for svg in figure.all("svg")] == [
        "gpu_only on chat, emulated: steps 18–23, 65.0\u00a0ms. Busy: GPU 92\u00a0%.",
        "apex on chat, emulated: steps 18–23, 65.0\u00a0ms. Busy: GPU 92\u00a0% and D2H 18\u00a0%.",
    ]
    assert ["move", "D2H", "1", "11.5 ms", "11.5 ms"] in rows(figure.all("table")[1])
    assert "steps 18–23 of repeat 0, 65.0 ms. The trace has steps 1–40." in figure.text
    assert "opens in Perfetto" in page.text


def test_without_traces_the_section_says_so(tmp_path: Path) -> None:
    run = load_run(build(tmp_path, Shape(engines=("apex",), workloads=("chat",), repeats=1, requests=4, steps=4)))
    assert fragment(overlap.build(run, gather(run)).body).text == "No trace was recorded."
