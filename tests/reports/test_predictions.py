"""Predicted against observed step times: counted in bounded memory, drawn with the line on which they agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.evidence import gather
from reports.predictions import MOST_POINTS, Predictions
from reports.sections import accuracy
from results.query import load_run
from results.store import StepWriter
from tests.reports.pages import Element, fragment
from tests.results.run_folders import Shape, build, step_columns

ONE = Shape(engines=("apex",), workloads=("chat",), repeats=1, requests=4, steps=30)


def write_steps(cell_dir: Path, observed_s: object, predicted_s: object, count: int) -> None:
    columns = step_columns(np.random.default_rng(0), Shape(steps=count), "apex", 1.0)
    started = np.arange(float(count))
    with StepWriter(cell_dir) as writer:
        writer.append_columns(
            columns | {"started_s": started, "ended_s": started + np.asarray(observed_s), "predicted_s": predicted_s}
        )


def read(cell_dir: Path) -> Predictions:
    seen = Predictions()
    seen.add_cell(cell_dir)
    return seen


def page_of(path: Path) -> Element:
    run = load_run(path)
    return fragment(accuracy.build(run, gather(run)).body)


def test_the_median_error_is_of_the_steps_with_a_prediction(tmp_path: Path) -> None:
    write_steps(tmp_path, [0.1, 0.1, 0.1, 0.1], [0.11, 0.12, 0.05, None], 4)
    seen = read(tmp_path)
    assert (seen.steps, seen.predicted) == (4, 3)
    assert seen.median_error == pytest.approx(0.2, rel=0.006)


def test_points_stand_for_their_steps(tmp_path: Path) -> None:
    write_steps(tmp_path, [0.1, 0.1, 0.2], [0.1, 0.1, 0.4], 3)
    points = read(tmp_path).points()
    assert points.observed_s == pytest.approx([0.1, 0.2], rel=0.02)
    assert points.predicted_s == pytest.approx([0.1, 0.4], rel=0.02)
    assert points.steps.tolist() == [2, 1]


def test_a_cloud_is_thinned_to_what_can_be_drawn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    write_steps(tmp_path, random.lognormal(-3, 1, 5000), random.lognormal(-3, 1, 5000), 5000)
    points = read(tmp_path).points()
    assert 20 < len(points.steps) <= MOST_POINTS
    assert points.steps.sum() == 5000


def test_steps_without_length_or_sense_are_left_out(tmp_path: Path) -> None:
    write_steps(tmp_path, [0.0, 0.1, 0.1], [0.1, np.inf, 0.0], 3)
    assert read(tmp_path).predicted == 1


def test_the_figure_says_its_error(tmp_path: Path) -> None:
    page = page_of(build(tmp_path, ONE))
    drawing = page.one("svg", role="img")
    assert drawing.attributes["aria-label"] == (
        "apex on chat, emulated: predicted against observed time of 30 steps, median error 4.0\u00a0%."
    )
    assert page.one("small").text == "median error 4.0 %, 30 steps"
    assert {"observed, ms", "predicted, ms"} <= {text.text for text in drawing.all("text")}


def test_what_was_never_predicted_is_said(tmp_path: Path) -> None:
    path = build(tmp_path, ONE)
    write_steps(path / "cells" / "e0-w0-r0", np.full(5, 0.1), [None] * 5, 5)
    assert page_of(path).text == "Nothing was predicted."


def test_an_engine_without_predictions_is_named_beside_one_with(tmp_path: Path) -> None:
    path = build(tmp_path, Shape(engines=("gpu_only", "apex"), workloads=("chat",), repeats=1, requests=4, steps=5))
    write_steps(path / "cells" / "e0-w0-r0", np.full(5, 0.1), [None] * 5, 5)
    page = page_of(path)
    assert len(page.all("svg", role="img")) == 1
    assert "Nothing was predicted by gpu_only." in page.text


@pytest.mark.parametrize(("share", "text"), [(None, "unknown"), (4e-14, "under 0.1 %"), (0.0395, "4.0 %")])
def test_errors_are_written_in_percent(share: float | None, text: str) -> None:
    assert accuracy.error_text(share).replace("\u00a0", " ") == text
