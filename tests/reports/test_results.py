"""The result tables: units, spans, bars, marks, and figures that are withheld."""

from __future__ import annotations

from pathlib import Path

from reports.judgement import judged
from reports.sections import figures
from results.draws import Draws
from results.parity_check import ParityCheck
from results.query import Run
from results.schema import CellSummary, Status
from tests.reports.pages import Element, cell, fragment, rows, run_of

INTERVAL = {"ttft_s_p50": 0.05, "ttft_s_p50_low": 0.04, "ttft_s_p50_high": 0.0625}


def results(run: Run) -> Element:
    return fragment(figures.build(run).body)


def built(out_dir: Path, *cells: CellSummary) -> Element:
    return results(judged(run_of(out_dir, *cells)))


def heads(table: Element) -> list[str]:
    return [head.text for head in table.one("thead").all("th")]


def entry(table: Element, row: int, title: str) -> Element:
    cells = [child for child in table.one("tbody").all("tr")[row].children if isinstance(child, Element)]
    return cells[next(place for place, head in enumerate(heads(table)) if head.startswith(title))]


def without(made: CellSummary, *metrics: str) -> dict[str, float]:
    return {key: value for key, value in made.metrics.items() if key not in metrics}


def test_one_repeat_shows_the_interval_of_a_percentile(tmp_path: Path) -> None:
    table = built(tmp_path, cell(metrics=INTERVAL)).one("table", class_="figures")
    found = entry(table, 0, "TTFT p50")
    assert found.text == "50.0 40.0–62.5"
    assert found.attributes["title"] == "0.05; 95 % interval within one repeat: 0.04 to 0.0625"
    assert entry(table, 0, "Output tokens/s").one("span").text == "213"


def test_several_repeats_show_their_range_instead(tmp_path: Path) -> None:
    cells = [cell(repeat=repeat, metrics=INTERVAL | {"ttft_s_p50": 0.04 + 0.01 * repeat}) for repeat in range(3)]
    page = built(tmp_path, *cells)
    assert entry(page.one("table", class_="figures"), 0, "TTFT p50").text == "50.0 40.0–60.0"
    assert "the lowest and the highest of them" in page.one("p").text


def test_a_simulated_figure_has_its_band(tmp_path: Path) -> None:
    """Around the median of the repeats, as the repeat that has draws is around its own figure."""
    rate = "output_tokens_per_s"
    draws = Draws(("gpu.x", "cpu.y"), {rate: (80.0, 130.0), "requests_per_s": (1.0, 1.0)})
    flat = {"requests_per_s": 1.0}
    cells = [
        cell(repeat=0, metrics={rate: 100.0} | flat, draws=draws),
        cell(repeat=1, metrics={rate: 200.0} | flat),
        cell(repeat=2, metrics={rate: 300.0} | flat),
    ]
    page = built(tmp_path, *cells)
    table = page.one("table", class_="figures")
    assert entry(table, 0, "Output tokens/s").one("small", class_="band").text == "[160–260]"
    assert entry(table, 0, "Requests/s").all("small") == []  # nothing uncertain decides it
    assert "2 machines drawn from the ranges of the 2 constants" in page.one("p").text


def test_without_draws_there_is_no_word_of_bands(tmp_path: Path) -> None:
    assert "brackets" not in built(tmp_path, cell()).one("p").text


def test_equal_repeats_have_no_range_to_write(tmp_path: Path) -> None:
    table = built(tmp_path, cell(repeat=0), cell(repeat=1)).one("table", class_="figures")
    assert entry(table, 0, "Requests/s").text == "1.02"


def test_times_of_one_kind_have_one_unit_on_the_whole_page(tmp_path: Path) -> None:
    slow = {"ttft_s_p50": 0.9, "ttft_s_p99": 45.0}
    page = built(tmp_path, cell(workload="a"), cell(workload="b", metrics=slow))
    for table in page.all("table", class_="figures"):
        assert [head for head in heads(table) if "TTFT" in head] == ["TTFT p50 s, emulated", "TTFT p99 s, emulated"]
        assert "TPOT p50 ms, emulated" in heads(table)


def test_an_empty_column_is_in_milliseconds(tmp_path: Path) -> None:
    made = cell()
    bare = CellSummary.from_json(made.to_json() | {"metrics": without(made, "tpot_s_p50", "tpot_s_p99")})
    table = built(tmp_path, bare).one("table", class_="figures")
    assert {"TPOT p50 ms, emulated", "TPOT p99 ms, emulated"} <= set(heads(table))
    assert entry(table, 0, "TPOT p99").text == "–"


def test_columns_that_few_runs_have_are_shown_where_there_is_something(tmp_path: Path) -> None:
    assert "Saturation/s emulated" not in heads(built(tmp_path, cell()).one("table", class_="figures"))
    found = built(tmp_path, cell(metrics={"saturation_rps": 3.5})).one("table", class_="figures")
    assert entry(found, 0, "Saturation/s").text == "3.50"


def test_bars_of_throughput_start_at_zero(tmp_path: Path) -> None:
    cells = [cell("slow", metrics={"output_tokens_per_s": 50.0}), cell("fast", metrics={"output_tokens_per_s": 200.0})]
    bars = [bar.one("rect").attributes for bar in built(tmp_path, *cells).all("svg", class_="bar")]
    assert [(bar["x"], bar["width"]) for bar in bars] == [("0", "25.00"), ("0", "100.00")]


def test_an_unfair_engine_is_marked_with_the_difference(tmp_path: Path) -> None:
    more = "took 600 KV tokens on the accelerator, the envelope allows 480 (+25 %)"
    page = built(tmp_path, cell("gpu_only"), cell("apex", unfair=(more,)))
    table = page.one("table", class_="figures")
    assert [row[0] for row in rows(table)] == ["gpu_only 1 repeat", "apex unfair 1 repeat"]
    assert entry(table, 1, "Output tokens/s").text.startswith("213")
    assert page.one("p", class_="remark").text == f"unfair apex: {more}"


def test_wrong_tokens_leave_a_reason_and_no_figure(tmp_path: Path) -> None:
    wrong = ParityCheck(4, 160, 0, held=False, note="token 17 of request 3 differs")
    page = built(tmp_path, cell("gpu_only"), cell("apex", repeat=0), cell("apex", repeat=1, parity=wrong))
    row = rows(page.one("table", class_="figures"))[1]
    reason = "invalid its tokens are not the reference's: token 17 of request 3 differs"
    assert row == ["apex 0 of 2 repeats", reason]
    assert len(page.all("svg", class_="bar")) == 1


def test_wrong_tokens_on_one_workload_say_nothing_of_another(tmp_path: Path) -> None:
    wrong = ParityCheck(4, 160, 0, held=False, note="")
    run = judged(run_of(tmp_path, cell(workload="chat", parity=wrong), cell(workload="code")))
    assert [made.status for made in run.cells] == [Status.INVALID, Status.OK]


def test_the_window_says_what_it_is(tmp_path: Path) -> None:
    plateau = {"window_s": 7.248, "window_is_plateau": 1.0}
    mixed = {"window_s": 9.0, "window_is_plateau": 0.0}
    table = built(tmp_path, cell(metrics=plateau), cell(repeat=1, metrics=mixed)).one("table", class_="figures")
    assert entry(table, 0, "Window").text == "8.1 s mixed"


def test_what_is_missing_is_one_line_per_reason(tmp_path: Path) -> None:
    gpu = dict.fromkeys(("gpu_power_w", "gpu_energy_j"), "no NVIDIA driver")
    few = {f"{metric}_p99": "needs 368 independent observations, has 28" for metric in ("ttft_s", "tpot_s")}
    fewer = {"ttft_s_p99": "needs 368 independent observations, has 20", "ttft_s_p90": "needs 36 observations, has 20"}
    page = built(
        tmp_path,
        cell("gpu_only", unavailable=gpu | few),
        cell("apex", unavailable=gpu | fewer | {"overlap_efficiency": "no step kept two units busy"}),
    )
    details = page.one("details", class_="absences")
    assert [line.text for line in details.all("li")] == [
        "p90 needs 36 observations; had 20: TTFT apex on chat",
        "p99 needs 368 independent observations; had 20–28: TTFT, TPOT everywhere",
        "no NVIDIA driver: GPU power, GPU energy everywhere",
        "no step kept two units busy: overlap efficiency apex on chat",
    ]
    assert "open" not in details.attributes


def test_nothing_missing_needs_no_list(tmp_path: Path) -> None:
    assert not built(tmp_path, cell()).all("details", class_="absences")


def test_every_metric_can_be_found(tmp_path: Path) -> None:
    page = built(tmp_path, cell(metrics={"moved_tokens": 7.0}))
    assert ["moved_tokens", "7"] in rows(page.all("table")[1])
