"""`harness explain`: why a scheduler does what it does. Registered in cli.py."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from harness.terminal import BackendOption, ConfigOption, JsonOption, SetOption, console, print_json, with_backend

explain = typer.Typer(
    name="explain", help="Why: what an engine would decide, and by which numbers.", no_args_is_help=True
)


class Planner(StrEnum):
    FLEXGEN = "flexgen"
    TWINPILOTS = "twinpilots"


class Form(StrEnum):
    LP = "lp"
    INTEGER = "integer"


class DTypeName(StrEnum):
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


Size = Annotated[str, typer.Option(help='Such as "16GiB".')]


@explain.command("lp")
def explain_lp(
    model: Annotated[str, typer.Option(help="An OPT model, such as opt-30b; twinpilots: any shape.")],
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")],
    output: Annotated[int, typer.Option(min=2, help="Tokens of each answer.")],
    gpu_memory: Size,
    cpu_memory: Size,
    disk: Size,
    planner: Annotated[Planner, typer.Option()] = Planner.FLEXGEN,
    constants: Annotated[
        str | None, typer.Option(help="A shipped fit, or a YAML file of your own; twinpilots: a machine.")
    ] = None,
    gpu_batch: Annotated[int | None, typer.Option(min=1, help="Requests at a time; searched if not given.")] = None,
    num_gpu_batches: Annotated[int | None, typer.Option(min=1, help="flexgen: of them in a block; searched.")] = None,
    form: Annotated[Form, typer.Option(help="twinpilots: operators split by columns, or whole.")] = Form.LP,
    as_json: JsonOption = False,
) -> None:
    """Where weights, cache and hidden state would lie when a model does not fit, and what binds the plan."""
    from harness.explain_lp import explained, parsed_memories, plan_lines

    memories = (gpu_memory, cpu_memory, disk)
    if planner is Planner.TWINPILOTS:
        from harness.explain_pilot import HARDWARE, explained_pilot, pilot_lines

        room = parsed_memories(memories)
        pilot = explained_pilot(model, constants or HARDWARE, prompt, output, room, gpu_batch or 4, form.value)
        print_json(pilot.to_json()) if as_json else typer.echo("\n".join(pilot_lines(pilot)))
        return
    found = explained(model, constants or "flexgen_t4", prompt, output, memories, gpu_batch, num_gpu_batches)
    if as_json:
        print_json(found.to_json())
        return
    typer.echo("\n".join(plan_lines(found)))


@explain.command("run")
def explain_run(
    config: ConfigOption,
    backend: BackendOption = None,
    sets: SetOption = [],  # noqa: B006
    engine: Annotated[str | None, typer.Option(help="One of the experiment's; all of them if not given.")] = None,
    accel_rows: Annotated[int | None, typer.Option(min=0, help="Decodes on the GPU; as many as its KV holds.")] = None,
    host_rows: Annotated[int | None, typer.Option(min=0, help="Decodes on the host; four times as many.")] = None,
    context: Annotated[int, typer.Option(min=2, help="Tokens that each attends to.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """What each engine would decide in one state: mode, host decodes, predicted times, the paper's inequality."""
    from harness.config import load_experiment
    from harness.explain import explain as explained
    from harness.plan import expand, resolve_backend
    from harness.tables import explanation_tables

    experiment = load_experiment(config, with_backend(sets, backend))
    resolved, label, _ = resolve_backend(experiment)
    found = explained(expand(experiment, resolved), engine, accel_rows, host_rows, context)
    if as_json:
        print_json(found.to_json())
        return
    typer.echo(f"{experiment.name} on {resolved} ({label})")
    for title, table in explanation_tables(found):
        typer.echo(f"\n{title}")
        console().print(table)


@explain.command("ops")
def explain_ops(
    hardware: Annotated[str, typer.Option(help="A machine of the catalogue, or the path of a YAML file.")],
    model: Annotated[str, typer.Option(help="A shape, or the folder of a model.")],
    tokens: Annotated[str, typer.Option(help="Rows of the matrix products and copies, such as 1,16,256.")],
    context: Annotated[int, typer.Option(min=1, help="Tokens that each decode attends to.")] = 1000,
    batch: Annotated[int | None, typer.Option(min=1, help="Decodes; as many as tokens if not given.")] = None,
    dtype: Annotated[DTypeName, typer.Option()] = DTypeName.FLOAT16,
    as_json: JsonOption = False,
) -> None:
    """What each op of one layer takes on a machine, and which of the machine's constants decides it."""
    from harness.explain_ops import constants_listing, explained_ops, ops_listing, parsed_tokens
    from harness.tables import listing_table

    found = explained_ops(hardware, model, parsed_tokens(tokens), context, batch, dtype.value)
    if as_json:
        print_json(found.to_json())
        return
    typer.echo(f"one layer of {found.model} in {found.dtype} on {found.hardware}, predicted; context {found.context:,}")
    console().print(listing_table(ops_listing(found)))
    typer.echo("\nthe constants that decide, with the range each may well lie in")
    console().print(listing_table(constants_listing(found)))
