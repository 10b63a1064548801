"""A crossover map as a page: a heat map for each CPU bandwidth, every number with its band, and what was uncertain.

Made from the JSON that `harness map --json` prints. Heat maps are tables with a colour for each cell: their text can be
searched, read aloud and printed. Nothing is computed here but colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.answer_page import answer_page
from reports.labels import MEANING
from reports.values import ABSENT, GAP, count, figure, listing, quantity, seconds, span
from results.schema import Label

MOST_COLOUR_PERCENT = 45  # with more of it, text in the dark theme would be hard to read
JSON = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spot:
    """One cell of a heat map. `told`: the whole of it, for those who point at it."""

    winner: str
    gain: str
    share: str  # of the colour, in percent
    rivals: str
    cut: str
    told: str


@dataclass(frozen=True, slots=True)
class PanelRow:
    kv: str
    beyond: str
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    rows: tuple[PanelRow, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One engine at one place; `values` from the CPU's bandwidth to the band of the gain."""

    engine: str
    values: tuple[str, ...]
    standing: str
    won: bool
    first: bool  # of its place


def map_page(found: JSON, told: Mapping[str, str]) -> str:
    cells: Sequence[JSON] = found["cells"]
    most = max((cell["gain"]["value"] for cell in cells if cell["winner"]), default=1.0)
    return answer_page(
        "map.html",
        f"{found['model']} on {found['hardware']}: which engine wins where",
        "Crossover map",
        told,
        label=found["label"],
        meaning=f"{MEANING[Label(found['label'])]} {found.get('cost_model_error', '')}",
        facts=_facts(found),
        verdict=_verdict(cells),
        how=_how(found),
        scale=[(_share(gain, most), _times(gain)) for gain in _steps(most)],
        outputs=[f"{tokens:,}" for tokens in found["output_tokens"]],
        panels=[_panel(found, factor, most) for factor in found["cpu_factors"]],
        baseline=found["baseline"],
        metric=f"{found['metric']}: output tokens over the time of the whole run",
        bands=_bands(found),
        rows=[row for cell in cells for row in _rows(cell)],
        drawn=_drawn(found),
        constants=[_constant(constant) for constant in found["constants"]],
    )


def _facts(found: JSON) -> list[tuple[str, str]]:
    return [
        ("Machine", found["hardware"]),
        ("Model", f"{found['model']}, {found['dtype']}"),
        ("Engines", listing(found["engines"])),
        ("Prompt", f"{found['prompt_tokens']:,} tokens ± 10 %"),
        ("Requests", f"{found['requests']:,}, all at once"),
        ("Drawn machines", f"{found['draws']:,}"),
    ]


def _verdict(cells: Sequence[JSON]) -> str:
    won = Counter(cell["winner"] for cell in cells if cell["winner"])
    who = listing(f"{engine} in {number}" for engine, number in won.most_common())
    undecided = sum(bool(cell["rivals"]) for cell in cells)
    nothing = sum(not cell["winner"] for cell in cells)
    silent = f" {count(nothing, 'place')} gave no figure." if nothing else ""
    return f"Fastest: {who} of {count(len(cells), 'place')}; not decided: {undecided or 'none'}.{silent}"


def _how(found: JSON) -> str:
    return (
        "A place is decided where the same engine is the fastest on the machine as the catalogue has it and on each of "
        f"{count(found['draws'], 'machine')} drawn from the ranges of its uncertain constants. Engines are compared "
        f"on one machine at a time, so what both depend on cancels. Equal figures count for {found['baseline']}."
    )


def _bands(found: JSON) -> str:
    return (
        "Bands are from the least to the most over the drawn machines and the catalogue's own; those of a ratio are "
        f"formed machine by machine. At most {found['holds_kv_tokens']:,} KV tokens fit beside this card's weights: "
        "larger budgets show what more memory would change. Where requests were cut, they were longer than the KV "
        "budget, and all engines served the same shortened ones."
    )


def _drawn(found: JSON) -> str:
    if not found["constants"]:
        return "The catalogue's entry has no constant with a range: bands are single points and decide nothing."
    return (
        f"These constants of {found['hardware']} were drawn from their ranges, {count(found['draws'], 'time')}, the "
        "same for every engine. Where a map has another CPU bandwidth, its range is multiplied like its value."
    )


def _panel(found: JSON, factor: float, most: float) -> Panel:
    cells = [cell for cell in found["cells"] if cell["cpu_factor"] == factor]
    by_place = {(cell["kv_tokens"], cell["output_tokens"]): cell for cell in cells}
    rows = [
        _panel_row(kv, [by_place[kv, output] for output in found["output_tokens"]], found["requests"], most)
        for kv in found["kv_tokens"]
    ]
    rate = cells[0]["cpu_bandwidth_bytes_per_s"] / 1e9
    times = "as in the catalogue" if factor == 1 else f"{factor:g} times the catalogue's"
    return Panel(f"CPU memory at {figure(rate)} GB/s, {times}", tuple(rows))


def _panel_row(kv_tokens: int, cells: Sequence[JSON], requests: int, most: float) -> PanelRow:
    beyond = "more than the card holds" if cells[0]["beyond_memory"] else ""
    return PanelRow(f"{kv_tokens:,}", beyond, tuple(_spot(cell, requests, most) for cell in cells))


def _spot(cell: JSON, requests: int, most: float) -> Spot:
    cut = f"{cell['requests_cut']} of {requests} cut" if cell["requests_cut"] else ""
    if not cell["winner"]:
        problems = dict.fromkeys(each["problem"] for each in cell["standings"] if each["problem"])
        return Spot("", "", "0", "", cut, "; ".join(problems))
    gain, rivals = cell["gain"], listing(cell["rivals"]).replace(" and ", " or ")
    band = span(_times(gain["low"]), _times(gain["high"]))
    told = f"{cell['winner']}: {_times(gain['value'])} the baseline ({band})"
    return Spot(cell["winner"], _times(gain["value"]), _share(gain["value"], most), rivals, cut, told)


def _rows(cell: JSON) -> list[Row]:
    where = (
        f"{cell['cpu_bandwidth_bytes_per_s'] / 1e9:,.1f}",
        f"{cell['kv_tokens']:,}",
        f"{cell['output_tokens']:,}",
    )
    return [
        Row(
            engine=each["engine"],
            values=(*where, *_value_and_band(each["tokens_per_s"], ""), *_value_and_band(each["gain"], "×")),
            standing=each["problem"] or _standing(cell, each["engine"]),
            won=each["engine"] == cell["winner"],
            first=number == 0,
        )
        for number, each in enumerate(cell["standings"])
    ]


def _standing(cell: JSON, engine: str) -> str:
    if engine == cell["winner"]:
        return "wins" if cell["decided"] else "wins, not decided"
    return "may win" if engine in cell["rivals"] else ""


def _value_and_band(found: JSON | None, unit: str) -> tuple[str, str]:
    if found is None:
        return ABSENT, ABSENT
    value, low, high = (f"{found[key]:,.2f}" if unit else figure(found[key]) for key in ("value", "low", "high"))
    return f"{value}{unit}", span(low, high)


def _constant(constant: JSON) -> dict[str, str]:
    path = constant["path"]
    value, low, high = (_with_unit(path, constant[key]) for key in ("value", "low", "high"))
    return {**constant, "value": value, "range": f"{low} – {high}"}


def _with_unit(path: str, value: float) -> str:
    """In the decimal units of datasheets, as the headings of the maps have them."""
    if path.endswith("bytes_per_s"):
        return f"{figure(value / 1e9)}{GAP}GB/s"
    if "flops" in path:
        return f"{figure(value / 1e12)}{GAP}TFLOP/s"
    return seconds(value) if path.endswith("_s") else quantity(path, value)


def _times(gain: float) -> str:
    return f"{gain:.2f}×"


def _share(gain: float, most: float) -> str:
    """Of the colour: none without a gain, all of it for the largest gain of the page."""
    return f"{MOST_COLOUR_PERCENT * (gain - 1) / (most - 1):.1f}" if most > 1 else "0"


def _steps(most: float) -> list[float]:
    """For the legend."""
    return [1.0, (1 + most) / 2, most] if most > 1 else [1.0]
