"""The sentences that pairs of figures allow: an engine against another, and the answer that opens a report.

Cells come as the JSON of their summaries. Only what is valid and fair is compared; what is left out is named, with the
reason. The intervals are worked out in stats.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.stats import MIN_PAIRS, FloatArray, Interval, checked, paired_interval
from results.draws import Draws, ratio_band

Cell = Mapping[str, Any]
THROUGHPUT = "output_tokens_per_s"
WHOLE_RUN = f"{THROUGHPUT}_whole_run"
LONGEST_REASON = 200


# --- pairs ------------------------------------------------------------------------------------------------------------


def verdict_sentence(
    a_name: str, b_name: str, ratios: Sequence[float], words: tuple[str, str] = ("faster", "slower")
) -> str:
    """One sentence on a against b, where a ratio is a's figure over b's in one pair; `words` for more and for less."""
    pairs = len(ratios)
    if pairs < MIN_PAIRS:
        return _figures(a_name, b_name, checked(ratios))
    found = paired_interval(ratios)
    # In a deterministic simulation nothing varies: an interval of width 0 would claim a certainty that nobody measured.
    all_equal = found.high - found.low < 1e-6 * found.value
    if found.low - 1e-6 <= 1 <= found.high + 1e-6:
        figures = f"the same in all {pairs} pairs" if all_equal else f"95 % interval {_signed(found)} %, {pairs} pairs"
        return f"no difference shown ({a_name} against {b_name}: {figures})"
    figures = f"the same in all {pairs} pairs" if all_equal else f"95 % interval {_unsigned(found)} %, {pairs} pairs"
    direction = words[0] if found.value > 1 else words[1]
    effect = f"{100 * abs(found.value - 1):.{_decimals(found)}f}"
    return f"{a_name} is {effect} % {direction} than {b_name} ({figures})"


def _figures(a_name: str, b_name: str, ratios: FloatArray) -> str:
    if not ratios.size:
        return f"{a_name} and {b_name} have no pair to compare"
    middle = math.exp(float(np.log(ratios).mean()))
    plural = "pair" if ratios.size == 1 else "pairs"
    return (
        f"{a_name} / {b_name} = {middle:.3g} ({ratios.min():.3g}-{ratios.max():.3g} in {ratios.size} {plural}); "
        f"no verdict below {MIN_PAIRS} pairs"
    )


def _decimals(found: Interval) -> int:
    """As many as the interval's width supports, and enough that an end which is not 0 does not read as 0."""
    width = 100 * (found.high - found.low)
    digits = 0 if width >= 4 or width < 1e-4 else 1 if width >= 0.4 else 2
    while digits < 4 and any(round(100 * abs(end - 1), digits) == 0 for end in (found.low, found.high)):
        digits += 1
    return digits


def _unsigned(found: Interval) -> str:
    digits = _decimals(found)
    return "-".join(f"{100 * end:.{digits}f}" for end in sorted((abs(found.low - 1), abs(found.high - 1))))


def _signed(found: Interval) -> str:
    digits = _decimals(found)
    return f"{100 * (found.low - 1):+.{digits}f} to {100 * (found.high - 1):+.{digits}f}"


# --- the cells of a run -----------------------------------------------------------------------------------------------


def verdicts(cells: Sequence[Cell]) -> list[str]:
    """The sentences that open a report: each engine against the baseline, per workload, then what was left out."""
    cells = without_wrong_tokens(cells)
    engines = list(dict.fromkeys(str(cell["engine"]) for cell in cells))
    workloads = list(dict.fromkeys(str(cell["workload"]) for cell in cells))
    lines = []
    for workload in workloads:
        here = [cell for cell in cells if cell["workload"] == workload]
        prefix = f"{workload}: " if len(workloads) > 1 else ""
        lines += [prefix + line for line in _on_workload(engines, here)]
    return lines + _left_out(cells)


def without_wrong_tokens(cells: Sequence[Cell]) -> list[Cell]:
    """An engine that gave wrong tokens on a workload once has no figure there at all: no repeat of it is trusted."""
    wrong = {_place(cell) for cell in cells if (cell.get("parity") or {}).get("held") is False}
    error = "its tokens were wrong in another repeat"
    return [
        {**cell, "status": "invalid", "error": error} if cell["status"] == "ok" and _place(cell) in wrong else cell
        for cell in cells
    ]


def why_unusable(cell: Cell) -> str:
    """Why nothing may be concluded from the cell; empty where something may."""
    if cell["status"] != "ok":
        text = str(cell.get("error") or next(iter(cell.get("notes") or []), "")).strip()
        first = text.splitlines()[0][:LONGEST_REASON] if text else ""
        return f"{cell['status']}: {first}" if first else str(cell["status"])
    if str((cell.get("resolved") or {}).get("model", "")).startswith("mock engine"):
        return "a mock engine: no model runs, so there is nothing to compare"
    return f"unfair: {'; '.join(cell['unfair'])}" if cell.get("unfair") else ""


def _place(cell: Cell) -> tuple[str, str]:
    return str(cell["engine"]), str(cell["workload"])


def _on_workload(engines: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    usable = {name: [cell for cell in cells if cell["engine"] == name and _is_usable(cell)] for name in engines}
    baseline = "gpu_only" if "gpu_only" in engines else engines[0]
    if len(engines) == 1:
        return _medians(usable)
    if not usable[baseline]:
        return [f"{baseline}, the baseline, {_lack(baseline, cells)}: nothing is compared with it", *_medians(usable)]
    others = [name for name in engines if name != baseline]
    return [
        _compare(usable[name], usable[baseline], name, baseline)
        if usable[name]
        else f"{name} {_lack(name, cells)}: no comparison with {baseline}"
        for name in others
    ]


def _lack(name: str, cells: Sequence[Cell]) -> str:
    """Why an engine has no usable cell: the unfair ones ran well, so that something else is to be said of them."""
    unfair = any(cell.get("unfair") for cell in cells if cell["engine"] == name and cell["status"] == "ok")
    return "took more than the envelope allows" if unfair else "has no valid cell"


def _compare(ours: Sequence[Cell], theirs: Sequence[Cell], name: str, baseline: str) -> str:
    labels = [sorted({str(cell["label"]) for cell in side}) for side in (ours, theirs)]
    if labels[0] != labels[1] or len(labels[0]) > 1:
        return (
            f"{name} is {'/'.join(labels[0])} and {baseline} {'/'.join(labels[1])}: different labels are not compared"
        )
    if any(max(Counter(cell["repeat"] for cell in side).values()) > 1 for side in (ours, theirs)):
        return f"{name} and {baseline} have several cells of one repeat: points of a sweep need names of their own"
    by_repeat = {cell["repeat"]: cell for cell in theirs}
    pairs = [(cell, by_repeat[cell["repeat"]]) for cell in ours if cell["repeat"] in by_repeat]
    # A plateau of one side against the whole run of the other would compare different phases of the load.
    same_window = all(_plateau(a) == _plateau(b) for a, b in pairs)
    key = THROUGHPUT if same_window else WHOLE_RUN
    found = [(a["metrics"].get(key), b["metrics"].get(key)) for a, b in pairs]
    ratios = [float(a) / float(b) for a, b in found if a and b]
    window = "" if same_window else ", over the whole run"
    return f"{verdict_sentence(name, baseline, ratios)}{_over_draws(pairs)} [{labels[0][0]}{window}]"


def _over_draws(pairs: Sequence[tuple[Cell, Cell]]) -> str:
    """How far the verdict depends on the constants of a simulated machine that are uncertain.

    Over the whole run: windows may differ from machine to machine, and would compare different phases of the load.
    """
    for ours, theirs in pairs:
        figures = [cell["metrics"].get(WHOLE_RUN) for cell in (ours, theirs)]
        if not (ours.get("draws") and theirs.get("draws") and all(figures)):
            continue
        drawn, other = (Draws.from_json(cell["draws"], "draws") for cell in (ours, theirs))
        band = ratio_band(drawn, other, WHOLE_RUN, figures[0] / figures[1])
        if band is not None:
            machines = len(drawn.values[WHOLE_RUN])
            return f"; {band[0]:.2f}-{band[1]:.2f} times as fast on {machines} machines within the catalogue's ranges"
    return ""


def _plateau(cell: Cell) -> bool:
    return bool(cell["metrics"].get("window_is_plateau", 0.0))


def _medians(usable: Mapping[str, Sequence[Cell]]) -> list[str]:
    lines = []
    for name, cells in usable.items():
        for label in dict.fromkeys(str(cell["label"]) for cell in cells):
            figures = [float(cell["metrics"][THROUGHPUT]) for cell in cells if cell["label"] == label]
            plural = "repeat" if len(figures) == 1 else "repeats"
            lines.append(
                f"{name}: {np.median(figures):.4g} output tokens/s, median of {len(figures)} {plural} [{label}]"
            )
    return lines


def _is_usable(cell: Cell) -> bool:
    figure = (cell.get("metrics") or {}).get(THROUGHPUT)
    return not why_unusable(cell) and figure is not None and math.isfinite(figure) and figure > 0


def _left_out(cells: Sequence[Cell]) -> list[str]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_place(cell), []).append(cell)
    lines = []
    for (engine, workload), group in groups.items():
        bad = [cell for cell in group if not _is_usable(cell)]
        if bad:
            reasons = "; ".join(dict.fromkeys(why_unusable(cell) or "ok, but without a throughput" for cell in bad))
            lines.append(f"{engine} on {workload}: {len(bad)} of {len(group)} cells left out ({reasons})")
    return lines
