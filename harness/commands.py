"""The commands beside experiments: generate, compare, list, doctor, profile, bench.

Registered in cli.py, which owns the exit codes.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.catalogue import Topic
from harness.errors import ENVIRONMENT_EXIT_CODE, ConfigError
from harness.terminal import BackendName, JsonOption, console, print_json

if TYPE_CHECKING:
    from harness.compare import RunComparison


class Bench(StrEnum):
    SCHEDULER = "scheduler"
    DECODE = "decode"
    DRIVER = "driver"
    NATIVE_SIM = "native-sim"
    VLLM = "vllm"
    ENDPOINT = "endpoint"
    ATTENTION = "attention"
    HYBRID = "hybrid"
    PLACEMENT = "placement"
    SIM = "sim"
    COSTS = "costs"
    AGREEMENT = "agreement"
    TRACKING = "tracking"


def generate(
    prompts: Annotated[Path, typer.Option(help='JSONL of {"id", "prompt_token_ids"}.')],
    model: Annotated[str, typer.Option(help="A shape, or a folder with config.json and safetensors.")],
    out: Annotated[Path, typer.Option(help='JSONL of {"id", "token_ids"}.')],
    engine: Annotated[str, typer.Option()] = "gpu_only",
    backend: Annotated[BackendName, typer.Option()] = BackendName.CPU,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Always max-new-tokens.")] = False,
    dtype: Annotated[str, typer.Option()] = "float32",
    max_batch: Annotated[int, typer.Option(min=1)] = 256,
    max_batch_tokens: Annotated[int, typer.Option(min=1)] = 2048,
    accel_kv_tokens: Annotated[int | None, typer.Option(min=1, help="Sized from the machine if not given.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights, where the model is a shape.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="0 leaves all tokens in.")] = 0,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 1.0,
    sampling_seed: Annotated[int, typer.Option(min=0, help="The n-th prompt draws from seed + n.")] = 0,
    emulation: Annotated[str, typer.Option(help="native, or paced to --hardware.")] = "native",
    hardware: Annotated[str | None, typer.Option(help="A machine of the catalogue, or a path.")] = None,
    policy_option: Annotated[list[str], typer.Option("--policy-option", metavar="K=V")] = [],  # noqa: B006
) -> None:
    """Offline generation, for checking tokens rather than times."""
    from harness.offline import checked_options, token_backend

    options = checked_options(
        engine,
        {
            "ignore_eos": ignore_eos,
            "dtype": dtype,
            "max_batch": max_batch,
            "max_batch_tokens": max_batch_tokens,
            "accel_kv_tokens": accel_kv_tokens,
            "seed": seed,
            "emulation": emulation,
            "hardware": hardware,
            "sampling": {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": sampling_seed},
        },
        policy_option,
    )
    resolved = token_backend(backend.value)
    from harness.generate import generate as generate_tokens

    preemptions = generate_tokens(engine, resolved, model, prompts, max_new_tokens, out, options)
    typer.echo(f"{out}: written, on {resolved}, with {preemptions} preemptions", err=True)


def compare(
    run_a: Annotated[Path, typer.Argument(help="The run folder to compare with.")],
    run_b: Annotated[Path, typer.Argument(help="The run folder that may have become better or worse.")],
    threshold: Annotated[str, typer.Option(help="How much worse is a regression.")] = "5%",
    metric: Annotated[list[str], typer.Option(help="One or more of `harness list metrics`.")] = ["output_tokens_per_s"],  # noqa: B006
    across: Annotated[bool, typer.Option("--across", help="Also across labels and machines, with warnings.")] = False,
    why: Annotated[bool, typer.Option("--why", help="Explain every throughput, not only those beyond.")] = False,
    why_page: Annotated[Path | None, typer.Option(help="Also write the explanations to this HTML file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """One run against another, paired by repeat; exit code 1 when a regression is shown.

    Throughputs beyond the threshold are explained: what causes the change, in terms that add up to it.
    """
    from harness.commands_answers import require_folder
    from harness.compare import compare_runs, parse_threshold

    require_folder(why_page, "--why-page")
    found = compare_runs(run_a, run_b, metric, threshold=parse_threshold(threshold), across=across, why=why)
    if why_page is not None:
        _write_why(why_page, found)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo("\n".join(found.lines()))
    raise typer.Exit(found.exit_code)


def _write_why(path: Path, found: RunComparison) -> None:
    from harness.commands_answers import command_line, told
    from reports.waterfalls import why_page
    from results.files import write_text

    explained = [each.drawn(found.label) for each in found.why]
    command = command_line(
        "compare", {"threshold": found.threshold}, str(found.a), str(found.b), "--why", "--why-page", str(path)
    )
    write_text(path, why_page(explained, str(found.a), str(found.b), told(command)))


def list_topic(topic: Annotated[Topic, typer.Argument()], as_json: JsonOption = False) -> None:
    """What an experiment can name."""
    from harness.catalogue import listing

    found = listing(topic)
    if as_json:
        print_json(found.to_json())
        return
    from harness.tables import listing_table

    console().print(listing_table(found))


def doctor(as_json: JsonOption = False) -> None:
    """What this machine can run, and what is missing; exit code 3 when that is the CPU backend."""
    from harness.doctor import examine, is_fit
    from harness.tables import doctor_table

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        console().print(doctor_table(findings))
    raise typer.Exit(0 if is_fit(findings) else ENVIRONMENT_EXIT_CODE)


def profile(
    model: Annotated[str | None, typer.Option(help="A shape, or a folder with config.json and safetensors.")] = None,
    out: Annotated[Path | None, typer.Option(help="The JSON to write; experiments name it as profile:.")] = None,
    backend: Annotated[BackendName, typer.Option(help="cpu or cuda.")] = BackendName.CPU,
    dtype: Annotated[str, typer.Option()] = "float32",
    accel_cores: Annotated[int, typer.Option(min=1, help="Of the cpu backend.")] = 1,
    max_batch_tokens: Annotated[int, typer.Option(min=64, help="The most tokens of a step.")] = 2048,
    max_context: Annotated[int | None, typer.Option(min=64, help="2048, or the model's own limit.")] = None,
    page_tokens: Annotated[int, typer.Option(min=1)] = 16,
    quick: Annotated[bool, typer.Option("--quick", help="A coarse grid, fewer rounds.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="Not with the other units busy: half the time.")] = False,
    rounds: Annotated[int, typer.Option(min=0, help="More on a machine that drifts; 0 for 5, or 3 if quick.")] = 0,
    fit: Annotated[Path | None, typer.Option(help="Also write a machine (YAML) fitted to it, for hardware:.")] = None,
    hardware: Annotated[str | None, typer.Option(help="With --fit: whose memory sizes, peaks and disk it has.")] = None,
    made: Annotated[Path | None, typer.Option("--from", help="With --fit: a JSON made before; nothing is run.")] = None,
) -> None:
    """Measure what a model's ops take on this machine: a cost table for sim, and for predictions.

    --fit turns it, or with --from an earlier one, into constants of a machine, which hold for other models as well.
    """
    from harness.profile_fit import fit_request, write_fit

    fitting = fit_request(fit, hardware, made, model, dtype)
    if made is None:
        if model is None or out is None:
            raise ConfigError(
                "--model, --out: name what to measure and the JSON to write, or one made before by --from"
            )
        made = out
        _measure(
            out,
            backend.value,
            model,
            dtype,
            accel_cores,
            max_batch_tokens,
            max_context,
            page_tokens,
            quick,
            not alone,
            rounds,
        )
    if fitting is not None:
        write_fit(made, fitting)
        typer.echo(f"{fitting.out}: written")


def _measure(out: Path, *asked: Any) -> None:
    from harness.profile import profile as measure
    from harness.profile_accuracy import lines
    from harness.profile_request import checked_request

    found = measure(checked_request(out, *asked), out, lambda line: typer.echo(line, err=True))
    if "load_warning" in found.machine:
        typer.echo(f"warning: {found.machine['load_warning']}", err=True)
    beside = lines(found.accuracy_beside, "others busy") if found.accuracy_beside else ()
    typer.echo("\n".join([*lines(found.accuracy), *beside, f"{out}: written"]))


def bench(what: Annotated[Bench, typer.Argument()], as_json: JsonOption = False) -> None:
    """Our own hot paths against their limits."""
    import_module(f"harness.bench_{what.replace('-', '_')}").main(as_json)
