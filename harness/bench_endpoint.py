"""`harness bench endpoint`: our client (kind: openai) against vLLM's own benchmark client, on one vLLM server.

Both send at the same time, so that both see the same server at the same moments: taking turns measures how a shared
machine drifts between the turns. Their rates differ a little, so that neither always comes just after the other. What
is compared is what each says of TTFT and ITL; a client that adds to them measures itself.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Sequence
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
from results.schema import REQUESTS_FILE, Status
from results.store import read_requests

CLIENT = Path(__file__).parents[1] / "engines" / "vllm" / "bench_client.py"
MODEL = "tiny-30m"
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 48
OUR_RATE_RPS, THEIR_RATE_RPS, REQUESTS = 0.5, 0.47, 30  # together half of what one core serves without a queue
PAIRS = 7
GOAL = 0.05
CLIENT_LIMIT_S = 600.0
THEIR_FILE = "theirs.json"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its client saw it, on the clock that all processes of this machine share."""

    sent_s: float
    ttft_s: float
    gaps_s: tuple[float, ...]


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
        f"{MODEL}, {REQUESTS} requests of {PROMPT_TOKENS} + {OUTPUT_TOKENS} tokens from each client at once, at "
        f"{OUR_RATE_RPS:g}/s and {THEIR_RATE_RPS:g}/s, {PAIRS} pairs; our client over vLLM's own, both measured on one "
        "server:"
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
            _pair(server, folder, prompts, scratch)  # the first of each warms the server up
            found = [_pair(server, folder, prompts, scratch) for _ in range(pairs)]
    ours, theirs = zip(*found, strict=True)
    return [_agreement(figure, ours, theirs) for figure in Taken.__dataclass_fields__]


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


def _pair(server: Server, folder: Path, prompts: Path, scratch: Path) -> tuple[Taken, Taken]:
    """Both at once; what was sent while both were sending counts."""
    requests = sum(1 for _ in prompts.open())
    client = _start_theirs(server, prompts, scratch)
    try:
        ours = _ours(server, folder, scratch, requests)
        theirs = _end_theirs(client, scratch, requests)
    finally:
        client.kill()
        client.wait()
    return taken_together(ours, theirs)


def taken_together(ours: Sequence[Seen], theirs: Sequence[Seen]) -> tuple[Taken, Taken]:
    """Of the requests that were sent while both clients were sending."""
    begin_s = max(min(seen.sent_s for seen in side) for side in (ours, theirs))
    end_s = min(max(seen.sent_s for seen in side) for side in (ours, theirs))
    sides = [[seen for seen in side if begin_s <= seen.sent_s <= end_s] for side in (ours, theirs)]
    if min(map(len, sides)) < max(len(ours), len(theirs)) // 2:
        raise UnfitEnvironmentError("the clients were not sending at the same time; free this machine and try again")
    return _taken(sides[0]), _taken(sides[1])


def _taken(requests: Sequence[Seen]) -> Taken:
    first_s = [seen.ttft_s for seen in requests]
    gaps_s = [gap for seen in requests for gap in seen.gaps_s]
    return Taken(fmean(first_s), median(first_s), fmean(gaps_s), median(gaps_s))


def _ours(server: Server, folder: Path, scratch: Path, requests: int) -> list[Seen]:
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
                    "arrivals": {"kind": "constant", "rate": OUR_RATE_RPS},
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
    folder_of_cell = run.folder.cell_path(cell.cell_id)
    rows = read_requests(folder_of_cell)
    # A cell's times start at its own zero. Its records were written out when the last request had ended.
    ended_s = (folder_of_cell / REQUESTS_FILE).stat().st_mtime - time.time() + time.perf_counter()
    origin_s = ended_s - max(times[-1] for times in rows.token_times_s)
    columns = zip(rows.arrival_s.tolist(), rows.first_token_s.tolist(), rows.token_times_s, strict=True)
    return [
        Seen(origin_s + sent_s, first_s - sent_s, tuple(np.diff(times).tolist())) for sent_s, first_s, times in columns
    ]


def _start_theirs(server: Server, prompts: Path, scratch: Path) -> subprocess.Popen[str]:
    settings = {
        "backend": "vllm",
        "base-url": server.url,
        "endpoint": "/v1/completions",
        "model": server.name,
        "dataset-name": "custom",
        "dataset-path": prompts,
        "num-prompts": sum(1 for _ in prompts.open()),
        "request-rate": THEIR_RATE_RPS,
        "burstiness": "inf",
        "extra-body": json.dumps({"max_tokens": OUTPUT_TOKENS}),
        "temperature": 0,
        "result-dir": scratch,
        "result-filename": THEIR_FILE,
    }
    flags = ["--skip-tokenizer-init", "--disable-shuffle", "--ignore-eos", "--save-result", "--save-detailed"]
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen(
        [server.python, "-P", str(CLIENT), *words, *flags, "--disable-tqdm"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


def _end_theirs(client: subprocess.Popen[str], scratch: Path, requests: int) -> list[Seen]:
    _, said = client.communicate(timeout=CLIENT_LIMIT_S)
    if client.returncode != 0:
        raise UnfitEnvironmentError(f"vLLM's bench client failed: {said.strip().splitlines()[-1:]}")
    taken = json.loads((scratch / THEIR_FILE).read_text())
    if taken["completed"] != requests or set(taken["output_lens"]) != {OUTPUT_TOKENS}:
        raise UnfitEnvironmentError(f"vLLM's bench client finished {taken['completed']} requests of other lengths")
    columns = zip(taken["start_times"], taken["ttfts"], taken["itls"], strict=True)
    return [Seen(sent_s, ttft_s, tuple(gaps_s)) for sent_s, ttft_s, gaps_s in columns]
