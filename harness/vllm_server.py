"""vLLM's own server on loopback, for as long as somebody measures against it. Only for benches: users start theirs."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from engines.process.adapter import found_python
from engines.vllm.options import ENVIRONMENTS, HOW_TO_GET_IT
from harness.errors import UnfitEnvironmentError

HOST = "127.0.0.1"
READY_WITHIN_S = 300.0
END_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Server:
    python: str
    port: int
    name: str  # of the served model

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@contextmanager
def vllm_server(model_folder: Path, dtype: str, scratch: Path, max_batch: int, max_tokens: int) -> Iterator[Server]:
    """Its worker has the first core for itself; the rest of it and the clients share the others."""
    python = found_python("", ENVIRONMENTS)
    if python is None:
        raise UnfitEnvironmentError(f"vLLM's environment is not here: {HOW_TO_GET_IT}")
    server = Server(python, _free_port(), "bench")
    arguments = {
        "model": model_folder,
        "served-model-name": server.name,
        "dtype": dtype,
        "max-model-len": max_tokens,
        "max-num-seqs": max_batch,
        "block-size": 32,
        "host": HOST,
        "port": server.port,
    }
    flags = ["--skip-tokenizer-init", "--enforce-eager", "--no-enable-prefix-caching", "--disable-uvicorn-access-log"]
    environment = {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": str(min(os.sched_getaffinity(0))),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with open(scratch / "server.log", "wb") as log:
        process = subprocess.Popen(
            [python, "-P", "-m", "vllm.entrypoints.openai.api_server", *_words(arguments), *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | environment,
        )
        try:
            _wait_until_ready(process, server, scratch / "server.log")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _words(arguments: dict[str, object]) -> list[str]:
    return [word for name, value in arguments.items() for word in (f"--{name}", str(value))]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], server: Server, log: Path) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            break
        try:
            connection = HTTPConnection(HOST, server.port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            time.sleep(1)
        finally:
            connection.close()
    words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    raise UnfitEnvironmentError(f"vLLM's server did not start: {words[-1] if words else 'it said nothing'}")
