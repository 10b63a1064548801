"""One picture for `harness bench vllm`: the batch over time of the real vLLM, of gpu_only, and as it was simulated."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from harness.step_series import StepSeries, batch_curve
from results.files import write_text

STYLES = {"vllm": "-", "gpu_only": "--", "simulated gpu_only": ":"}


def write_batches(path: Path, title: str, series: Mapping[str, StepSeries]) -> None:
    """Each over its own run, from its first step to its last."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, steps in series.items():
        curve = batch_curve(steps)
        style = next((style for prefix, style in STYLES.items() if name.startswith(prefix)), "-")
        axes.step(curve.edges[:-1], curve.values, where="post", label=name, linestyle=style, linewidth=1.4)
    axes.set(xlabel="share of the run", ylabel="requests in the step", title=title, ylim=(0, None))
    axes.legend(frameon=False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    write_text(path, drawn.getvalue())
