"""Asking the driver for GPUs, with a driver that answers, one that breaks, and none."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from harness.gpu import LocalGpu, local_gpus


class NVMLError(Exception):
    pass


def driver(count: int, fails_at: str = "") -> SimpleNamespace:
    def call(name: str, answer: object) -> object:
        def answering(*_: object) -> object:
            if name == fails_at:
                raise NVMLError(f"{name} failed")
            return answer

        return answering

    answers = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlSystemGetDriverVersion": b"570.1",
        "nvmlDeviceGetCount": count,
        "nvmlDeviceGetHandleByIndex": object(),
        "nvmlDeviceGetName": "Tesla T4",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=15 * 2**30),
    }
    return SimpleNamespace(NVMLError=NVMLError, **{name: call(name, answer) for name, answer in answers.items()})


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(2))
    assert local_gpus() == ([LocalGpu("Tesla T4", 15 * 2**30, "570.1")] * 2, "")


@pytest.mark.parametrize(
    ("count", "fails_at", "why"),
    [
        (0, "", "sees no GPU"),
        (1, "nvmlInit", "no NVIDIA driver"),
        (1, "nvmlDeviceGetName", "does not answer"),
    ],
)
def test_no_gpu_says_why(monkeypatch: pytest.MonkeyPatch, count: int, fails_at: str, why: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(count, fails_at))
    gpus, reason = local_gpus()
    assert gpus == []
    assert why in reason


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpus, reason = local_gpus()
    assert gpus == []
    assert "not installed" in reason
