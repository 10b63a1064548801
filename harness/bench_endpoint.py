"""`harness bench endpoint`: our client (kind: openai) against vLLM's own benchmark client, on one vLLM server.

Both send as many requests of the same lengths at the same constant rate, in turns, and the order of the two changes
with every pair. What is compared is what each says of TTFT and ITL: a client that adds to them measures itself.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

import numpy as np

from engines.model.config import load_config
from harness.errors import UnfitEnvironmentError
from harness.experiment import Experiment
from harness.progress import Silence
from harness.runner import run_experiment
from harness.stats import Interval, paired_interval
from harness.vllm_server import Server, vllm_server
from results.query import load_run
from results.schema import Status
from results.store import read_requests

CLIENT = Path(__file__).parents[1] / "engines" / "vllm" / "bench_client.py"
MODEL = "tiny-30m"
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 48
RATE_RPS, REQUESTS = 2.0, 40
PAIRS = 7
GOAL = 0.05


@dataclass(frozen=True, slots=True)
class Taken:
    """What one client says of one run, in seconds."""

    ttft_mean: float
    ttft_median: float
    itl_mean: float
    itl_median: float


@dataclass(frozen=True, slots=True)
class Agreement:
    figure: str
    ours_s: float
    theirs_s: float
    ratio: Interval  # ours over theirs
    ratios: tuple[float, ...]
    within_goal: bool


def main(as_json: bool) -> None:
    rows = compare_clients()
    if as_json:
        about = {"label": "measured at two clients of one server on this machine", "goal": GOAL}
        print(json.dumps(about | {"rows": [asdict(row) for row in rows]}))
        return
    print(
        f"{MODEL}, {REQUESTS} requests of {PROMPT_TOKENS} + {OUTPUT_TOKENS} tokens at {RATE_RPS:g}/s, {PAIRS} pairs; "
        f"our client over vLLM's own, both measured on one server:"
    )
    for row in rows:
        each = ", ".join(f"{ratio:.3f}" for ratio in row.ratios)
        print(
            f"{row.figure:12} ours {row.ours_s * 1e3:7.2f} ms, vLLM's {row.theirs_s * 1e3:7.2f} ms: ratio "
            f"{row.ratio.value:.3f} (95 % interval {row.ratio.low:.3f}-{row.ratio.high:.3f}; {each}): "
            f"{'within' if row.within_goal else 'NOT within'} {GOAL:.0%}"
        )


def compare_clients(pairs: int = PAIRS, requests: int = REQUESTS) -> list[Agreement]:
    with TemporaryDirectory(prefix="bench-endpoint-") as name:
        scratch = Path(name)
        folder = _write_model(scratch / "model")
        prompts = _write_prompts(scratch / "prompts.jsonl", requests, load_config(MODEL).vocab_size)
        with vllm_server(folder, "float32", scratch, max_batch=16, max_tokens=1024) as server:
            clients: tuple[Callable[[], Taken], ...] = (
                lambda: _ours(server, folder, scratch, requests),
                lambda: _theirs(server, prompts, scratch),
            )
            for client in clients:
                client()  # the first of each warms the server up
            found: tuple[list[Taken], list[Taken]] = ([], [])
            for pair in range(pairs):
                for side in (0, 1) if pair % 2 == 0 else (1, 0):
                    found[side].append(clients[side]())
    return [_agreement(figure, *found) for figure in Taken.__dataclass_fields__]


def _agreement(figure: str, ours: Sequence[Taken], theirs: Sequence[Taken]) -> Agreement:
    a, b = ([getattr(taken, figure) for taken in side] for side in (ours, theirs))
    ratios = tuple(x / y for x, y in zip(a, b, strict=True))
    return Agreement(figure, median(a), median(b), paired_interval(ratios), ratios, abs(median(ratios) - 1) <= GOAL)


def _write_model(folder: Path) -> Path:
    import torch

    from engines.model.weights import random_weights, save_folder

    config = load_config(MODEL)
    save_folder(folder, config, random_weights(config, 0, torch.float32))
    return folder


def _write_prompts(path: Path, requests: int, vocabulary: int) -> Path:
    draw = random.Random(1)
    prompts = ([draw.randrange(3, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(requests))
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def _ours(server: Server, folder: Path, scratch: Path, requests: int) -> Taken:
    """The product's own way: one cell of an experiment on backend endpoint."""
    experiment = Experiment.model_validate(
        {
            "schema_version": 1,
            "name": "bench_endpoint",
            "backend": "endpoint",
            "model": str(folder),
            "dtype": "float32",
            "budget": {"accel_kv_tokens": 16384, "max_batch": 16},
            "engines": [{"kind": "openai", "base_url": f"{server.url}/v1"}],
            "workloads": [
                {
                    "kind": "long_output",
                    "prompt": PROMPT_TOKENS,
                    "output": OUTPUT_TOKENS,
                    "jitter": 0.0,
                    "requests": requests,
                    "arrivals": {"kind": "constant", "rate": RATE_RPS},
                }
            ],
        }
    )
    outcome = run_experiment(experiment, scratch / "runs", Silence())
    if outcome.interrupted:
        raise KeyboardInterrupt
    run = load_run(outcome.run_dir)
    (cell,) = run.cells
    if cell.status is not Status.OK or cell.metrics["finished_requests"] < requests:
        raise UnfitEnvironmentError(f"our client did not finish: {cell.error or cell.notes}")
    rows = read_requests(run.folder.cell_path(cell.cell_id))
    gaps_s = np.concatenate([np.diff(times) for times in rows.token_times_s])
    first_s = rows.first_token_s - rows.arrival_s
    return Taken(first_s.mean(), first_s.median(), float(gaps_s.mean()), float(np.median(gaps_s)))


def _theirs(server: Server, prompts: Path, scratch: Path) -> Taken:
    settings = {
        "backend": "vllm",
        "base-url": server.url,
        "endpoint": "/v1/completions",
        "model": server.name,
        "dataset-name": "custom",
        "dataset-path": prompts,
        "num-prompts": sum(1 for _ in prompts.open()),
        "request-rate": RATE_RPS,
        "burstiness": "inf",
        "extra-body": json.dumps({"max_tokens": OUTPUT_TOKENS}),
        "temperature": 0,
        "result-dir": scratch,
        "result-filename": "theirs.json",
    }
    flags = ["--skip-tokenizer-init", "--disable-shuffle", "--ignore-eos", "--save-result", "--save-detailed"]
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    ended = subprocess.run(
        [server.python, "-P", str(CLIENT), *words, *flags, "--disable-tqdm"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        timeout=600,
    )
    if ended.returncode != 0:
        raise UnfitEnvironmentError(f"vLLM's bench client failed: {ended.stderr.strip().splitlines()[-1:]}")
    taken = json.loads((scratch / "theirs.json").read_text())
    if taken["completed"] != settings["num-prompts"] or set(taken["output_lens"]) != {OUTPUT_TOKENS}:
        raise UnfitEnvironmentError(f"vLLM's bench client finished {taken['completed']} requests of other lengths")
    gaps_s = [gap for gaps in taken["itls"] for gap in gaps]
    return Taken(fmean(taken["ttfts"]), median(taken["ttfts"]), fmean(gaps_s), median(gaps_s))
