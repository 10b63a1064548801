"""What the commands share: their common options, and how they print to a terminal or a pipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

PIPED_WIDTH = 200  # a pipe has no width, and a table folded at 80 columns is no use to grep


class BackendName(StrEnum):
    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"
    SIM = "sim"
    ENDPOINT = "endpoint"


ConfigOption = Annotated[str, typer.Option("--config", help="A shipped experiment, or the path of a YAML file.")]
BackendOption = Annotated[BackendName | None, typer.Option("--backend", help="Instead of the file's backend.")]
SET_HELP = "a.b=value, read as YAML; list entries by index. Wins over HARNESS_SET_a__b=value in the environment."
SetOption = Annotated[list[str], typer.Option("--set", help=SET_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def with_backend(sets: Sequence[str], backend: BackendName | None) -> list[str]:
    """--backend is one more --set."""
    return [*sets, *([f"backend={backend.value}"] if backend else [])]


def print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2))


def console(stderr: bool = False) -> Console:
    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(stderr=stderr, width=PIPED_WIDTH)
