"""Engines own their process: what they pin, prefer or set must not leak into the next test."""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def machine_as_found() -> Iterator[None]:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    torch.set_num_threads(1)  # small models are fastest on one
    yield
    os.sched_setscheduler(0, policy, priority)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)
