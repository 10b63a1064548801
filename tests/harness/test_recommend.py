"""Which engine to use: ranked by what was asked for, honest about what the constants do not decide."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from harness.answers import Answer, Range
from harness.cli import main
from harness.config import load_experiment
from harness.errors import ConfigError
from harness.plan import expand
from harness.recommend import Ranked, _verdicts, recommended
from harness.recommend_setup import Question

T4 = "t4_g4dn_4xlarge"
SHORT = "{kind: long_output, prompt: 200, output: 40, requests: 8}"


def _row(engine: str, score: float, over: tuple[float, float, float] | None, own: bool = True) -> Ranked:
    here = Range(score, score, score)
    gain = None if over is None else Range(*over)
    return Ranked(engine, {}, own, here, here, None, None, gain, None, decided=True)


def _said(*rows: Ranked) -> str:
    return " ".join(_verdicts(rows))


def test_a_second_gpu_is_an_answer() -> None:
    """Two A10G hold a model that one does not; each engine is asked about both ways of sharing it, where it can."""
    found = recommended(Question("survey_4xa10g", "llama-2-13b", SHORT, draws=1, gpus=2))
    names = {row.engine: row for row in found.ranked}
    assert {"gpu_only", "gpu_only_pipeline", "apex"} <= names.keys()
    assert "apex_pipeline" not in names
    assert names["gpu_only"].choice["gpus"] == 2
    assert names["gpu_only_pipeline"].choice["parallel"] == "pipeline"
    assert "gpus: 2" in found.command


def test_the_fastest_that_is_ahead_on_every_machine_is_recommended() -> None:
    said = _said(_row("apex", 2.0, (2.0, 1.5, 2.4)), _row("gpu_only", 1.0, (1.0, 1.0, 1.0)))
    assert said.startswith("Use apex: 2.00 times gpu_only (1.50-2.40")


def test_do_not_offload_is_an_answer() -> None:
    assert "Do not offload" in _said(_row("gpu_only", 2.0, (1.0, 1.0, 1.0)), _row("apex", 1.0, (0.5, 0.4, 0.6)))
    assert "Do not offload" in _said(_row("apex", 1.02, (1.02, 1.0, 1.04)), _row("gpu_only", 1.0, (1.0, 1.0, 1.0)))


def test_what_the_constants_do_not_decide_is_said() -> None:
    said = _said(_row("apex", 1.1, (1.1, 0.9, 1.4)), _row("gpu_only", 1.0, (1.0, 1.0, 1.0)))
    assert said.startswith("The constants do not decide")


def test_who_is_nearly_as_good_is_named() -> None:
    rows = (
        _row("neo", 2.0, (2.0, 1.5, 2.4)),
        _row("apex", 1.95, (1.95, 1.4, 2.4)),
        _row("gpu_only", 1.0, (1.0, 1.0, 1.0)),
    )
    assert _said(*rows).endswith("Within 5 % of it: apex.")


def test_packed_weights_are_told_apart() -> None:
    rows = (
        _row("gpu_only_4bit", 3.0, (3.0, 2.5, 3.2), own=False),
        _row("apex", 2.0, (2.0, 1.5, 2.4)),
        _row("gpu_only", 1.0, (1.0, 1.0, 1.0)),
    )
    said = _verdicts(rows)
    assert said[0].startswith("Use apex")
    assert "gpu_only_4bit is 1.50 times apex" in said[1]
    assert "other weights" in said[1]


def test_a_question_of_the_t4() -> None:
    found = recommended(Question(T4, "llama-2-7b", SHORT, draws=2, price_per_hour=0.5, gpu_memory="14.3GiB"))
    assert found.label == "simulated"
    scores = [row.score.value for row in found.ranked]
    assert scores == sorted(scores, reverse=True)
    assert {"gpu_only", "neo", "apex", "gpu_only_4bit", "twinpilots"} <= {row.engine for row in found.ranked}
    best = found.ranked[0]
    assert best.cost_per_million is not None
    assert best.cost_per_million.value == pytest.approx(0.5 / 3600 / best.tokens_per_s.value * 1e6)
    assert best.cost_per_million.low <= best.cost_per_million.value <= best.cost_per_million.high


def test_the_command_it_prints_is_an_experiment_with_winner_and_baseline() -> None:
    found = recommended(Question(T4, "llama-2-7b", SHORT, draws=1, gpu_memory="14.3GiB"))
    import shlex

    words = shlex.split(found.command)
    assert words[:4] == ["harness", "run", "--config", "recommend"]
    experiment = load_experiment("recommend", words[5::2])
    assert {engine.name for engine in experiment.engines} == {"gpu_only", found.ranked[0].engine}
    assert expand(experiment, "sim")


def test_a_model_that_does_not_fit_is_served_by_engines_that_place_it() -> None:
    found = recommended(Question(T4, "llama-2-13b", SHORT, draws=1))
    out = dict(found.ruled_out)
    assert {"gpu_only", "apex", "neo"} <= out.keys()
    assert "accel_memory" in out["gpu_only"]
    assert {"weight_streaming", "twinpilots"} <= {row.engine for row in found.ranked}
    assert "gpu_only cannot serve this here" in found.verdicts[0]


def test_an_slo_ranks_by_goodput() -> None:
    found = recommended(Question(T4, "llama-2-7b", SHORT, draws=1, slo="ttft_s=5,tpot_s=0.2", gpu_memory="14.3GiB"))
    assert found.ranked_by == "goodput_rps"


@pytest.mark.parametrize(
    ("question", "why"),
    [
        (Question(T4, "llama-2-7b", "poetry"), "poetry"),
        (Question("t5", "llama-2-7b", "chat"), "t5"),
        (Question(T4, "llama-9", "chat"), "llama-9"),
        (Question(T4, "llama-2-7b", "chat", slo="fast"), "--slo fast"),
        (Question(T4, "llama-2-7b", "[1, 2]"), "--workload"),
        (Question(T4, "llama-2-7b", SHORT, gpu_memory="100MiB"), "accel_memory"),
        (Question(T4, "llama-2-7b", SHORT, gpus=2), "t4_g4dn_4xlarge has one"),
    ],
)
def test_a_question_that_makes_no_sense(question: Question, why: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=why):
        recommended(question)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["recommend", "--hardware", T4, "--model", "llama-2-7b", "--workload", SHORT, "--draws", "1", "--json"])
    assert ended.value.code in (0, None)
    told = json.loads(capsys.readouterr().out)
    assert told["label"] == "simulated"
    assert told["ranked"]


def test_values_are_the_entrys_own_first(make_answer: Callable[[], Answer]) -> None:
    assert make_answer().values("x") == (1.0, 2.0, None)


@pytest.fixture
def make_answer() -> Callable[[], Answer]:
    cell = expand(load_experiment("quickstart"), "sim")[0]
    return lambda: Answer(cell, {"x": 1.0}, ({"x": 2.0}, {}))
