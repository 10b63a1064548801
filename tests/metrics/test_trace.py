"""The timeline is a file that the viewers take."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.collectors.steps import LANES, OpSpan, trace_events, write_trace


def test_a_timeline_has_a_named_lane_per_unit(tmp_path: Path) -> None:
    ops = [OpSpan("CPU", "attention 3", 0.001, 0.002, 7), OpSpan("GPU", "linear 3", 0.0, 0.0015, 7)]
    write_trace(tmp_path / "trace.json", ops, title="apex on chat", label="emulated")
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert trace["otherData"] == {"label": "emulated"}
    events = trace["traceEvents"]
    assert events[0]["args"] == {"name": "apex on chat (emulated)"}
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    spans = [event for event in events if event["ph"] == "X"]
    assert [names[span["tid"]] for span in spans] == ["GPU", "CPU"]
    assert spans[1]["ts"] == pytest.approx(1000)
    assert spans[1]["dur"] == pytest.approx(1000)
    assert spans[1]["args"] == {"step": 7}


def test_lanes_are_sorted_as_listed() -> None:
    events = trace_events([OpSpan(unit, "op", 0.0, 1.0, 0) for unit in reversed(LANES)])
    order = {event["args"]["sort_index"]: event["tid"] for event in events if event["name"] == "thread_sort_index"}
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert [names[order[index]] for index in sorted(order)] == list(LANES)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="ran on NPU; a timeline has the lanes GPU, CPU, H2D, D2H, DISK"):
        trace_events([OpSpan("NPU", "op", 0.0, 1.0, 0)])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(LANES), st.integers(0, 40), st.integers(0, 9)), max_size=25))
def test_spans_on_one_track_never_overlap(ops: list[tuple[str, int, int]]) -> None:
    spans = [OpSpan(unit, "op", start, start + length, 0) for unit, start, length in ops]
    free_at: dict[int, float] = {}
    events = [event for event in trace_events(spans) if event["ph"] == "X"]
    assert len(events) == len(spans)
    for event in events:
        assert event["ts"] >= free_at.get(event["tid"], 0.0)
        free_at[event["tid"]] = event["ts"] + event["dur"]
