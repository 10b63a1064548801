"""The commands that answer questions by simulating many cells at once: map. Registered in cli.py, which owns the exit
codes. Nothing here runs an experiment or leaves a run folder.
"""

from __future__ import annotations

import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import ConfigError
from harness.terminal import JsonOption, console, print_json

SAID_EVERY_S = 10.0  # what takes less says nothing
ENGINES = "gpu_only,{kind: static_partition, host_share: 0.5},neo,apex"


def map_crossovers(
    hardware: Annotated[str, typer.Option(help="A machine of the catalogue, or a path.")],
    model: Annotated[str, typer.Option(help="A shape, or a folder with config.json.")],
    dtype: Annotated[str, typer.Option()] = "float16",
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of each prompt, give or take a tenth.")] = 1000,
    outputs: Annotated[str, typer.Option(help="Tokens of each output.")] = "50,100,200,400",
    kv_tokens: Annotated[str, typer.Option(help="KV budgets of the accelerator.")] = "1200,2400,4800,9600",
    cpu_bandwidths: Annotated[str, typer.Option(help="Times what the catalogue says.")] = "0.5,1,2",
    engines: Annotated[str, typer.Option(help="Names, or {kind: ..., options}; gpu_only is always there.")] = ENGINES,
    requests: Annotated[int, typer.Option(min=1)] = 24,
    draws: Annotated[int, typer.Option(min=1, help="Machines within the ranges of uncertain constants.")] = 4,
    out: Annotated[Path | None, typer.Option(help="An HTML page to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Which engine wins where, by how much over gpu_only, and where nobody can tell: simulated."""
    from harness.crossover import crossovers
    from harness.crossover_grid import Grid, counts, engine_choices, numbers

    grid = Grid(
        hardware=hardware,
        model=model,
        dtype=dtype,
        prompt_tokens=prompt,
        output_tokens=counts("--outputs", outputs),
        kv_tokens=counts("--kv-tokens", kv_tokens),
        cpu_factors=numbers("--cpu-bandwidths", cpu_bandwidths),
        engines=engine_choices(engines),
        requests=requests,
    )
    require_folder(out)
    found = crossovers(grid, draws, Said()).to_json()
    asked = {
        "hardware": hardware,
        "model": model,
        "dtype": dtype,
        "prompt": prompt,
        "outputs": outputs,
        "kv-tokens": kv_tokens,
        "cpu-bandwidths": cpu_bandwidths,
        "engines": engines,
        "requests": requests,
        "draws": draws,
    }
    _tell_map(found | {"command": command_line("map", asked)}, out, as_json)


def _tell_map(found: dict[str, Any], out: Path | None, as_json: bool) -> None:
    if out is not None:
        from reports.map_page import map_page
        from results.files import write_text

        write_text(out, map_page(found, told(found["command"])))
    if as_json:
        print_json(found)
        return
    from harness.crossover_table import map_listing
    from harness.tables import listing_table

    console().print(listing_table(map_listing(found)))
    typer.echo(found["cost_model_error"])
    if out is not None:
        typer.echo(f"{out}: written")


def told(command: str) -> dict[str, str]:
    """What a page says of its own making."""
    from harness.environment import git_state

    commit, changed = git_state()
    state = "" if commit is None else f"{commit}{' with uncommitted changes' if changed else ''}"
    return {"command": command, "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": state}


class Said:
    """Progress on stderr, now and then."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + SAID_EVERY_S

    def __call__(self, done: int, of: int) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + SAID_EVERY_S
            typer.echo(f"{done} of {of} simulations", err=True)


def command_line(name: str, options: dict[str, object], *more: str) -> str:
    """Every option in full: defaults may change."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return shlex.join(["harness", name, *words, *more])


def require_folder(out: Path | None, option: str = "--out") -> None:
    """Before minutes of work, not after."""
    if out is not None and (not out.absolute().parent.is_dir() or out.is_dir()):
        raise ConfigError(f"{option} {out}: no such folder to write a file into")
