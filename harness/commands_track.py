"""The commands of a history of nights: track add, check, report, ack, export. Registered in cli.py, which owns the exit
codes. They run no experiment.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import ConfigError
from harness.terminal import JsonOption, print_json
from results.roles import Role

track = typer.Typer(
    name="track", help="Whether a scheduler became slower: runs of many nights, kept and judged.", no_args_is_help=True
)

DEFAULT_HISTORY = Path("history.sqlite")  # beside the default folder of runs

HistoryOption = Annotated[Path, typer.Option("--db", help="The history, one file.")]
MetricOption = Annotated[list[str], typer.Option("--metric", help="One or more of `harness list metrics`.")]
AsOfOption = Annotated[
    str | None, typer.Option("--night", metavar="DATE", help="As of this night; today if not given.")
]


class Format(StrEnum):
    GITHUB = "github-benchmark"
    PYTORCH = "pytorch-benchmark"


class Tool(StrEnum):
    BIGGER = "customBiggerIsBetter"
    SMALLER = "customSmallerIsBetter"


@track.command()
def add(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, of this machine or of others.")],
    db: HistoryOption = DEFAULT_HISTORY,
    night: Annotated[str | None, typer.Option(metavar="DATE", help="When it was run, if not given.")] = None,
    role: Annotated[Role, typer.Option(help="What the runs were for.")] = Role.NIGHT,
) -> None:
    """Keep every cell of these runs. What is there already is left alone."""
    from harness.tracking.recording import recorded, unfinished
    from results.history import History

    rows = [recorded(path, night=night, role=role) for path in runs]  # all of them readable, before any is added
    with History.opened(db, create=True) as history:
        for path, row in zip(runs, rows, strict=True):
            typer.echo(f"{path}: {history.add(row)}, {row.role} of {row.night}, {_cells(len(row.cells))}")
            if row.unfit:
                typer.echo(f"warning: {path}: kept, and not judged: {row.unfit}", err=True)
            if lost := unfinished(path):
                typer.echo(f"warning: {path}: {_cells(lost)} never finished, and not in the history", err=True)


@track.command()
def check(
    db: HistoryOption = DEFAULT_HISTORY,
    night: AsOfOption = None,
    metric: MetricOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """One sentence per finding. Exit code 1: a regression is open; 3: the machine was unfit, or figures are missing."""
    from harness.tracking.checking import acks_by_series
    from harness.tracking.checking import check as checked
    from harness.tracking.loading import load_tracked
    from results.history import History

    with History.opened(db) as history:
        found = checked(load_tracked(history, metric), acks_by_series(history.acks()), as_of_night(night))
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo("\n".join(found.lines()))
    raise typer.Exit(found.exit_code)


@track.command()
def report(
    db: HistoryOption = DEFAULT_HISTORY,
    night: AsOfOption = None,
    metric: MetricOption = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("history.html"),
) -> None:
    """The history as one page that needs no network: a chart for each series, changes, noise, missing nights."""
    from harness.commands_answers import command_line, require_folder, told
    from harness.tracking.checking import acks_by_series
    from harness.tracking.checking import check as checked
    from harness.tracking.loading import load_tracked
    from harness.tracking.telling import told_history
    from reports.history_page import history_page
    from results.files import write_text
    from results.history import History

    require_folder(out)
    as_of = as_of_night(night)
    with History.opened(db) as history:
        found = checked(load_tracked(history, metric), acks_by_series(history.acks()), as_of)
        data = told_history(history, found, metric)
    asked = {"db": db, "night": as_of, "out": out}
    command = command_line("track report", asked, *(word for key in metric for word in ("--metric", key)))
    write_text(out, history_page(data, told(command)))
    typer.echo(f"{out}: written")


@track.command()
def ack(
    series: Annotated[str, typer.Argument(help="As `track check --json` and the page name it.")],
    night: Annotated[str, typer.Option(metavar="DATE", help="On which the change came, as it was told.")],
    reason: Annotated[str, typer.Option(help="Why it is as it should be; kept and shown.")],
    db: HistoryOption = DEFAULT_HISTORY,
) -> None:
    """Say that a change is known and meant: what comes after is judged by the level that it began."""
    from harness.tracking.loading import find_tracked, load_every
    from harness.tracking.recording import parse_night
    from results.history import History
    from results.history_rows import Ack

    day, why = parse_night(night), " ".join(reason.split())
    if not why:
        raise ConfigError("--reason: say why; whoever reads the history later will want to know")
    with History.opened(db) as history:
        found = find_tracked(load_every(history), series)
        first, last = (found.series.nights[at].day for at in (0, -1))
        if day < first:
            raise ConfigError(f"--night {day}: {found.name} begins on {first}")
        history.acknowledge(Ack(found.name, day, why, datetime.now(UTC).isoformat(timespec="seconds")))
    later = f"; it has no night after {last}, and if none comes it is taken to have ended" if day > last else ""
    typer.echo(f"{found.name}: acknowledged from {day} on: {why}{later} [{found.label}]")


@track.command()
def export(
    form: Annotated[Format, typer.Option("--format", help="Of whose dashboard.")],
    db: HistoryOption = DEFAULT_HISTORY,
    night: Annotated[str | None, typer.Option(metavar="DATE", help="The last one with figures if not given.")] = None,
    metric: MetricOption = [],  # noqa: B006
    tool: Annotated[Tool, typer.Option(help="Of github-benchmark: which of its two kinds.")] = Tool.BIGGER,
    out: Annotated[Path | None, typer.Option(help="A file to write, instead of stdout.")] = None,
) -> None:
    """A night's figures as JSON for others' dashboards, with raw repeats where there is room for them."""
    from harness.commands_answers import require_folder
    from harness.tracking.exports import github_benchmark, on_night, pytorch_benchmark
    from harness.tracking.loading import load_tracked
    from harness.tracking.recording import parse_night
    from results.files import write_json
    from results.history import History

    require_folder(out)
    with History.opened(db) as history:
        _, figures = on_night(load_tracked(history, metric), parse_night(night) if night else None)
        records = (
            github_benchmark(figures, higher_is_better=tool is Tool.BIGGER)
            if form is Format.GITHUB
            else pytorch_benchmark(figures, history.setups(), history.testbeds())
        )
    if not records:
        raise ConfigError(f"--tool {tool}: none of the metrics is of that kind; name others with --metric")
    if out is None:
        print_json(records)
    else:
        write_json(out, records)
        typer.echo(f"{out}: written")


def as_of_night(night: str | None) -> str:
    from harness.tracking.recording import parse_night

    return datetime.now(UTC).date().isoformat() if night is None else parse_night(night)


def _cells(number: int) -> str:
    return "1 cell" if number == 1 else f"{number} cells"
