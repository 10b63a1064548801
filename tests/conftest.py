"""Fixtures and hooks that all tests share."""

import signal
import warnings
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A suite started in the background may have inherited ignored signals, and would hand them on to what it starts.

    The harness leaves alone what was ignored on purpose, as by nohup, so its tests need the ordinary state.
    """
    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(which) is signal.SIG_IGN:
            signal.signal(which, signal.default_int_handler if which is signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recorded traces, logs and profiles that lie beside the checkout; they are not part of it."""
    folder = (Path(__file__).resolve().parents[1] / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder


@pytest.fixture(scope="session")
def model_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `model_folders.make_folder` keeps its folders, so that a session writes each of them once."""
    return tmp_path_factory.mktemp("models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, and thereby count, what needs a CUDA device or vLLM's environment where there is none."""
    on_vllm = [item for item in items if item.get_closest_marker("vllm")]
    if on_vllm and (missing := _why_no_vllm()):
        for item in on_vllm:
            item.add_marker(pytest.mark.skip(reason=missing))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_cuda():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _why_no_vllm() -> str | None:
    from engines.vllm.options import Vllm

    return Vllm.unavailable()


def _has_cuda() -> bool:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a driver that cannot start warns; that is what is being asked
        return torch.cuda.is_available()
