"""The command line: argv in, exit code out. Every command is a few lines that call what does the work.

Exit codes: 0 fine, 1 regression, 2 usage or configuration, 3 environment unfit, 4 partial, 130 interrupted, and
70 for a fault of our own, which alone shows a traceback without --debug. Imports are inside the commands, because
`harness --help` must not wait for pandas or torch.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness import commands, commands_answers, commands_bundle, commands_claims
from harness.commands_explain import explain
from harness.commands_nightly import nightly
from harness.commands_track import track
from harness.errors import ENVIRONMENT_EXIT_CODE, USAGE_EXIT_CODE, ConfigError, UnfitEnvironmentError, is_user_mistake
from harness.terminal import BackendOption, ConfigOption, JsonOption, SetOption, console, print_json, with_backend

BUG_EXIT_CODE = 70
# Both read the entry points of everything that is installed, and one malformed file of anybody's would end any command.
NO_PLUGINS_OF_THEIRS = {"PYDANTIC_DISABLE_PLUGINS": "__all__", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}

app = typer.Typer(
    name="harness",
    help="Which CPU-GPU scheduler should serve this LLM on this machine, and why?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: turns mistakes into one line each, and everything into an exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    for name, value in NO_PLUGINS_OF_THEIRS.items():
        os.environ.setdefault(name, value)  # for the cells' processes, too
    try:
        app(args=words, prog_name="harness")
    except Exception as error:
        if "--debug" in words:
            raise
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    if is_user_mistake(error):
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        return USAGE_EXIT_CODE
    if isinstance(error, UnfitEnvironmentError):
        typer.echo(f"error: {error}", err=True)
        return ENVIRONMENT_EXIT_CODE
    sys.excepthook(type(error), error, error.__traceback__)
    typer.echo("This is a fault of the harness, not of yours.", err=True)
    return BUG_EXIT_CODE


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            typer.echo(metadata.version("hybrid-harness"))
        except metadata.PackageNotFoundError:
            typer.echo("not installed, running from a checkout")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of mistakes, too.")] = False,
) -> None:
    """Options of every command; main() looks for --debug itself, because it must hold when parsing fails."""


@app.command()
def run(
    config: ConfigOption,
    backend: BackendOption = None,
    sets: SetOption = [],  # noqa: B006 (typer reads the default and makes a new list)
    out: Annotated[Path, typer.Option(help="The folder in which the run gets its own.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Run only what is missing or failed.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run an experiment: run folder, result table, report."""
    from harness.config import load_experiment
    from harness.progress import watcher_for
    from harness.runner import run_experiment

    experiment = load_experiment(config, with_backend(sets, backend))
    watcher = watcher_for(console(stderr=True), quiet)
    command = shlex.join(["harness", *sys.argv[1:]])
    for polite in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(polite) is not signal.SIG_IGN:  # ignored on purpose, as by nohup
            signal.signal(polite, _interrupt)
    outcome = run_experiment(experiment, out, watcher, resume=resume, command=command)
    for warning in outcome.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json({"run_dir": str(outcome.run_dir), **outcome.summary.to_json()})
    elif quiet:
        _print_failures(outcome)
    else:
        _print_outcome(outcome)
    raise typer.Exit(outcome.exit_code)


@app.command()
def plan(
    config: ConfigOption,
    backend: BackendOption = None,
    sets: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """The cells in the order they would run, and what they need; runs nothing."""
    from harness.checks import require_runnable
    from harness.config import load_experiment
    from harness.needs import needs, total_time
    from harness.plan import expand, resolve_backend
    from harness.tables import plan_table

    experiment = load_experiment(config, with_backend(sets, backend))
    resolved, label, why = resolve_backend(experiment)
    cells = expand(experiment, resolved)
    require_runnable(cells, resolved)
    found = needs(cells)
    if as_json:
        print_json({"backend": resolved, "label": label, "why": why, "cells": [need.to_json() for need in found]})
        return
    console().print(plan_table(f"{experiment.name}: {len(cells)} cells on {resolved} ({label}: {why})", found))
    typer.echo(total_time(found))


@app.command()
def validate(
    config: Annotated[str, typer.Option("--config", help="As for run.")] = "",
    backend: BackendOption = None,
    sets: SetOption = [],  # noqa: B006
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of experiments instead.")] = False,
) -> None:
    """Say what is wrong with an experiment, one line per mistake; exit code 2 when anything is."""
    from harness.checks import require_runnable
    from harness.config import json_schema, load_experiment
    from harness.plan import expand, resolve_backend

    if schema:
        print_json(json_schema())
        return
    if not config:
        raise ConfigError("validate needs --config NAME_OR_PATH, or --schema")
    experiment = load_experiment(config, with_backend(sets, backend))
    resolved, label, why = resolve_backend(experiment)
    cells = expand(experiment, resolved)
    require_runnable(cells, resolved)
    typer.echo(f"{experiment.name}: valid, {len(cells)} cells on {resolved} ({label}: {why})")


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Rebuild the HTML report of a run."""
    from reports.page import write_report

    typer.echo(str(write_report(run_dir)))


app.add_typer(explain)
app.add_typer(track)
app.command()(nightly)
app.command()(commands.generate)
app.command()(commands.compare)
app.command("list")(commands.list_topic)
app.command()(commands.doctor)
app.command()(commands.profile)
app.command()(commands.bench)
app.command("map")(commands_answers.map_crossovers)
app.command()(commands_claims.claims)
app.command()(commands_claims.recommend)
app.command()(commands_bundle.bundle)
app.command()(commands_bundle.verify)


def _print_outcome(outcome: Any) -> None:
    from harness.tables import result_table

    if outcome.summary.cells:
        console().print(result_table(outcome.summary))
    if outcome.cost_model_error:
        typer.echo(outcome.cost_model_error)
    for verdict in outcome.summary.verdicts:
        typer.echo(verdict)
    typer.echo(f"results: {outcome.run_dir}")
    if outcome.interrupted:
        typer.echo("interrupted; the same command with --resume goes on")
    if outcome.report:
        typer.echo(f"report:  {outcome.report}")


def _print_failures(outcome: Any) -> None:
    for cell in outcome.summary.cells:
        if cell.error:
            typer.echo(f"{cell.status}: {cell.cell_id}: {cell.error.splitlines()[0]}", err=True)


def _interrupt(signum: int, frame: object) -> NoReturn:
    """A polite request to end is handled as Ctrl-C: children ended, what is done kept."""
    raise KeyboardInterrupt
