"""`harness explain lp`: the plan of an LP-balanced placement, by the published equations.

Nothing runs: what is printed is predicted from constants, and says whose they are. The engine that places weights by
it (engines/lp_balanced) takes its constants from what it believes of its machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from engines.lp_balanced.constants import ConstantsError, load_constants
from engines.lp_balanced.flexgen import Layer
from engines.lp_balanced.planner import Memory, NoPlanError, Plan, plan
from engines.lp_balanced.shapes import OPT
from engines.suggest import did_you_mean
from harness.errors import ConfigError
from harness.sizes import format_bytes, parse_bytes

MEMORIES = ("--gpu-memory", "--cpu-memory", "--disk")
TIERS = {"GPU": "g", "CPU": "c", "disk": "n"}
PLACED = {"weights": "w", "KV cache": "c", "hidden state": "h"}


def explained(
    model: str,
    constants: str,
    prompt: int,
    output: int,
    memories: tuple[str, str, str],
    gpu_batch: int | None = None,
    batches: int | None = None,
) -> Plan:
    if model not in OPT:
        raise ConfigError(f"--model {model}: is no model of this planner; {did_you_mean(model, OPT)}")
    memory = Memory(*parsed_memories(memories))
    try:
        layer = Layer(OPT[model], load_constants(constants), prompt, output, 1, 1)
        return plan(layer, memory, gpu_batch, batches)
    except ConstantsError as error:
        raise ConfigError(str(error).splitlines()) from error
    except NoPlanError as error:
        raise ConfigError(str(error)) from error


def parsed_memories(memories: tuple[str, str, str]) -> tuple[int, int, int]:
    """Of GPU, CPU and disk; ConfigError with a line for each that is no size."""
    sizes, problems = [], []
    for option, text in zip(MEMORIES, memories, strict=True):
        try:
            sizes.append(parse_bytes(text))
        except ValueError as error:
            problems.append(f"{option}: {error}")
    if problems:
        raise ConfigError(problems)
    gpu, cpu, disk = sizes
    return gpu, cpu, disk


def plan_lines(found: Plan) -> Iterator[str]:
    layer, fractions = found.layer, found.fractions
    yield (
        f"{layer.model.name}, {layer.s} + {layer.n} tokens, predicted from {layer.constants.name}: "
        f"{found.tokens_per_s:.2f} tokens/s, {found.total_s:.1f} s for a block of {layer.gpu_batch} x {layer.batches}"
    )
    for what, letter in PLACED.items():
        shares = [(tier, getattr(fractions, letter + suffix)) for tier, suffix in TIERS.items()]
        yield f"  {what}: " + ", ".join(f"{share:.1%} {tier}" for tier, share in shares if share >= 0.0005)
    yield "  peak memory: " + ", ".join(f"{tier} {format_bytes(size)}" for tier, size in found.peak_bytes.items())
    yield f"  what binds: {', '.join(found.binds)}"
    for name, dual in found.duals.items():
        if name.split(" ", 2)[1].startswith("memory"):
            yield f"  a GiB more of {name} saves {dual:.3f} s per request"
        else:
            yield f"  a second of {name} in a layer costs {dual:.2f} s per request"
