"""The command that runs a night, here and in continuous integration. Registered in cli.py, as all commands are."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness.commands_track import DEFAULT_HISTORY, HistoryOption
from harness.terminal import JsonOption, SetOption, console, print_json

DEFAULT_CONFIGS = ["nightly", "nightly_sim", "nightly_sim_a10"]
WAIT_S = 120.0
ConfigsOption = Annotated[
    list[str], typer.Option("--config", help="A shipped experiment, or a YAML; more by repeating.")
]


def nightly(
    config: Annotated[
        list[str], typer.Option("--config", help="A shipped experiment or a YAML; may be repeated.")
    ] = DEFAULT_CONFIGS,
    db: HistoryOption = DEFAULT_HISTORY,
    out: Annotated[Path, typer.Option(help="The folder in which each run gets its own.")] = Path("runs"),
    pages: Annotated[Path, typer.Option(help="The folder of static pages to write.")] = Path("pages"),
    night: Annotated[str | None, typer.Option(metavar="DATE", help="Today if not given.")] = None,
    sets: SetOption = [],  # noqa: B006
    wait: Annotated[float, typer.Option(min=0, help="Seconds for a busy machine to become idle.")] = WAIT_S,
    force: Annotated[bool, typer.Option("--force", help="Run on an unfit machine, too: kept, not judged.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run, judge and show a night: has a scheduler become slower?

    Exit code 1: a regression was confirmed; 3: the machine was unfit, or figures are missing; 4: some cells failed.
    """
    from harness.commands_answers import command_line, told
    from harness.commands_track import as_of_night
    from harness.progress import watcher_for
    from harness.tracking.nightly import Asked, run_night
    from harness.tracking.publishing import night_json, publish

    for polite in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(polite) is not signal.SIG_IGN:
            signal.signal(polite, _interrupt)
    asked = Asked(tuple(dict.fromkeys(config)), db, out, as_of_night(night), wait, force, tuple(sets))
    found = run_night(asked, lambda: watcher_for(console(stderr=True), quiet=False), _say)
    options = {"db": db, "out": out, "pages": pages, "night": asked.night}
    more = [word for each in asked.configs for word in ("--config", each)]
    more += [word for each in sets for word in ("--set", each)]
    index = publish(found, db, pages, told(command_line("nightly", options, *more)))
    if as_json:
        print_json(night_json(found) | {"index": str(index)})
    else:
        _tell(found, index)
    raise typer.Exit(found.exit_code)


def _tell(found: Any, index: Path) -> None:
    reasons = [line for reason in found.reasons for line in reason.lines()]
    typer.echo("\n".join([*(f"failed: {each}" for each in found.failed), *found.check.lines(), *reasons]))
    for made in found.made:
        typer.echo(f"{made.role}: {made.outcome.run_dir}")
    typer.echo(f"pages: {index}")


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
