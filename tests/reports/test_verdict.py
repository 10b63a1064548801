"""The verdict: when there is one, when it is withheld, and what stands beneath it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from reports.sections import verdict
from results.query import Run
from results.schema import Status
from tests.reports.pages import Element, cell, fragment, run_of

VERDICT = "apex is 31 % faster than gpu_only (95 % interval 27-35 %, 5 pairs)."


def run_with(out_dir: Path, *sentences: str, engines: Sequence[str] = ("gpu_only", "apex"), repeats: int = 5) -> Run:
    run = run_of(out_dir, *(cell(engine, repeat=repeat) for engine in engines for repeat in range(repeats)))
    return dataclasses.replace(run, verdicts=sentences)


def built(run: Run) -> Element:
    return fragment(verdict.build(run, all_clear=False).body)


def test_it_is_shown_with_five_pairs(tmp_path: Path) -> None:
    assert built(run_with(tmp_path, VERDICT)).text == f"{VERDICT} emulated"


def test_it_is_withheld_with_fewer(tmp_path: Path) -> None:
    page = built(run_with(tmp_path, VERDICT, repeats=3))
    assert "3 repeats: figures are shown, a verdict needs at least 5 pairs" in page.text
    assert VERDICT not in page.text


def test_figures_and_bands_of_fewer_are_those_of_the_terminal(tmp_path: Path) -> None:
    told = "apex / gpu_only = 1.3 (1.3-1.3 in 1 pair); no verdict below 5 pairs"
    band = "; 1.10-1.45 times as fast on 4 machines within the catalogue's ranges"
    page = built(run_with(tmp_path, f"{told}{band} [simulated]", repeats=1))
    said = [sentence.text for sentence in page.all("p", class_="verdict")]
    assert said[0] == f"{told}{band} simulated"
    assert said[1].startswith("1 repeat: figures are shown, a verdict needs at least 5 pairs")


def test_sentences_that_compare_nothing_need_no_pairs(tmp_path: Path) -> None:
    left_out = "neo on chat: 1 of 1 cells left out (failed: out of memory)"
    assert left_out in built(run_with(tmp_path, left_out, repeats=1)).text


def test_a_failed_repeat_does_not_count_as_a_pair(tmp_path: Path) -> None:
    run = run_with(tmp_path, VERDICT)
    last = dataclasses.replace(run.cells[-1], status=Status.FAILED)
    page = built(dataclasses.replace(run, cells=(*run.cells[:-1], last)))
    assert "4 repeats: figures are shown" in page.text


def test_one_engine_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    assert "One engine" in built(run_with(tmp_path, engines=("apex",), repeats=2)).text


def test_a_sentence_shows_its_own_label_once(tmp_path: Path) -> None:
    sentences = ("apex is slower (5 pairs) [emulated]", "neo is faster (5 pairs) [simulated, over the whole run]")
    said = [sentence.text for sentence in built(run_with(tmp_path, *sentences)).all("p", class_="verdict")]
    assert said == ["apex is slower (5 pairs) emulated", "neo is faster (5 pairs) (over the whole run) simulated"]


def test_many_sentences_are_a_list(tmp_path: Path) -> None:
    page = built(run_with(tmp_path, *(f"{VERDICT} {number}" for number in range(4))))
    assert len(page.one("ul", class_="verdicts").all("li")) == 4


def test_when_all_went_well_one_line_says_so(tmp_path: Path) -> None:
    page = fragment(verdict.build(run_with(tmp_path), all_clear=True).body)
    assert page.all("p")[-1].text == "Nothing failed: 10 cells ran to the end, and every measured request finished."
