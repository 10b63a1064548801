"""Each fitted table against the trace it was fitted to: its points, and what draws from it come to."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from workloads import build, fitted, realised
from workloads.lengths import Joint, Quantiles
from workloads.traces import TraceReader

Lengths = NDArray[np.int64]

FITS = [
    (fitted.AZURE_CONV, "traces/azure_llm_2023_conv.csv"),
    (fitted.AZURE_CODE, "traces/azure_llm_2023_code.csv"),
    (fitted.OSC, "lengths/osc_summarize.csv"),
    (fitted.LMSYS, "lengths/lmsys_first_turn.csv"),
]
NAMES = ["conv", "code", "osc", "lmsys"]
TOLERANCE = 0.05


def recorded(path: Path) -> tuple[Lengths, Lengths]:
    if path.parent.name == "traces":
        pairs = np.array([(line.prompt_tokens, line.output_tokens) for line in TraceReader(path)])
    else:
        pairs = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.int64)
    return pairs[:, 0], pairs[:, 1]


def summary(tokens: Lengths) -> NDArray[np.float64]:
    return np.array([tokens.mean(), *np.percentile(tokens, [50, 90, 99])])


def knots_match(table: object, tokens: Lengths) -> bool:
    assert isinstance(table, Quantiles)
    return bool(np.all(np.abs(np.percentile(tokens, table.percents) - table.lengths) <= 1.0))


@pytest.mark.parametrize(("joint", "file"), FITS, ids=NAMES)
def test_tables_are_points_of_the_measured_quantiles(shared_data: Path, joint: Joint, file: str) -> None:
    prompts, outputs = recorded(shared_data / file)
    band = np.searchsorted(joint.bands, prompts)
    assert knots_match(joint.prompt, prompts)
    for number, table in enumerate(joint.outputs):
        assert knots_match(table, outputs[band == number]), f"band {number}"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("joint", "file"), FITS, ids=NAMES)
def test_mean_and_percentiles_agree(shared_data: Path, joint: Joint, file: str, seed: int) -> None:
    drawn = joint.draw(200_000, seed)
    for generated, measured in zip(drawn, recorded(shared_data / file), strict=True):
        assert summary(generated) == pytest.approx(summary(measured), rel=TOLERANCE)


def test_conversation_footprint_keeps_its_correlation(shared_data: Path) -> None:
    """Prompt and output together are what KV caches hold: drawing them independently would be wrong here."""
    prompts, outputs = recorded(shared_data / FITS[0][1])
    drawn_prompts, drawn_outputs = fitted.AZURE_CONV.draw(200_000, 0)
    assert summary(drawn_prompts + drawn_outputs) == pytest.approx(summary(prompts + outputs), rel=TOLERANCE)
    measured = np.corrcoef(prompts, outputs)[0, 1]
    assert np.corrcoef(drawn_prompts, drawn_outputs)[0, 1] == pytest.approx(measured, abs=0.02)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_conversation_arrivals_agree(shared_data: Path, seed: int) -> None:
    trace = {"kind": "trace", "path": str(shared_data / FITS[0][1])}
    measured = realised(build(trace, 0))
    drawn = realised(build({"kind": "chat", "requests": measured.requests, "arrivals": "azure_conv"}, seed))
    assert drawn.requests_per_s == pytest.approx(measured.requests_per_s, rel=TOLERANCE)
    assert drawn.arrival_cv == pytest.approx(measured.arrival_cv, rel=TOLERANCE)


def test_reasoning_lengths_are_as_described() -> None:
    prompts, outputs = fitted.REASONING.draw(20_000, 0)
    assert outputs.mean() == pytest.approx(3200, rel=0.02)
    assert 1000 <= outputs.min() < 1010 < 7900 < outputs.max() <= 8000
    assert np.median(prompts) == pytest.approx(110, rel=0.05)
