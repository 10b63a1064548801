"""The commands that hand evidence over, and check what was handed over. Registered in cli.py, as all are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.terminal import JsonOption, print_json


def bundle(
    run_dir: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; if not given, named by run and id.")] = None,
) -> None:
    """A run as one file with a hash of everything in it; equal runs give equal bytes."""
    from harness.bundle import make_bundle

    made = make_bundle(run_dir, out)
    for path in made.left_out:
        typer.echo(f"left out: {path}: no part of a run", err=True)
    typer.echo(f"bundle: {made.path} ({made.files} files)")
    typer.echo(f"id:     {made.id}")


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or the folder that it was unpacked into.")],
    quoted_id: Annotated[str, typer.Option("--id", help="As somebody quoted it; 16 digits of it are enough.")] = "",
    simulate: Annotated[bool, typer.Option("--simulate/--no-simulate", help="Simulated cells once more.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Every hash, then every number again from the records; exit code 1 at any difference, 2 if it is no bundle."""
    from harness.verify import verify as verify_bundle

    found = verify_bundle(bundle, quoted_id=quoted_id, simulate=simulate)
    if as_json:
        print_json(found.to_json())
        raise typer.Exit(found.exit_code)
    for name, (theirs, ours) in found.other_code.items():
        typer.echo(f"other code: {name} was {theirs}, here {ours}: numbers are compared, bytes of the report are not")
    for difference in found.differences:
        typer.echo(difference.line())
    for line in found.as_recorded:
        typer.echo(f"as recorded: {line}")
    typer.echo(f"id: {found.id}")
    if found.differences:
        typer.echo(f"not verified: {len(found.differences)} differences")
    else:
        again = f", {found.simulated_again} cells simulated again" if found.simulated_again else ""
        typer.echo(f"verified: {found.files} files, {found.recomputed} figures and texts recomputed{again}")
    raise typer.Exit(found.exit_code)
