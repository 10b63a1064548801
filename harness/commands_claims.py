"""The commands that take a stand: claims and recommend. Registered in cli.py, which owns the exit codes.

What is simulated leaves no run folder; what claims measure does.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.commands_answers import Said, command_line, require_folder, told
from harness.terminal import JsonOption, console, print_json


class ClaimBackend(StrEnum):
    auto = "auto"
    sim = "sim"
    cuda = "cuda"


DrawsOption = Annotated[int, typer.Option(min=1, help="Machines within the ranges of uncertain constants.")]


def claims(
    only: Annotated[list[str], typer.Option(help="A claim's id, or its beginning; all of them if not given.")] = [],  # noqa: B006
    draws: DrawsOption = 8,
    backend: Annotated[
        ClaimBackend,
        typer.Option(help="auto measures claims about the GPU that is here, simulates others; cuda only measures."),
    ] = ClaimBackend.auto,
    runs: Annotated[Path, typer.Option(help="The folder in which runs that measure get their own.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="An HTML page to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Published claims, and what we find: reproduced only where it was measured on that machine."""
    from harness.claim_runs import found_where_possible
    from harness.claim_verdicts import verdict
    from harness.claims import chosen, load_claims
    from harness.progress import watcher_for
    from harness.tables import claims_table

    require_folder(out)
    asked = chosen(load_claims(), only)
    watcher = watcher_for(console(stderr=True), quiet=as_json)
    found = found_where_possible(asked, backend.value, draws, runs, watcher, Said())
    verdicts = [verdict(claim, found.get(claim.id)) for claim in asked]
    if out is not None:
        from reports.claims_page import claims_page
        from results.files import write_text

        chosen_ones = (word for name in only for word in ("--only", name))
        command = command_line("claims", {"draws": draws, "backend": backend.value}, *chosen_ones)
        write_text(out, claims_page([each.to_json() for each in verdicts], told(command)))
    if as_json:
        print_json([each.to_json() for each in verdicts])
        return
    console().print(claims_table(verdicts))
    for each in verdicts:
        typer.echo(f"{each.claim.id}: {each.claim.says}. {each.word.value.capitalize()}: {each.why}.")
    if out is not None:
        typer.echo(f"{out}: written")


def recommend(
    hardware: Annotated[str, typer.Option(help="A machine of the catalogue, a path, or local: the GPU that is here.")],
    model: Annotated[str, typer.Option(help="A shape, or a folder with config.json.")],
    workload: Annotated[str, typer.Option(help="A kind such as chat, or {kind: long_output, prompt: 1000, ...}.")],
    slo: Annotated[str | None, typer.Option(help="Such as ttft_s=2,tpot_s=0.1: ranked by goodput then.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of the machine per hour: costs per million.")] = None,
    dtype: Annotated[str, typer.Option()] = "float16",
    gpu_memory: Annotated[str, typer.Option(help='Such as "14.6GiB"; nine tenths if auto.')] = "auto",
    gpus: Annotated[int, typer.Option(min=1, help="Of the machine's, each with so much memory.")] = 1,
    draws: DrawsOption = 8,
    as_json: JsonOption = False,
) -> None:
    """Which engine should serve this model on this machine, by how much, and how sure that is: simulated."""
    from harness.recommend import recommended
    from harness.recommend_setup import Question
    from harness.tables import recommendation_table

    question = Question(hardware, model, workload, dtype, slo, price, gpu_memory, draws, gpus)
    found = recommended(question, Said())
    if as_json:
        print_json(asdict(found))
        return
    console().print(recommendation_table(found))
    typer.echo(found.cost_model_error)
    for engine, why in found.ruled_out:
        typer.echo(f"{engine} cannot: {why}")
    typer.echo("")
    typer.echo("\n".join(f"{line} [{found.label}]" for line in found.verdicts))
    typer.echo(f"\nWith records and a report: {found.command}")
