"""Workloads over their rate: which belong together, what is on the Pareto front, and how it is drawn."""

from __future__ import annotations

from pathlib import Path

from reports.sections import figures
from reports.sweeps import pareto_front, rate_sweeps
from results.schema import CellSummary
from tests.reports.pages import Element, cell, fragment, run_of

NORMALIZED = "normalized_latency_s_per_token_p50"


def point(engine: str, rate: str, throughput: float, latency_s: float, unfair: tuple[str, ...] = ()) -> CellSummary:
    metrics = {"output_tokens_per_s": throughput, NORMALIZED: latency_s, "ttft_s_p50": latency_s}
    return cell(engine, f"chat-{rate}rps", metrics=metrics, unfair=unfair)


def built(out_dir: Path, *cells: CellSummary) -> list[Element]:
    return fragment(figures.build(run_of(out_dir, *cells)).body).all("figure")


def test_points_of_a_sweep_are_known_by_their_names() -> None:
    sweeps = rate_sweeps(["chat-0.8rps", "code", "chat-p32-2rps", "chat-p32-1rps", "chat-0.1rps", "cot-1rps", "xrps"])
    assert [(sweep.base, [rate for rate, _ in sweep.points]) for sweep in sweeps] == [
        ("chat", [0.1, 0.8]),
        ("chat-p32", [1.0, 2.0]),
    ]


def test_the_front_has_what_nothing_beats() -> None:
    points = [(10.0, 1.0), (20.0, 2.0), (15.0, 3.0), (20.0, 4.0), (30.0, 9.0)]
    assert pareto_front(points) == [0, 1, 4]


def test_equal_points_share_the_front() -> None:
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)]) == [0, 1]
    assert pareto_front([]) == []


def test_a_sweep_is_one_figure_with_its_front(tmp_path: Path) -> None:
    figure = built(
        tmp_path,
        point("gpu_only", "0.1", 20.0, 0.2),
        point("gpu_only", "0.8", 24.0, 0.9),
        point("apex", "0.1", 20.0, 0.3),
        point("apex", "0.8", 31.0, 0.9),
    )
    assert len(figure) == 1
    assert figure[0].one("figcaption").text == "chat over its request rate emulated"
    assert [entry.text for entry in figure[0].one("ul", class_="legend").all("li")] == ["gpu_only", "apex"]
    said = [drawing.attributes["aria-label"] for drawing in figure[0].all("svg", role="img")]
    assert said[0] == (
        "Output tokens/s of chat, emulated, over the rate asked for: gpu_only 20 at 0.1, 24 at 0.8; "
        "apex 20 at 0.1, 31 at 0.8."
    )
    front = "gpu_only at 0.1 requests/s; apex at 0.8 requests/s"
    assert said[2].endswith(f"On the Pareto front: {front}.")
    assert front in figure[0].one("p", class_="aside").text


def test_an_unfair_engine_is_drawn_and_not_on_the_front(tmp_path: Path) -> None:
    figure = built(
        tmp_path,
        point("gpu_only", "0.1", 20.0, 0.2),
        point("apex", "0.1", 30.0, 0.1, unfair=("took more",)),
        point("gpu_only", "0.8", 24.0, 0.9),
    )[0]
    assert "gpu_only at 0.1 and 0.8 requests/s." in figure.text
    assert "Unfair engines are drawn, but not on the front." in figure.text


def test_without_a_latency_that_all_have_there_is_no_front(tmp_path: Path) -> None:
    bare = [
        CellSummary.from_json(made.to_json() | {"metrics": {"output_tokens_per_s": 20.0}})
        for made in (point("apex", "0.1", 20.0, 0.2), point("apex", "0.8", 20.0, 0.2))
    ]
    assert len(built(tmp_path, *bare)[0].all("svg", role="img")) == 1


def test_one_rate_is_no_sweep(tmp_path: Path) -> None:
    assert not built(tmp_path, point("apex", "0.1", 20.0, 0.2))
