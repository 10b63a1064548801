"""What measured, emulated and simulated mean, in the words the report uses. No number is shown without one of them."""

from __future__ import annotations

from collections.abc import Iterable

from results.schema import CellSummary, Label

MEANING: dict[Label, str] = {
    Label.MEASURED: "a real model ran on a real accelerator, and every time was read from this machine's clock.",
    Label.EMULATED: "real model, real threads and real tensors; the accelerator is paced to a modelled machine. "
    "Such figures say how close an engine comes to what the model allows, not how fast real hardware would be.",
    Label.SIMULATED: "no tensors were computed; operations were placed on virtual units whose durations come from a "
    "cost model. Such figures are predictions.",
}

MIXED = "This run mixes labels. Figures of different labels are not comparable with each other."


def of(cells: Iterable[CellSummary]) -> str:
    """The label to print beside figures that come from these cells: one word, unless they were mixed."""
    found = {cell.label for cell in cells}
    return " + ".join(label for label in Label if label in found)
