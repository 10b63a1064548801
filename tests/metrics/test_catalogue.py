"""Every figure that is computed is explained, and every explanation is of a figure."""

from harness.metric_catalogue import CATALOGUE, HINDSIGHT, MEMORY, find
from harness.metrics import aggregate
from harness.request_columns import FAULTS
from tests.metrics.cells import random_cell, request, step

# From the samples or from a search, not from the records of one cell.
BY_OTHERS = {"energy_j_per_output_token", "sampler_cost_share", "saturation_rps", "saturation_probes"}
BY_OTHERS |= {metric.key for metric in HINDSIGHT}  # from replaying the journal
BY_OTHERS |= {metric.key for metric in MEMORY}  # from what an engine says that its blocks take


def figures() -> dict[str, float]:
    steps = [
        step(i, float(i), i + 1.0, predicted_s=1.0, gpu_busy_s=0.6, cpu_busy_s=0.5, scheduler_s=1e-4, ops=3, running=2)
        for i in range(400)
    ]
    failed = [
        request(600 + i, 1.0, [], status="failed", reason=f"{fault}: 1") for i, fault in enumerate(sorted(FAULTS))
    ]
    return aggregate([*random_cell(0, 600), *failed], steps, {"ttft_s": 0.2, "tpot_s": 0.1}).metrics


def test_every_figure_is_in_the_catalogue() -> None:
    assert [key for key in figures() if find(key) is None] == []


def test_everything_in_the_catalogue_is_computed() -> None:
    computed = {metric.key for metric in map(find, figures()) if metric is not None}
    assert {metric.key for metric in CATALOGUE} - BY_OTHERS == computed


def test_entries_are_complete_and_named_once() -> None:
    keys = [metric.key for metric in CATALOGUE]
    assert len(keys) == len(set(keys))
    assert all(metric.unit and metric.formula and metric.meaning for metric in CATALOGUE)


def test_a_key_leads_to_its_metric() -> None:
    found = find("ttft_s_p99_low")
    assert found is not None
    assert found.key == "ttft_s"
    assert find("requests_per_s_whole_run") is not None
    assert find("ttft_s") is None  # a spread has no figure of its own
    assert find("ttft_s_p42") is None
    assert find("nonsense") is None
