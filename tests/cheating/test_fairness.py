"""The envelope, and what is more than it allows: sentences with the difference, and none for who keeps within."""

from __future__ import annotations

from typing import Any

import pytest

from harness.experiment import Budget
from harness.fairness import Envelope, unreported, violations
from harness.sizing import Sizing
from harness.verdicts import verdicts

SIZING = Sizing(
    weight_bytes=1 << 20, workspace_bytes=1 << 18, kv_bytes_per_token=4096, accel_kv_tokens=480, host_kv_tokens=1024
)
BUDGET = Budget(accel_kv_tokens=480, host_kv_tokens=1024, cpu_threads=4, max_batch=64, max_batch_tokens=512)
ENVELOPE = Envelope.of(BUDGET, "float16", SIZING, 480)
WITHIN: dict[str, object] = {
    "accel_kv_tokens": 480,
    "accel_kv_bytes": 480 * 4096,
    "host_kv_tokens": 0,
    "weight_bytes": 1 << 20,
    "workspace_bytes": 1 << 18,
    "dtype": "float16",
    "max_batch": 64,
    "max_batch_tokens": 512,
    "cpu_threads": 4,
}


def test_who_keeps_within_is_not_accused() -> None:
    peaks = {"accel_blocks_peak": 30.0, "host_blocks_peak": 4.0, "running_batch_max": 64.0}
    assert violations(ENVELOPE, WITHIN, peaks) == []
    assert unreported(ENVELOPE, WITHIN) == []


@pytest.mark.parametrize(
    ("name", "taken", "sentence"),
    [
        ("accel_kv_tokens", 576, "took 576 KV tokens on the accelerator, the envelope allows 480 (+20 %)"),
        ("accel_kv_tokens", 481, "took 481 KV tokens on the accelerator, the envelope allows 480 (+0.2 %)"),
        ("host_kv_tokens", 2048, "took 2,048 KV tokens on the host, the envelope allows 1,024 (+100 %)"),
        ("cpu_threads", 4.5, "took 5 CPU threads, the envelope allows 4 (+25 %)"),
        ("max_batch", 80, "took 80 requests at once (max_batch), the envelope allows 64 (+25 %)"),
        ("max_batch_tokens", 513, "took 513 tokens a step (max_batch_tokens), the envelope allows 512 (+0.2 %)"),
        ("dtype", "int8", "computed in int8, the envelope says float16"),
    ],
)
def test_every_excess_is_a_sentence(name: str, taken: object, sentence: str) -> None:
    assert violations(ENVELOPE, WITHIN | {name: taken}, {}) == [sentence]


def test_memory_is_weights_workspace_and_kv() -> None:
    envelope = Envelope.of(BUDGET.model_copy(update={"accel_memory": 3 << 20}), "float16", SIZING, 480)
    assert violations(envelope, WITHIN | {"accel_kv_bytes": 7 << 18}, {}) == []
    assert violations(envelope, WITHIN | {"accel_kv_bytes": 10 << 18}, {}) == [
        "took 3.8 MiB of accelerator memory (weights 1.0 MiB + workspace 256.0 KiB + KV 2.5 MiB), "
        "the envelope allows 3.0 MiB (+25 %)"
    ]
    partly_elsewhere = WITHIN | {"accel_weight_bytes": 1 << 18, "accel_kv_bytes": 10 << 18}
    assert violations(envelope, partly_elsewhere, {}) == [], "what is not on the accelerator takes none of its memory"


def test_auto_is_what_the_machine_comes_to() -> None:
    envelope = Envelope.of(Budget(), "float16", SIZING, None)
    assert (envelope.accel_kv_tokens, envelope.cpu_threads) == (None, None)
    assert envelope.accel_memory_bytes == (1 << 20) + (1 << 18) + 480 * 4096
    (sentence,) = violations(envelope, WITHIN | {"accel_kv_tokens": 576, "accel_kv_bytes": 576 * 4096}, {})
    assert "of accelerator memory" in sentence


def test_what_is_seen_is_held_against_the_envelope_too() -> None:
    peaks = {"accel_blocks_peak": 36.0, "host_blocks_peak": 5.0, "running_batch_max": 65.0}
    assert violations(ENVELOPE, WITHIN, peaks) == [
        "was seen to use 576 KV tokens on the accelerator, the envelope allows 480 (+20 %), although it reports 480",
        "was seen to use 1,280 KV tokens on the host, the envelope allows 1,024 (+25 %), although it reports 0",
        "was seen to use 65 requests at once (max_batch), the envelope allows 64 (+2 %), although it reports 64",
    ]
    confessed = violations(ENVELOPE, WITHIN | {"accel_kv_tokens": 576}, {"accel_blocks_peak": 36.0})
    assert confessed == ["took 576 KV tokens on the accelerator, the envelope allows 480 (+20 %)"], "said once"


def test_silence_is_noted_and_nonsense_is_silence() -> None:
    resolved = {name: value for name, value in WITHIN.items() if name not in ("dtype", "cpu_threads")}
    assert unreported(ENVELOPE, resolved | {"max_batch": "many", "host_kv_tokens": float("nan")}) == [
        "host_kv_tokens",
        "cpu_threads",
        "max_batch",
        "dtype",
    ]
    assert violations(ENVELOPE, resolved | {"max_batch": "many"}, {}) == []


# --- what follows for the verdict -------------------------------------------------------------------------------------


def cells(engine: str, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "engine": engine,
            "workload": "chat",
            "repeat": repeat,
            "label": "simulated",
            "status": "ok",
            "metrics": {"output_tokens_per_s": 100.0 + repeat},
            **changes,
        }
        for repeat in range(5)
    ]


def test_an_unfair_engine_gets_no_verdict_and_that_is_said() -> None:
    assert verdicts([*cells("gpu_only"), *cells("apex", unfair=["took 5 CPU threads"]), *cells("neo")]) == [
        "apex took more than the envelope allows: no comparison with gpu_only",
        "no difference shown (neo against gpu_only: the same in all 5 pairs) [simulated]",
        "apex on chat: 5 of 5 cells left out (unfair: took 5 CPU threads)",
    ]


def test_nobody_is_compared_with_an_unfair_baseline() -> None:
    assert verdicts([*cells("gpu_only", unfair=["took 5 CPU threads"]), *cells("apex")]) == [
        "gpu_only, the baseline, took more than the envelope allows: nothing is compared with it",
        "apex: 102 output tokens/s, median of 5 repeats [simulated]",
        "gpu_only on chat: 5 of 5 cells left out (unfair: took 5 CPU threads)",
    ]


def test_wrong_tokens_once_take_the_figures_of_all_repeats() -> None:
    wrong = cells("apex")
    wrong[3] |= {"status": "invalid", "error": "wrong tokens: request 3", "parity": {"held": False}}
    assert verdicts([*cells("gpu_only"), *wrong]) == [
        "apex has no valid cell: no comparison with gpu_only",
        "apex on chat: 5 of 5 cells left out (invalid: its tokens were wrong in another repeat; "
        "invalid: wrong tokens: request 3)",
    ]
