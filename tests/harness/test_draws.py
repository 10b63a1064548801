"""Machines within the ranges of a catalogue entry: the same for every engine, and each range seen whole."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest

from engines.hardware import drawn, load_hardware, uncertain
from engines.hardware.machine import Hardware
from harness.bands import draws_of
from harness.config import load_experiment
from harness.lean import figures
from harness.plan import CellSpec, expand

T4 = "t4_g4dn_4xlarge"
OF = 8


def _at(machine: Hardware, path: str) -> float:
    def step(value: object, name: str) -> object:
        return value[name] if isinstance(value, dict) else getattr(value, name)

    return reduce(step, path.split("."), machine)  # type: ignore[return-value, arg-type]


def test_no_draw_is_the_entry_itself() -> None:
    machine = load_hardware(T4)
    assert drawn(machine, 0, OF) == machine


def test_draws_stay_within_the_ranges_and_leave_all_else_alone() -> None:
    machine = load_hardware(T4)
    ranges = uncertain(machine)
    assert ranges
    for draw in range(1, OF + 1):
        other = drawn(machine, draw, OF)
        for path, source in ranges.items():
            assert source.low <= _at(other, path) <= source.high, path  # type: ignore[operator]
        for path in machine.sources.keys() - ranges.keys():
            assert _at(other, path) == _at(machine, path), path


def test_each_constant_takes_every_stretch_of_its_range_once() -> None:
    machine = load_hardware(T4)
    source = machine.sources["host_overhead_per_step_s"]  # from 0: its stretches are equal in seconds
    seen = sorted(drawn(machine, draw, OF).host_overhead_per_step_s for draw in range(1, OF + 1))
    stretch = source.high / OF  # type: ignore[operator]
    assert [int(value / stretch) for value in seen] == list(range(OF))


def test_draws_recur_and_differ() -> None:
    machine = load_hardware(T4)
    assert drawn(machine, 3, OF) == drawn(load_hardware(T4), 3, OF)
    assert drawn(machine, 3, OF) != drawn(machine, 4, OF)


def test_there_are_no_more_draws_than_asked_for() -> None:
    with pytest.raises(ValueError, match="draw 9 of 8"):
        drawn(load_hardware(T4), 9, OF)


def _cell() -> CellSpec:
    return expand(load_experiment("quickstart", ["backend=sim", "measure.draws=3", "measure.repeats=2"]), "sim")[0]


def test_a_cell_tells_its_figures_on_each_drawn_machine() -> None:
    cell = _cell()
    found = draws_of(cell)
    assert found is not None
    rates = found.values["output_tokens_per_s"]
    assert rates == tuple(figures(replace(cell, draw=draw)).metrics["output_tokens_per_s"] for draw in (1, 2, 3))
    assert len(set(rates)) == 3


def test_only_the_first_repeat_of_a_simulated_cell_draws() -> None:
    experiment = load_experiment("quickstart", ["measure.draws=3", "measure.repeats=2"])
    assert {cell.repeat for cell in expand(experiment, "sim") if cell.draws} == {0}
    assert not any(cell.draws for cell in expand(experiment, "cpu"))
    assert draws_of(replace(_cell(), draws=0)) is None


def test_drawing_is_no_part_of_what_a_cell_is() -> None:
    ids = [
        [cell.cell_id for cell in expand(load_experiment("quickstart", [f"measure.draws={draws}"]), "sim")]
        for draws in (0, 3)
    ]
    assert ids[0] == ids[1]
