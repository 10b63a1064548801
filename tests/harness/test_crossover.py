"""Crossover maps: who wins, when that is decided, and that a map varies what it says it varies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engines.hardware import load_hardware
from harness.answers import Answer
from harness.claims import THROUGHPUT
from harness.config import load_experiment
from harness.crossover import Crossovers, MapCell, crossovers, map_cell, winners
from harness.crossover_grid import BANDWIDTH, Grid, Place, asked, counts, engine_choices, numbers, scaled_cpu
from harness.errors import ConfigError
from harness.plan import expand
from tests.harness.conftest import Call

T4 = "t4_g4dn_4xlarge"
PLACE = Place(output_tokens=60, kv_tokens=2400, cpu_factor=1.0)
SMALL = Grid(
    hardware=T4,
    model="llama-2-7b",
    dtype="float16",
    prompt_tokens=400,
    output_tokens=(60,),
    kv_tokens=(1200, 4800),
    cpu_factors=(0.5, 1.0, 2.0),
    engines=("gpu_only", "apex"),
    requests=6,
)


@pytest.fixture(scope="module")
def small() -> Crossovers:
    return crossovers(SMALL, 2)


def _answers(**rates: tuple[float | None, ...]) -> list[Answer]:
    """By engine: on the entry's own machine, then on drawn ones."""
    cell = expand(load_experiment("t4_llama2", ["backend=sim"]), "sim")[0]
    found = []
    for name, own in rates.items():
        entry, *drawn = ({} if rate is None else {THROUGHPUT: rate} for rate in own)
        engine = replace(cell.engine, kind=name, name=name)
        found.append(Answer(replace(cell, engine=engine), entry, tuple(drawn)))
    return found


def _cell(**rates: tuple[float | None, ...]) -> MapCell:
    return map_cell(PLACE, 70e9, _answers(**rates))


def test_the_winner_is_the_fastest_and_its_gain_is_over_the_baseline(small: Crossovers) -> None:
    assert len(small.cells) == 6
    for cell in small.cells:
        rates = {each.engine: each.tokens_per_s.value for each in cell.standings if each.tokens_per_s}
        assert rates.keys() == {"gpu_only", "apex"}
        assert rates[cell.winner] == max(rates.values())
        assert cell.gain is not None
        assert cell.gain.value == rates[cell.winner] / rates["gpu_only"]
        assert cell.gain.low <= cell.gain.value <= cell.gain.high


def test_decided_when_the_same_engine_wins_on_every_machine() -> None:
    cell = _cell(gpu_only=(10, 8, 20), neo=(11, 9, 22), apex=(12, 10, 23))
    assert (cell.winner, cell.rivals, cell.decided) == ("apex", (), True)


def test_not_decided_when_the_baseline_wins_on_one() -> None:
    cell = _cell(gpu_only=(10, 10), apex=(12, 9))
    assert (cell.winner, cell.rivals, cell.decided) == ("apex", ("gpu_only",), False)


def test_not_decided_when_the_gain_is_gone_on_one() -> None:
    cell = _cell(gpu_only=(10, 10), apex=(12, 10))
    assert not cell.decided
    assert cell.gain is not None
    assert cell.gain.low == 1


def test_not_decided_when_the_runner_up_wins_on_one() -> None:
    cell = _cell(gpu_only=(10, 10), neo=(15, 16), apex=(16, 15))
    assert (cell.winner, cell.rivals) == ("apex", ("neo",))
    assert cell.gain is not None
    assert cell.gain.low > 1, "that something is gained is decided; by whom is not"


def test_an_engine_that_does_as_the_baseline_does_is_no_rival() -> None:
    cell = _cell(gpu_only=(10, 9, 12), apex=(10, 9, 12))
    assert (cell.winner, cell.decided) == ("gpu_only", True)


def test_ratios_are_formed_on_one_machine_at_a_time() -> None:
    """Bands of rates that overlap say nothing when both depend on the same constant."""
    cell = _cell(gpu_only=(10, 5, 20), apex=(11, 5.5, 22))
    assert cell.decided
    assert cell.gain is not None
    assert (cell.gain.low, cell.gain.high) == pytest.approx((1.1, 1.1))


def test_a_machine_on_which_the_winner_cannot_run_goes_to_who_can() -> None:
    cell = _cell(gpu_only=(10, 10), apex=(12, None))
    assert (cell.winner, cell.rivals) == ("apex", ("gpu_only",))
    assert len(winners({"gpu_only": (10, None), "apex": (12, None)})) == 1


def test_without_a_baseline_nobody_wins() -> None:
    cell = _cell(gpu_only=(None, 10), apex=(12, 12))
    assert (cell.winner, cell.gain, cell.decided) == ("", None, False)


def test_a_scaled_machine_differs_in_its_cpu_bandwidth_only() -> None:
    machine = load_hardware(T4)
    scaled = scaled_cpu(machine, 2)
    assert scaled.cpu.read_bandwidth_bytes_per_s == 2 * machine.cpu.read_bandwidth_bytes_per_s
    before, after = machine.sources[BANDWIDTH], scaled.sources[BANDWIDTH]
    assert (before.low, before.high) == (47e9, 100e9)
    assert (after.low, after.high) == (94e9, 200e9)
    assert "2 times" in after.text
    assert before.text in after.text
    cpu = replace(scaled.cpu, read_bandwidth_bytes_per_s=machine.cpu.read_bandwidth_bytes_per_s)
    assert replace(scaled, cpu=cpu, sources={**scaled.sources, BANDWIDTH: before}) == machine


def test_its_file_says_the_same(tmp_path: Path) -> None:
    machine = load_hardware(T4)
    cells = asked(SMALL, tmp_path).cells
    found = {place.cpu_factor: load_hardware(str(cell.hardware)) for place, cell in cells}
    assert found == {factor: scaled_cpu(machine, factor) if factor != 1 else machine for factor in SMALL.cpu_factors}


def test_more_cpu_bandwidth_does_not_slow_apex_down(small: Crossovers) -> None:
    rates: dict[int, list[float]] = {}
    for cell in sorted(small.cells, key=lambda cell: cell.cpu_bandwidth_bytes_per_s):
        apex = next(each for each in cell.standings if each.engine == "apex")
        assert apex.tokens_per_s is not None
        rates.setdefault(cell.place.kv_tokens, []).append(apex.tokens_per_s.value)
    for found in rates.values():
        assert found[1] >= found[0] * 0.98
        assert found[2] >= found[1] * 0.98
    assert any(found[2] > found[0] for found in rates.values())


def test_the_baseline_does_not_see_the_cpu(small: Crossovers) -> None:
    for kv_tokens in SMALL.kv_tokens:
        cells = [cell for cell in small.cells if cell.place.kv_tokens == kv_tokens]
        assert len({cell.standings[0].tokens_per_s for cell in cells}) == 1


def test_kv_beyond_the_card_is_marked_and_still_binds(small: Crossovers) -> None:
    assert 1200 < small.holds_kv_tokens < 4800
    marked = {cell.place.kv_tokens: cell.place.beyond_memory for cell in small.cells}
    assert marked == {1200: False, 4800: True}
    by_kv = {cell.place.kv_tokens: cell.standings[0].tokens_per_s for cell in small.cells}
    assert by_kv[4800].value > by_kv[1200].value  # type: ignore[union-attr]


def test_requests_that_were_cut_are_counted(tmp_path: Path) -> None:
    grid = replace(SMALL, output_tokens=(60, 800), kv_tokens=(1200,), cpu_factors=(1.0,))
    cut = {place.output_tokens: place.requests_cut for place, _ in asked(grid, tmp_path).cells}
    assert cut[60] == 0
    assert 0 < cut[800] <= SMALL.requests


def test_the_uncertain_constants_are_told(small: Crossovers) -> None:
    told = {constant.path: constant for constant in small.constants}
    assert told[BANDWIDTH].low < told[BANDWIDTH].value < told[BANDWIDTH].high
    assert "link.h2d_bytes_per_s" not in told, "has no range"


def test_lists() -> None:
    assert numbers("--x", "0.5, 1,2") == (0.5, 1, 2)
    assert counts("--x", "100,200") == (100, 200)
    assert engine_choices("neo,{kind: gpu_only, name: packed, weight_bits: 4}")[:2] == ("gpu_only", "neo")
    assert engine_choices("apex,gpu_only") == ("gpu_only", "apex")


@pytest.mark.parametrize("text", ["", "1,,2", "a", "0", "-1", "inf", "nan", "1,1.0"])
def test_lists_of_anything_else(text: str) -> None:
    with pytest.raises(ConfigError, match="--x"):
        numbers("--x", text)


WHERE = ("--hardware", T4, "--model", "llama-2-7b")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*WHERE, "--outputs", "50,x"), "--outputs 50,x"),
        ((*WHERE, "--kv-tokens", "1.5"), "--kv-tokens 1.5"),
        ((*WHERE, "--cpu-bandwidths", "0,1"), "--cpu-bandwidths 0,1"),
        ((*WHERE, "--engines", "apx"), 'did you mean "apex"?'),
        ((*WHERE, "--engines", "{kind: neo"), "--engines {kind: neo"),
        ((*WHERE, "--dtype", "float8"), "dtype"),
        ((*WHERE, "--out", "nowhere/at/all/map.html"), "--out nowhere/at/all/map.html"),
        (("--hardware", "t5", "--model", "llama-2-7b"), 'hardware "t5"'),
        (("--hardware", T4, "--model", "llama-2-7c"), "did you mean llama-2-7b?"),
        (("--hardware", T4, "--model", "llama-2-13b"), "llama-2-13b in float16 takes"),
        ((*WHERE, "--kv-tokens", "64"), "no request of workload"),
    ],
)
def test_mistakes_are_one_line_each(call: Call, options: tuple[str, ...], said: str) -> None:
    answer = call("map", *options)
    assert answer.code == 2
    assert any(said in line for line in answer.errors), answer.err
    assert "Traceback" not in answer.err
    assert "map.yaml" not in answer.err


def test_the_command_writes_a_page_and_prints_the_same_rows(call: Call, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    options = ("--prompt", 300, "--outputs", 40, "--kv-tokens", 1200, "--cpu-bandwidths", 1, "--engines", "apex")
    answer = call("map", *WHERE, *options, "--requests", 3, "--draws", 1, "--out", page, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["label"] == "simulated"
    assert [cell["kv_tokens"] for cell in found["cells"]] == [1200]
    html = page.read_text()
    assert f"{found['cells'][0]['gain']['value']:.2f}×" in html
    assert found["command"].split()[:2] == ["harness", "map"]
    as_table = call("map", *WHERE, *options, "--requests", 3, "--draws", 1)
    assert found["cells"][0]["winner"] in as_table.out
    assert "simulated" in as_table.out
