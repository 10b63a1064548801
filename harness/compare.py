"""Two runs against each other: pairs of equal cells, their ratio with an interval, and whether a regression is shown.

A ratio is B's figure over A's. Only cells that are valid and fair on both sides are paired; the others are listed with
their reasons. Whether the two runs may be compared at all is for testbeds.py to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from harness.errors import ConfigError
from harness.metric_catalogue import Metric, find
from harness.stats import MIN_PAIRS, Interval, paired_interval
from harness.testbeds import differences
from harness.verdicts import THROUGHPUT, WHOLE_RUN, Cell, verdict_sentence, why_unusable, without_wrong_tokens
from harness.why import Why, explain_pairs
from results.query import Run, load_run

REGRESSION_EXIT_CODE = 1
OF_WHOLE_RUN = "_whole_run"


class Verdict(StrEnum):
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    WITHIN = "not beyond the threshold"  # whether or not a difference is shown
    NONE = "too few pairs"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one engine on one workload. `interval` is there from two pairs on."""

    engine: str
    workload: str
    metric: str
    ratios: tuple[float, ...]
    interval: Interval | None
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A cell that no pair was made of, and why. `run` is A or B."""

    run: str
    engine: str
    workload: str
    repeat: int | None
    reason: str

    def __str__(self) -> str:
        place = f"{self.engine} on {self.workload}, repeat {self.repeat}" if self.engine else "a cell"
        return f"left out: {place} of {self.run}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RunComparison:
    a: Path
    b: Path
    label: str
    threshold: float
    comparisons: tuple[Comparison, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...] = field(default=())  # how the testbeds differ, where that was allowed
    why: tuple[Why, ...] = field(default=())  # of throughputs beyond the threshold, or of all

    @property
    def regressions(self) -> int:
        return sum(each.verdict is Verdict.REGRESSION for each in self.comparisons)

    @property
    def exit_code(self) -> int:
        return REGRESSION_EXIT_CODE if self.regressions else 0

    def lines(self) -> list[str]:
        warning = f"WARNING, not comparable ({'; '.join(self.warnings)}): " if self.warnings else ""
        found = [
            f"{each.engine} on {each.workload}, {each.metric}: {each.sentence} [{self.label}]"
            for each in self.comparisons
        ]
        why = [line for each in self.why for line in each.lines(self.label)]
        return [warning + line for line in (*found, *why, *map(str, self.left_out), self._conclusion())]

    def _conclusion(self) -> str:
        judged = [each for each in self.comparisons if each.verdict is not Verdict.NONE]
        bar = f"beyond {_percent(self.threshold)}"
        if not judged:
            return f"no verdict: nothing has the {MIN_PAIRS} pairs that one needs"
        if not self.regressions:
            return f"no regression {bar} shown in {len(judged)} of {len(self.comparisons)} comparisons"
        return f"{self.regressions} of {len(self.comparisons)} comparisons show a regression {bar}"

    def to_json(self) -> dict[str, object]:
        return {
            "run_a": str(self.a),
            "run_b": str(self.b),
            "label": self.label,
            "threshold": self.threshold,
            "warnings": list(self.warnings),
            "regressions": self.regressions,
            "comparisons": [{**asdict(each), "pairs": len(each.ratios)} for each in self.comparisons],
            "why": [each.to_json() for each in self.why],
            "left_out": [asdict(each) for each in self.left_out],
        }


def compare_runs(
    path_a: Path,
    path_b: Path,
    metrics: Sequence[str] = (),
    *,
    threshold: float = 0.05,
    across: bool = False,
    why: bool = False,
) -> RunComparison:
    """ConfigError when the runs differ in more than what they compare (unless `across`), or have no pair of cells.

    Throughputs beyond the threshold are explained, and all of them with `why`.
    """
    wanted = {key: _metric(key) for key in metrics or (THROUGHPUT,)}
    a, b = load_run(path_a), load_run(path_b)
    found = differences(a, b)
    if found and not across:
        raise ConfigError(f"{path_a} and {path_b} differ ({'; '.join(found)}); --across compares them all the same")
    pairs = _Pairs(a, b)
    comparisons = [
        _comparison(place, key, metric, cells, threshold, pairs)
        for place, cells in pairs.found.items()
        for key, metric in wanted.items()
    ]
    if not any(each.ratios for each in comparisons):
        reason = f": {pairs.left_out[0]}" if pairs.left_out else ""
        raise ConfigError(f"nothing to compare: {path_a} and {path_b} have no pair of valid cells{reason}")
    label = " against ".join(dict.fromkeys("/".join(run.labels) for run in (a, b)))
    explained = [each for each in pairs.found if why or _is_explained(each, comparisons)]
    return RunComparison(
        path_a,
        path_b,
        label,
        threshold,
        tuple(comparisons),
        tuple(pairs.left_out),
        tuple(found),
        tuple(explain_pairs(*place, pairs.folders(place)) for place in explained),
    )


def _is_explained(place: tuple[str, str], comparisons: Sequence[Comparison]) -> bool:
    """Whether its throughput is shown to have changed beyond the threshold."""
    beyond = (Verdict.REGRESSION, Verdict.IMPROVEMENT)
    return any(
        (each.engine, each.workload) == place and each.verdict in beyond and each.metric in (THROUGHPUT, WHOLE_RUN)
        for each in comparisons
    )


class _Pairs:
    """Valid cells by engine and workload, each with its partner of the same repeat; and everything that has none."""

    def __init__(self, a: Run, b: Run) -> None:
        self.found: dict[tuple[str, str], list[tuple[Cell, Cell]]] = {}
        self.left_out: list[LeftOut] = []
        self._runs = a, b
        side_a, side_b = self._by_place("A", a), self._by_place("B", b)
        for key in dict.fromkeys([*side_a, *side_b]):
            engine, workload, _ = key
            if key in side_a and key in side_b:
                self._pair(engine, workload, side_a[key], side_b[key])
            else:
                run, other = ("A", "B") if key in side_a else ("B", "A")
                self.left_out.append(LeftOut(run, *key, f"{other} has no such cell"))

    def folders(self, place: tuple[str, str]) -> list[tuple[Path, Path]]:
        a, b = (run.folder for run in self._runs)
        return [(a.cell_path(one["cell_id"]), b.cell_path(other["cell_id"])) for one, other in self.found[place]]

    def leave_out(self, run: str, cell: Cell, reason: str) -> None:
        self.left_out.append(LeftOut(run, cell["engine"], cell["workload"], cell["repeat"], reason))

    def _pair(self, engine: str, workload: str, a: Cell, b: Cell) -> None:
        reasons = [(run, cell, why) for run, cell in (("A", a), ("B", b)) if (why := why_unusable(cell))]
        for run, cell, why in reasons:
            self.leave_out(run, cell, why)
        pairs = self.found.setdefault((engine, workload), [])
        if not reasons:
            pairs.append((a, b))

    def _by_place(self, name: str, run: Run) -> dict[tuple[str, str, int], Cell]:
        placed: dict[tuple[str, str, int], Cell] = {}
        for cell in without_wrong_tokens([cell.to_json() for cell in run.cells]):
            key = (cell["engine"], cell["workload"], cell["repeat"])
            if key in placed:
                self.leave_out(name, cell, "a second cell of the same repeat")
            placed.setdefault(key, cell)
        lost = {**dict.fromkeys(run.missing, "never run"), **dict.fromkeys(run.incomplete, "begun, never finished")}
        for cell_id, reason in {**lost, **run.unreadable}.items():
            self.left_out.append(LeftOut(name, "", "", None, f"{cell_id}: {reason}"))
        return placed


# --- one metric of one engine on one workload -------------------------------------------------------------------------


def _comparison(
    place: tuple[str, str],
    key: str,
    metric: Metric,
    cells: Sequence[tuple[Cell, Cell]],
    threshold: float,
    pairs: _Pairs,
) -> Comparison:
    key = _same_window(key, metric, cells)
    ratios = tuple(_ratios(key, cells, pairs))
    interval = paired_interval(ratios) if len(ratios) > 1 else None
    verdict = _verdict(interval, len(ratios), bool(metric.higher_is_better), threshold)
    sentence = verdict_sentence("B", "A", ratios, ("higher", "lower"))
    if verdict in (Verdict.REGRESSION, Verdict.IMPROVEMENT):
        sentence += f": {verdict} beyond {_percent(threshold)}"
    return Comparison(*place, key, ratios, interval, verdict, sentence)


def _verdict(interval: Interval | None, pairs: int, higher_is_better: bool, threshold: float) -> Verdict:
    """All of the interval must lie beyond the threshold: what is merely likely stops no release."""
    if interval is None or pairs < MIN_PAIRS:
        return Verdict.NONE
    fell, rose = interval.high < 1 - threshold, interval.low > 1 + threshold
    if not fell and not rose:
        return Verdict.WITHIN
    return Verdict.IMPROVEMENT if rose == higher_is_better else Verdict.REGRESSION


def _same_window(key: str, metric: Metric, cells: Sequence[tuple[Cell, Cell]]) -> str:
    """A plateau of one side against the whole run of the other would compare different phases of the load."""
    same = all(a["metrics"].get("window_is_plateau") == b["metrics"].get("window_is_plateau") for a, b in cells)
    return key if same or not metric.has_whole_run or key.endswith(OF_WHOLE_RUN) else key + OF_WHOLE_RUN


def _ratios(key: str, cells: Sequence[tuple[Cell, Cell]], pairs: _Pairs) -> Iterator[float]:
    for a, b in cells:
        values = [cell["metrics"].get(key) for cell in (a, b)]
        absent = [(run, cell) for run, cell, value in zip("AB", (a, b), values, strict=True) if value is None]
        if absent:
            for run, cell in absent:
                pairs.leave_out(run, cell, f"no {key}: {cell['unavailable'].get(key, 'not recorded')}")
        elif min(values) > 0:
            yield values[1] / values[0]
        elif values[0] == values[1]:
            yield 1.0
        else:
            pairs.leave_out("B", b, f"{key} is {values[1]:g} against {values[0]:g} in A: no ratio")


def _metric(key: str) -> Metric:
    metric = find(key)
    if metric is None and find(f"{key}_mean"):
        raise ConfigError(f"--metric {key}: name one of its figures: {key}_mean, {key}_p50, _p90, _p95, _p99 or _max")
    if metric is None:
        raise ConfigError(f"--metric {key}: there is no such metric; `harness list metrics` has them all")
    if metric.higher_is_better is None:
        raise ConfigError(f"--metric {key}: neither more nor less of it is better, so that it cannot regress")
    return metric


def parse_threshold(text: str) -> float:
    """A share from `5%` or `0.05`."""
    number, is_percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / (100 if is_percent else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share < 1:
        raise ConfigError(f"--threshold {text}: expected a share below 1, such as 5% or 0.05")
    return share


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
