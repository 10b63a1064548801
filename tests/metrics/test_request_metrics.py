"""Every formula on requests against figures worked out by hand."""

from dataclasses import make_dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.metrics import aggregate
from harness.request_columns import Requests, meets_slo, per_request, tokens_on_time
from tests.metrics.cells import random_cell, request


def test_the_times_of_one_request() -> None:
    # asked at 1, tokens at 2, 2.5, 4, 4.5: TTFT 1, TPOT 2.5 / 3, largest gap 1.5
    values = per_request(Requests.of([request(0, 1.0, [2.0, 2.5, 4.0, 4.5], preempted_s=0.25)]))
    assert values["ttft_s"] == pytest.approx([1.0])
    assert values["tpot_s"] == pytest.approx([2.5 / 3])
    assert values["max_stall_s"] == pytest.approx([1.5])
    assert values["e2e_s"] == pytest.approx([3.5])
    assert values["normalized_latency_s_per_token"] == pytest.approx([3.5 / 4])
    assert values["queue_s"] == pytest.approx([0.5])
    assert values["preempted_s"] == pytest.approx([0.25])
    assert values["dispatch_delay_s"] == pytest.approx([0.01])


def test_an_answer_of_one_token_has_no_pace_and_no_stall() -> None:
    metrics = aggregate([request(0, 0.0, [1.0])]).metrics
    assert metrics["ttft_s_mean"] == 1.0
    assert not [key for key in metrics if key.startswith(("tpot_s", "itl_s", "max_stall_s"))]


def test_gaps_are_pooled_within_requests_only() -> None:
    metrics = aggregate(
        [request(0, 0.0, [1.0, 2.0]), request(1, 0.0, [10.0]), request(2, 0.0, [1.0, 1.5, 4.5])]
    ).metrics
    assert metrics["itl_s_mean"] == pytest.approx((1.0 + 0.5 + 3.0) / 3)
    assert metrics["itl_s_max"] == 3.0
    assert metrics["max_stall_s_mean"] == pytest.approx((1.0 + 3.0) / 2)


def test_percentiles_interpolate_and_carry_order_statistics() -> None:
    # TTFT 1..40: p50 = 20.5 between ranks 14 and 27 (binomial 40, 1/2), p90 = 36.1; p95 would need 72 requests
    measured = aggregate([request(i, 0.0, [float(i + 1)]) for i in range(40)])
    metrics = measured.metrics
    assert (metrics["ttft_s_p50"], metrics["ttft_s_p50_low"], metrics["ttft_s_p50_high"]) == (20.5, 14.0, 27.0)
    assert metrics["ttft_s_p90"] == pytest.approx(36.1)
    assert "ttft_s_p95" not in metrics
    assert measured.unavailable["ttft_s_p95"] == "needs 72 independent observations, has 40"


def test_gaps_of_one_step_are_one_observation() -> None:
    """Ten requests that decode in step show 50 gaps, but only 5 moments at which a gap could have been long."""
    times = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    measured = aggregate([request(i, 0.0, times) for i in range(10)])
    assert measured.metrics["itl_s_mean"] == 1.0
    assert measured.unavailable["itl_s_p50"] == "needs 6 independent observations, has 5"


def test_warm_up_and_unfinished_requests_are_in_no_latency() -> None:
    cell = [
        request(0, 0.0, [50.0], warmup=True),
        request(1, 0.0, [1.0]),
        request(2, 0.0, [70.0, 80.0], status="aborted"),
        request(3, 0.0, [], status="refused"),
        request(4, 0.0, [90.0], status="failed", preemptions=2),
    ]
    metrics = aggregate(cell).metrics
    assert metrics["ttft_s_mean"] == metrics["ttft_s_max"] == 1.0
    counts = [metrics[f"{status}_requests"] for status in ("finished", "refused", "aborted", "failed", "warmup")]
    assert counts == [1, 1, 1, 1, 1]
    assert metrics["preemptions"] == 2


def test_the_plateau_runs_from_first_to_last_arrival_without_warm_up() -> None:
    # Arrivals at 0 (warm-up), 10, 20, 30: the window is 10 to 30; the answer to 30 comes in the drain.
    cell = [request(i, 10.0 * i, [10.0 * i + 1, 10.0 * i + 2], warmup=i == 0) for i in range(4)]
    measured = aggregate(cell)
    assert measured.notes == ["window_kind: plateau, window_s: 20.000 (first to last arrival of the measured requests)"]
    metrics = measured.metrics
    assert (metrics["window_start_s"], metrics["window_s"], metrics["window_is_plateau"]) == (10.0, 20.0, 1.0)
    assert metrics["output_tokens_per_s"] == pytest.approx(4 / 20)
    assert metrics["total_tokens_per_s"] == pytest.approx((4 + 20) / 20)
    assert metrics["requests_per_s"] == pytest.approx(2 / 20)
    assert metrics["output_tokens_per_s_whole_run"] == pytest.approx(8 / 32)
    assert metrics["total_tokens_per_s_whole_run"] == pytest.approx((8 + 40) / 32)
    assert metrics["requests_per_s_whole_run"] == pytest.approx(4 / 32)
    assert metrics["ttft_s_mean"] == pytest.approx(1.0)


def test_tokens_of_warm_up_requests_count_when_they_come_in_the_window() -> None:
    cell = [request(0, 0.0, [15.0], warmup=True), request(1, 10.0, [11.0]), request(2, 20.0, [21.0])]
    assert aggregate(cell).metrics["output_tokens_per_s"] == pytest.approx(2 / 10)


@pytest.mark.parametrize(
    "cell",
    [
        [request(i, 0.0, [1.0, 2.0 + i]) for i in range(4)],  # all at once: the plateau has no length
        [request(i, 1.0 * i, [30.0, 40.0 + i]) for i in range(4)],  # all still running when the last one arrives
    ],
)
def test_without_a_plateau_the_window_is_the_whole_run(cell: list[dict[str, object]]) -> None:
    measured = aggregate(cell)
    assert measured.metrics["window_is_plateau"] == 0
    assert measured.notes[0].startswith("window_kind: whole_run")
    for key in ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s"):
        assert measured.metrics[key] == measured.metrics[f"{key}_whole_run"]


def test_decode_figures_of_a_batch() -> None:
    # First tokens at 2, last at 6 and 10: 4 + 8 decode tokens in 8 seconds; the user waits 10.
    cell = [request(0, 0.0, [2.0, 3.0, 4.0, 5.0, 6.0]), request(1, 0.0, [float(t) for t in range(2, 11)])]
    metrics = aggregate(cell).metrics
    assert metrics["decode_tokens_per_s"] == pytest.approx(12 / 8)
    assert metrics["response_latency_s"] == 10.0


def test_goodput_counts_requests_within_every_limit() -> None:
    cell = [
        request(0, 0.0, [1.0, 1.1, 1.2]),  # good
        request(1, 0.0, [3.0, 3.1, 3.2]),  # late first token
        request(2, 0.0, [1.0, 2.0, 3.0]),  # too slow
        request(3, 0.0, [1.0]),  # one token has no pace: good
        request(4, 0.0, [], status="refused"),
    ]
    slo = {"ttft_s": 2.0, "tpot_s": 0.5}
    batch = Requests.of(cell)
    assert meets_slo(batch, per_request(batch), slo).tolist() == [True, False, False, True, False]
    metrics = aggregate(cell, slo=slo).metrics
    assert metrics["goodput_rps"] == pytest.approx(2 / 3.2)
    assert metrics["slo_attainment"] == pytest.approx(2 / 5)
    assert aggregate(cell, slo=slo | {"e2e_s": 1.1}).metrics["slo_attainment"] == pytest.approx(1 / 5)


def test_the_fluidity_index_carries_slack_and_makes_stalls_pay() -> None:
    # Deadlines 1, 1.5, 2, 2.5, 3, 3.5. The stall before the third token is longer than the slack and lasts two tokens.
    cell = [request(0, 0.0, [0.5, 0.7, 2.4, 2.6, 2.8, 3.0])]
    batch = Requests.of(cell)
    assert tokens_on_time(batch, 1.0, 0.5).tolist() == [True, True, False, False, True, True]
    metrics = aggregate(cell, slo={"ttft_s": 1.0, "tpot_s": 0.5}).metrics
    assert metrics["fluidity_index"] == pytest.approx(4 / 6)
    assert metrics["tpot_s_mean"] == 0.5  # the mean hides the stall


def test_without_an_slo_the_reader_is_told_so() -> None:
    measured = aggregate([request(0, 0.0, [1.0, 2.0])])
    assert not {"goodput_rps", "slo_attainment", "fluidity_index"} & set(measured.metrics)
    assert measured.unavailable["goodput_rps"] == "no slo was given"
    assert measured.unavailable["fluidity_index"] == "needs ttft_s and tpot_s in slo"


@pytest.mark.parametrize("slo", [{"itl_s": 1.0}, {"ttft_s": 0.0}, {"ttft_s": float("nan")}])
def test_a_wrong_slo_is_a_mistake_of_the_user(slo: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="it takes positive seconds for ttft_s, tpot_s, e2e_s"):
        aggregate([], slo=slo)


def test_records_may_be_objects_columns_or_tables() -> None:
    rows = random_cell(seed=3, count=30)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    record = make_dataclass("Record", list(rows[0]))
    expected = aggregate(rows)
    assert aggregate(columns) == expected
    assert aggregate([record(**row) for row in rows]) == expected
    table = pa.Table.from_pylist(rows)
    assert aggregate(table.to_pandas()) == expected
    assert aggregate(table.to_batches()[0]) == expected


def test_a_record_without_token_times_still_counts() -> None:
    cell = [request(0, 0.0, [1.0, 2.0, 3.0]) | {"token_times_s": None}, request(1, 0.0, [4.0])]
    metrics = aggregate(cell).metrics
    assert metrics["output_tokens_per_s"] == pytest.approx(4 / 4)
    assert metrics["tpot_s_mean"] == 1.0
    assert "itl_s_mean" not in metrics


def test_records_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="request 7: 2 token times, 3 output tokens"):
        aggregate([request(7, 0.0, [1.0, 2.0], output_tokens=3)])
    with pytest.raises(ValueError, match="go backwards"):
        aggregate([request(0, 0.0, [2.0, 1.0])])


def test_nothing_gives_no_figures_but_no_error() -> None:
    measured = aggregate([])
    assert measured.metrics["finished_requests"] == 0
    assert "output_tokens_per_s" not in measured.metrics
    assert all(np.isfinite(value) for value in measured.metrics.values())


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.1, 50))
def test_what_always_holds(seed: int, count: int, rate: float) -> None:
    cell = random_cell(seed, count, rate)
    metrics = aggregate(cell, slo={"ttft_s": 0.2, "tpot_s": 0.1, "e2e_s": 2.0}).metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics.get("goodput_rps", 0.0) <= metrics.get("requests_per_s", 0.0)
    assert 0 <= metrics["slo_attainment"] <= 1 if "slo_attainment" in metrics else True
    assert 0 <= metrics.get("fluidity_index", 0.0) <= 1
    assert metrics.get("ttft_s_mean", 0.0) <= metrics.get("e2e_s_mean", 0.0)
    for key in metrics:
        if key.endswith(("_p50", "_p90")):
            assert metrics[f"{key}_low"] <= metrics[key] <= metrics[f"{key}_high"] <= metrics[f"{key[:-4]}_max"]
