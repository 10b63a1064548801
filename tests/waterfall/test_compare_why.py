"""`harness compare` explains throughputs beyond the threshold, all of them with --why, and writes a page of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.waterfalls import Explained, why_page
from results.store import RunFolder
from results.waterfall import Cause, explain_change
from tests.compare.conftest import change_cells
from tests.harness.conftest import Call, call  # noqa: F401 - a fixture
from tests.reports.pages import fragment, rows
from tests.results.run_folders import HOSTILE, Shape, build
from tests.waterfall.synthetic import write_cell

SHAPE = Shape(engines=("gpu_only",), workloads=("chat",), repeats=5, requests=4, tokens=3, steps=5)
RATE = "output_tokens_per_s"


def run_of(folder: Path, gap_s: float) -> Path:
    """Five cells of two steps of 1 s; between them the loop takes so long."""
    path = build(folder, SHAPE)
    for repeat in range(SHAPE.repeats):
        cell = RunFolder.open(path).cell_path(f"e0-w0-r{repeat}")
        steps = [{"started_s": at, "ended_s": at + 1, "gpu_busy_s": 1.0, "decode_rows": 2} for at in (0.0, 1.0 + gap_s)]
        for table in ("requests.parquet", "steps.parquet"):
            written = write_cell(folder / f"{table}{repeat}", steps, [(0.0, 2.0 + gap_s)], {})
            (written / table).replace(cell / table)
    rate = 4 / (2 + gap_s)
    change_cells(path, lambda cell: cell["metrics"].update({RATE: rate, f"{RATE}_whole_run": rate}))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return run_of(tmp_path / "a", 0.1), run_of(tmp_path / "b", 2.0)


def test_a_regression_is_explained(call: Call, runs: tuple[Path, Path]) -> None:  # noqa: F811
    answer = call("compare", *runs)
    assert answer.code == 1, answer.err
    _, why, largest, *_ = answer.out.splitlines()
    assert why == (
        "why, gpu_only on chat: 1.905 -> 1 tokens/s (whole run, 5 pairs), -0.905, most of it scheduler [emulated]"
    )
    assert largest.split()[:4] == ["scheduler", "-0.905", "tokens/s", "(100"]


def test_what_is_within_the_threshold_only_when_asked(call: Call, runs: tuple[Path, Path]) -> None:  # noqa: F811
    assert "why" not in call("compare", runs[0], runs[0]).out
    assert "why, gpu_only on chat: 1.905 -> 1.905" in call("compare", runs[0], runs[0], "--why").out


def test_json_has_terms_that_add_up(call: Call, runs: tuple[Path, Path]) -> None:  # noqa: F811
    (why,) = json.loads(call("compare", *runs, "--json").out)["why"]
    found = why["waterfall"]
    assert (why["engine"], why["pairs"], found["largest"]) == ("gpu_only", 5, "scheduler")
    assert [term["cause"] for term in found["terms"]] == list(Cause)
    assert sum(term["tokens_per_s"] for term in found["terms"]) == pytest.approx(found["change"], abs=1e-9)


def test_a_page_has_the_figure_its_table_and_the_label(
    call: Call,  # noqa: F811
    runs: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    page = tmp_path / "why.html"
    assert call("compare", *runs, "--why-page", page).code == 1
    text = page.read_text()
    causes, definitions = fragment(text).all("table")
    assert rows(causes)[0][:3] == ["scheduler", "\u22120.905", "100.0 %"]
    assert [row[0] for row in rows(definitions)] == list(Cause)
    assert 'aria-label="gpu_only on chat, emulated: 1.90 to 1 output tokens per second (\u22120.905)' in text
    assert "emulated" in causes.one("caption").text
    assert "--why-page" in fragment(text).one("pre").text


def test_a_page_that_cannot_be_written_is_refused_first(call: Call, runs: tuple[Path, Path]) -> None:  # noqa: F811
    answer = call("compare", *runs, "--why-page", "/nowhere/why.html")
    assert (answer.code, len(answer.errors), answer.out) == (2, 1, "")
    assert "--why-page /nowhere/why.html: no such folder" in answer.errors[0]


def test_names_are_escaped(runs: tuple[Path, Path]) -> None:
    cells = [RunFolder.open(run).cell_path("e0-w0-r0") for run in runs]
    told = {"command": HOSTILE, "date": "", "commit": ""}
    explained = Explained(HOSTILE, HOSTILE, "simulated", 1, explain_change(*cells))
    page = why_page([explained, Explained(HOSTILE, HOSTILE, "simulated", 0, None, HOSTILE)], HOSTILE, HOSTILE, told)
    assert HOSTILE not in page
    assert "Not known: &lt;script&gt;" in page
