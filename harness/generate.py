"""`harness generate`: offline generation through an engine, token ids in, token ids out. No timing is claimed here.

Input: one JSON object per line, {"id", "prompt_token_ids"}; output: {"id", "token_ids"} in the same order, written
whole or not at all. A request that the engine refuses, or that fails, ends the command with the reason: a missing
answer must not look like an empty one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.core.adapter import EngineAdapter, Submission
from engines.core.types import Refusal
from engines.model.config import load_config
from harness.build import offline_adapter
from harness.errors import ConfigError
from harness.experiment import Budget, Emulation
from harness.plan import LABELS, CellMeasure, CellSpec, EngineSpec, ResolvedBackend, WorkloadSpec
from harness.sizing import size
from results.files import write_text


@dataclass(frozen=True, slots=True)
class Prompt:
    prompt_id: Any  # whatever JSON value the user gave, handed back unchanged
    token_ids: tuple[int, ...]


def generate(
    engine: str,
    backend: ResolvedBackend,
    model: str,
    prompts_path: Path,
    max_new_tokens: int,
    out_path: Path,
    options: Mapping[str, Any],
) -> int:
    """`options` as offline.py has checked them. Returns the number of preemptions: how starved the run was."""
    if backend == "sim":
        raise ConfigError("--backend sim computes no tokens; use cpu or cuda")
    shape = load_config(model)
    prompts = read_prompts(prompts_path, shape.vocab_size)
    stop_ids = frozenset() if options["ignore_eos"] else frozenset(shape.eos_ids)
    longest = max(len(prompt.token_ids) for prompt in prompts) + max_new_tokens
    spec = specification(engine, backend, model, options)
    adapter = offline_adapter(_with_kv_needed(spec, prompts, max_new_tokens), longest, options.get("sampling"))
    try:
        answers, preemptions = run_offline(adapter, prompts, max_new_tokens, stop_ids)
    finally:
        adapter.close()
    lines = (
        json.dumps({"id": prompt.prompt_id, "token_ids": tokens})
        for prompt, tokens in zip(prompts, answers, strict=True)
    )
    write_text(out_path, "\n".join(lines) + "\n")
    return preemptions


def _with_kv_needed(spec: CellSpec, prompts: list[Prompt], max_new_tokens: int) -> CellSpec:
    """Sized from the machine, but no larger than all prompts at once can fill."""
    if spec.budget.accel_kv_tokens != "auto":
        return spec
    page_tokens = spec.budget.accel_page_tokens
    most = sum(-(-(len(prompt.token_ids) + max_new_tokens) // page_tokens) for prompt in prompts)
    tokens = min(most * page_tokens, size(spec).accel_kv_tokens)
    return replace(spec, budget=spec.budget.model_copy(update={"accel_kv_tokens": tokens}))


def specification(engine: str, backend: ResolvedBackend, model: str, options: Mapping[str, Any]) -> CellSpec:
    """Offline generation is a cell like any other, but for its workload, which comes from the user's file."""
    tokens = options["accel_kv_tokens"]
    return CellSpec(
        cell_id="generate",
        experiment="generate",
        engine=EngineSpec(engine, engine, dict(options["policy_options"])),
        workload=WorkloadSpec("prompts", {}),
        backend=backend,
        label=LABELS[backend],
        hardware=options.get("hardware"),
        model=model,
        dtype=options["dtype"],
        budget=Budget(
            accel_kv_tokens="auto" if tokens is None else tokens,
            max_batch=options["max_batch"],
            max_batch_tokens=options["max_batch_tokens"],
        ),
        emulation=Emulation(mode=options["emulation"]),
        measure=CellMeasure(seed=options["seed"], warmup_requests=0, time_limit_s=0.0),
        slo=None,
        repeat=0,
        order=0,
    )


def run_offline(
    adapter: EngineAdapter, prompts: list[Prompt], max_new_tokens: int, stop_ids: frozenset[int]
) -> tuple[list[list[int]], int]:
    """All prompts at once; token ids in the order of the prompts."""
    answers: list[list[int]] = [[] for _ in prompts]
    preemptions = 0
    for index, prompt in enumerate(prompts):
        refusal = adapter.submit(Submission(index, len(prompt.token_ids), prompt.token_ids, max_new_tokens, stop_ids))
        if refusal is not None:
            raise ConfigError(_refused(prompt, refusal))
    while adapter.busy:
        delivery = adapter.poll(0.0)  # offline: no decision depends on the time
        if delivery is None:
            continue
        if delivery.failed:
            failure = delivery.failed[0]
            raise ConfigError(
                f"prompt {prompts[failure.request_id].prompt_id!r} failed: {failure.kind}: {failure.detail}"
            )
        preemptions += len(delivery.preempted)
        for index, token in zip(delivery.request_ids, delivery.token_ids, strict=True):
            answers[index].append(token)
    return answers, preemptions


def read_prompts(path: Path, vocab_size: int) -> list[Prompt]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"--prompts {path}: no such file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"--prompts {path}: not readable as UTF-8 text: {error}") from None
    prompts = [
        _prompt(line, f"{path}:{number}", vocab_size)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    if not prompts:
        raise ConfigError(f"--prompts {path}: no prompts; expected one JSON object per line")
    return prompts


def _prompt(line: str, where: str, vocab_size: int) -> Prompt:
    try:
        entry = json.loads(line)
        token_ids = entry["prompt_token_ids"]
        prompt_id = entry["id"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f'{where}: expected {{"id": ..., "prompt_token_ids": [...]}}') from None
    if not isinstance(token_ids, list) or not token_ids or not all(type(token) is int for token in token_ids):
        raise ConfigError(f"{where}: prompt_token_ids must be a list of at least one whole number")
    if not all(0 <= token < vocab_size for token in token_ids):
        raise ConfigError(f"{where}: token ids must be 0..{vocab_size - 1}, the model's vocabulary")
    return Prompt(prompt_id, tuple(token_ids))


def _refused(prompt: Prompt, refusal: Refusal) -> str:
    return f"prompt {prompt.prompt_id!r} can never run: {refusal.reason}; raise --accel-kv-tokens or shorten it"
