"""The table of modes and regret: what each scheduler ran, what would have been best, and nothing where nobody chose."""

from __future__ import annotations

from pathlib import Path

from reports.sections import modes
from results.schema import CellSummary
from tests.reports.pages import cell, fragment, rows, run_of


def chose(repeat: int, regret: float) -> CellSummary:
    return cell(
        "neo",
        repeat=repeat,
        metrics={
            "regret_share": regret,
            "mode_share_asymmetric": 0.75,
            "mode_share_gpu_only": 0.25,
            "best_share_asymmetric": 1.0,
            "scheduler_us_p50": 310.0,
            "scheduler_us_p99": 820.0,
            "accel_tpot_s_mean": 0.041,
            "host_tpot_s_mean": 0.09,
        },
    )


def test_each_engine_with_a_choice_has_its_modes_beside_the_best(tmp_path: Path) -> None:
    section = modes.build(run_of(tmp_path, cell("gpu_only"), chose(0, 0.02), chose(1, 0.04)))
    assert section is not None
    table = fragment(section.body).one("table")
    assert [head.text for head in table.one("thead").all("th")][:3] == [
        "Engine",
        "asymmetric, ran best",
        "gpu only, ran best",
    ]
    [neo] = rows(table)
    assert neo[:3] == ["neo", "75 % 100 %", "25 % –"]
    assert neo[3:] == ["3.0 % (2.0 %–4.0 %)", "310 (820)", "41 GPU, 90 host"]
    assert "emulated" in table.one("caption").text


def test_no_choice_no_table(tmp_path: Path) -> None:
    assert modes.build(run_of(tmp_path, cell("gpu_only"))) is None
