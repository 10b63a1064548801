"""The machine that a cell is modelled on: the catalogue's entry, or one of the draws from its uncertain constants."""

from engines.hardware import Hardware, drawn, load_hardware
from harness.plan import CellSpec


def machine_of(spec: CellSpec) -> Hardware:
    """Only for cells that name one."""
    assert spec.hardware is not None
    return drawn(load_hardware(spec.hardware), spec.draw, spec.draws)
