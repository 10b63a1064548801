"""Small cells, written by hand, and large ones, drawn from a seed."""

from typing import Any

import numpy as np


def request(request_id: int, arrival_s: float, token_times_s: list[float], **changes: Any) -> dict[str, Any]:
    """A finished request of 10 prompt tokens, scheduled half-way to its first token."""
    first, last = (token_times_s[0], token_times_s[-1]) if token_times_s else (None, None)
    return {
        "request_id": request_id,
        "arrival_s": arrival_s,
        "dispatch_s": arrival_s + 0.01,
        "first_scheduled_s": None if first is None else (arrival_s + first) / 2,
        "first_token_s": first,
        "last_token_s": last,
        "prompt_tokens": 10,
        "output_tokens": len(token_times_s),
        "asked_tokens": len(token_times_s),
        "preemptions": 0,
        "preempted_s": 0.0,
        "status": "finished",
        "reason": "",
        "tier": "accel",
        "warmup": False,
        "token_times_s": token_times_s,
        **changes,
    }


def random_cell(seed: int, count: int, rate: float = 2.0) -> list[dict[str, Any]]:
    """An open load with exponential gaps; the first tenth is warm-up, a few are refused."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    requests = []
    for index, arrival_s in enumerate(arrivals.tolist()):
        if rng.random() < 0.05:
            requests.append(request(index, arrival_s, [], status="refused", reason="too long"))
            continue
        times = arrival_s + np.cumsum(rng.exponential(0.1, int(rng.integers(1, 30))))
        tier = "host" if index % 3 == 0 else "accel"
        requests.append(request(index, arrival_s, times.tolist(), warmup=index < count // 10, tier=tier))
    return requests


def step(number: int, started_s: float, ended_s: float, **changes: Any) -> dict[str, Any]:
    return {"step": number, "started_s": started_s, "ended_s": ended_s, "predicted_s": None, **changes}
