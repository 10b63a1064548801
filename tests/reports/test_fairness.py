"""Fairness: the sentence that opens it, what engines took, what they were asked, and the instrument."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from reports.sections import fairness, verdict
from results.parity_check import ParityCheck
from results.schema import CellSummary, Label
from tests.reports.pages import Element, cell, fragment, rows, run_of

MORE_KV = "took 600 KV tokens on the accelerator, the envelope allows 480 (+25 %)"
MORE_THREADS = "took 8 CPU threads, the envelope allows 7 (+14 %)"

RESOLVED = {"accel_kv_tokens": 480, "host_kv_tokens": 0, "cpu_threads": 7, "dtype": "float32"}
DRAWN = {
    "requests": 32,
    **{f"{kind}_tokens_{name}": 10.0 for kind in ("prompt", "output") for name in ("mean", "p50", "p90", "p99")},
    "requests_per_s": 3.4961,
    "arrival_cv": 0.99,
}
CLIPPED = {"limit_tokens": 481, "clipped_requests": 1, "prompt_tokens_cut": 135, "output_tokens_cut": 5}


def built(out_dir: Path, *cells: CellSummary) -> Element:
    return fragment(fairness.build(run_of(out_dir, *cells)).body)


def lead(page: Element) -> str:
    return page.one("p", class_="lead").text


def test_it_opens_with_one_sentence(tmp_path: Path) -> None:
    page = built(tmp_path, cell("gpu_only"), cell("apex"))
    assert lead(page) == "Every engine took what the envelope allows."
    first = next(element for element in page.everything() if element.tag == "p")
    assert first.text == lead(page)


def test_engines_that_took_more_are_named_with_the_difference(tmp_path: Path) -> None:
    page = built(
        tmp_path,
        cell("gpu_only"),
        cell("neo", workload="chat", unfair=(MORE_THREADS,)),
        cell("neo", workload="code", unfair=(MORE_THREADS, MORE_KV)),
    )
    assert lead(page) == "neo went beyond the envelope that all were given."
    said = [line.text for line in page.all("ul", class_="notes")[0].all("li")]
    assert said == [f"neo: {MORE_THREADS}", f"neo: {MORE_KV} on code"]


def test_the_verdict_warns_of_unfair_engines(tmp_path: Path) -> None:
    run = run_of(tmp_path, cell("gpu_only"), cell("neo", unfair=(MORE_KV,)))
    assert "neo took more than the envelope allows" in fragment(verdict.build(run, all_clear=True).body).text


def test_an_engine_that_says_nothing_is_named(tmp_path: Path) -> None:
    page = built(tmp_path, cell("gpu_only"), cell("vllm", resolved={}))
    assert lead(page) == "Every engine that reported took what the envelope allows. vllm reported nothing."


def test_when_none_reports_the_sentence_claims_nothing(tmp_path: Path) -> None:
    assert lead(built(tmp_path, cell(resolved={}))) == "No engine reported what it took."


def test_only_rows_that_differ_stay_open(tmp_path: Path) -> None:
    page = built(tmp_path, cell("gpu_only", resolved=RESOLVED), cell("apex", resolved=RESOLVED | {"host_kv_tokens": 9}))
    different, alike = page.all("table", class_="took")
    assert rows(different) == [["KV tokens, host", "0", "9"]]
    assert [row[0] for row in rows(alike)] == ["KV tokens, accelerator", "CPU threads", "Data type"]
    assert page.one("details").one("table") is alike
    assert page.one("summary").text == "3 properties the same for every engine"


def test_keys_have_readable_names_and_stay_at_hand(tmp_path: Path) -> None:
    page = built(tmp_path, cell(resolved={"some": {"odd_key_bytes": 2048}}))
    head = page.one("table", class_="took").one("tbody").one("th")
    assert (head.text, head.attributes["title"]) == ("Some, odd key", "some.odd_key_bytes")
    budget = {term.text: term.attributes["title"] for term in page.all("dt")}
    assert budget["Accelerator memory"] == "accel_memory_bytes"


def test_the_envelope_is_written_in_bytes(tmp_path: Path) -> None:
    run = run_of(tmp_path, cell(), config={"budget": {"accel_memory": 15_676_630_630, "host_memory": "auto"}})
    page = fragment(fairness.build(run).body)
    assert [value.text for value in page.all("dd")] == ["14.6 GiB", "auto"]


def test_parity_is_counted_per_engine(tmp_path: Path) -> None:
    held = ParityCheck(4, 160, 1, held=True, note="160 tokens of 4 requests")
    page = built(
        tmp_path,
        cell("gpu_only", repeat=0, parity=held),
        cell("gpu_only", repeat=1, parity=held),
        cell("neo", parity=ParityCheck(note="not checked: 3 of 9 GiB of memory are free")),
        cell("apex", parity=ParityCheck(4, 9, 0, held=False, note="request 7 differs at token 3")),
    )
    assert rows(page.all("table", class_="took")[0])[:3] == [
        ["Tokens against the reference", "right", "not checked", "wrong"],
        ["Tokens checked", "320 of 8 requests", "", ""],
        ["Near-ties excused", "2", "", ""],
    ]
    assert "Tokens were not checked: 3 of 9 GiB of memory are free" in page.all("p", class_="aside")[0].text


def test_workloads_have_a_table_of_their_own(tmp_path: Path) -> None:
    resolved = RESOLVED | {"workload": DRAWN, "clipped": CLIPPED}
    again = resolved | {"workload": DRAWN | {"prompt_tokens_mean": 12.0}, "clipped": CLIPPED | {"clipped_requests": 3}}
    page = built(
        tmp_path,
        cell("gpu_only", resolved=resolved),
        cell("apex", resolved=resolved),
        cell("gpu_only", repeat=1, resolved=again),
        cell("apex", repeat=1, resolved=again),
    )
    row = rows(page.one("table", class_="drawn"))[0]
    assert row == ["chat", "32", "11 10–12", *["10"] * 7, "3.50", "0.990", "2 1–3", "140"]
    assert "clipped to 481 tokens" in page.text
    assert not any("workload" in name[0] or "lipped" in name[0] for name in rows(page.all("table", class_="took")[-1]))
    assert not page.all("p", class_="warning")


def test_a_workload_without_a_rate_has_a_dash(tmp_path: Path) -> None:
    drawn = DRAWN | {"requests_per_s": None, "arrival_cv": None}
    page = built(tmp_path, cell(resolved={"workload": drawn, "clipped": None}))
    assert rows(page.one("table", class_="drawn"))[0][-3:] == ["–", "–", "–"]


def test_engines_that_got_different_requests_are_warned_of(tmp_path: Path) -> None:
    other = {"workload": DRAWN | {"output_tokens_mean": 3.0}}
    page = built(tmp_path, cell("gpu_only", resolved={"workload": DRAWN}), cell("apex", resolved=other))
    assert page.one("p", class_="warning").text == "The engines did not get the same requests on chat."


def test_a_searched_rate_may_differ(tmp_path: Path) -> None:
    found = [
        {"workload": DRAWN | {"requests_per_s": rate}, "saturation": {"bound_by": "ttft_s"}} for rate in (1.0, 2.0)
    ]
    page = built(tmp_path, cell("gpu_only", resolved=found[0]), cell("apex", resolved=found[1]))
    assert not page.all("p", class_="warning")


def test_notes_alike_share_a_line_and_known_ones_are_not_repeated(tmp_path: Path) -> None:
    window = "window_kind: plateau, window_s: 7.248 (first to last arrival of the measured requests)"
    page = built(
        tmp_path,
        cell("gpu_only", notes=("3 of 40 pages were late", window), metrics={"window_s": 7.248}),
        cell("apex", notes=("5 of 40 pages were late",)),
    )
    said = [line.text for line in page.one("ul", class_="notes").all("li")]
    assert said == ["3 of 40 pages were late (and 1 like it, with other numbers) everywhere"]


def test_many_notes_are_folded(tmp_path: Path) -> None:
    page = built(tmp_path, cell(notes=tuple(f"something about {word}" for word in "abcde")))
    assert page.all("details")[-1].one("summary").text == "5 notes"


def test_the_instrument_says_what_it_cost(tmp_path: Path) -> None:
    metrics = {"sampler_cost_share": 0.0074, "scheduler_share": 0.0022, "driver_ttft_error_s_p99": 0.00031}
    late = {"dispatch_delay_s_p50": 0.0105, "dispatch_delay_s_max": 0.109}
    said = built(tmp_path, cell(metrics=metrics | late)).all("p")[-1].text
    assert "Watching the machine took 0.74 % of one core at most, which keeps the aim of less than 1 %." in said
    assert "deciding what to do next took at most 0.22 % in apex." in said
    assert "Requests were handed over at most 109 ms after they were due, 10.5 ms in the median" in said
    assert "own error, against a mock engine of known latency: TTFT error p99 310 µs." in said


def test_the_calibration_of_the_manifest_is_its_sentence(tmp_path: Path) -> None:
    driver = {"valid": True, "note": "driver error at 50 requests/s: TTFT p99 0.30 ms"}
    page = fragment(fairness.build(run_of(tmp_path, cell(), machine={"driver_calibration": driver})).body)
    assert page.all("p")[-1].text == "Driver error at 50 requests/s: TTFT p99 0.30 ms."
    assert not page.all("p", class_="warning")


def test_a_doubtful_clock_is_warned_of_unless_it_is_virtual(tmp_path: Path) -> None:
    machine = {
        "driver_calibration": {"valid": False, "note": "driver error: TTFT p99 9 ms"},
        "load_warning": "the machine is busy",
    }
    run = run_of(tmp_path, cell(), machine=machine)
    said = [doubt.text for doubt in fragment(fairness.build(run).body).all("p", class_="warning")]
    assert said == ["The machine is busy.", "Driver error: TTFT p99 9 ms."]
    virtual = dataclasses.replace(run, cells=(cell(label=Label.SIMULATED),))
    assert not fragment(fairness.build(virtual).body).all("p", class_="warning")


def test_of_many_engines_the_extremes_are_named(tmp_path: Path) -> None:
    shares = {"gpu_only": 0.001, "neo": 0.003, "apex": 0.002}
    page = built(tmp_path, *(cell(engine, metrics={"scheduler_share": share}) for engine, share in shares.items()))
    assert "took at most 0.10 % in gpu_only to 0.30 % in neo." in page.text


def test_an_instrument_that_costs_too_much_says_so(tmp_path: Path) -> None:
    assert "which misses the aim" in built(tmp_path, cell(metrics={"sampler_cost_share": 0.02})).text


def test_without_its_figures_there_is_no_instrument(tmp_path: Path) -> None:
    assert "The instrument" not in built(tmp_path, cell()).text
