"""Any OpenAI-compatible endpoint as an engine: a vLLM, SGLang, llama.cpp or TGI that somebody runs, or a provider.

What comes out of it is measured at the client: queueing, network and HTTP are in every figure, as they are for its
users. Not here: starting a server. Nothing is imported from aiohttp before an endpoint is opened.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from engines.core.adapter import EngineAdapter, Site

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
HOW_TO_GET_IT = "needs aiohttp, which is not installed: pip install 'hybrid-harness[openai]'"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
# What decides over the comparison is the workload's and not the user's to set.
RESERVED = frozenset(
    {"model", "prompt", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature"}
    | {"min_tokens", "ignore_eos", "return_token_ids", "n", "best_of", "echo", "stop", "stop_token_ids"}
)


@dataclass(frozen=True, slots=True)
class OpenAi:
    """Options of `kind: openai`. The key is named here and never held: see api_key_env."""

    base_url: str  # http://127.0.0.1:8000/v1
    served_model: str = ""  # the only one that is served, when not given
    prompt: Literal["token_ids", "text", "chat"] = "token_ids"
    tokenizer: str = ""  # a folder, for text and chat
    api_key_env: str = DEFAULT_KEY_ENV  # the variable that holds the key, where one is wanted
    extra_body: Mapping[str, Any] = field(
        default_factory=dict
    )  # further fields of every request; no secrets, it is written down
    connect_timeout_s: float = 10.0
    silence_timeout_s: float = 120.0  # no byte for so long
    request_timeout_s: float = 600.0  # the whole request, waiting for another try included
    retries: int = 0  # after 429 and 503, when Retry-After says; latency counts from the arrival all the same
    max_connections: int | None = None

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if not _VARIABLE.fullmatch(self.api_key_env):  # and not shown: it may be the key itself
            raise ValueError("api_key_env: expected the name of an environment variable (A-Z, 0-9, _), not a key")
        for name in ("connect_timeout_s", "silence_timeout_s", "request_timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: must be above 0 and finite, not {getattr(self, name)}")
        if self.retries < 0:
            raise ValueError(f"retries: must be 0 or more, not {self.retries}")
        if self.max_connections is not None and self.max_connections < 1:
            raise ValueError(
                f"max_connections: must be 1 or more, not {self.max_connections}; leave it out for no limit"
            )
        if self.prompt != "token_ids" and not self.tokenizer:
            raise ValueError(f"tokenizer: prompt: {self.prompt} needs the folder of the served model's tokenizer")
        taken = sorted(RESERVED & set(self.extra_body))
        if taken:
            raise ValueError(
                f"extra_body: {', '.join(taken)} cannot be set: lengths and greediness are the comparison's"
            )

    @staticmethod
    def unavailable() -> str | None:
        return None if find_spec("aiohttp") else HOW_TO_GET_IT

    @property
    def url(self) -> str:
        return self.base_url.rstrip("/")

    @property
    def runs_model(self) -> bool:
        return True

    def problems(self, backend: str, paced: bool) -> list[str]:
        if backend == "sim":
            return ["waits for a real server, which simulated time does not; set backend: endpoint"]
        if paced:
            return [
                "a server cannot be paced; set backend: endpoint, or emulation.mode: native for one on this machine"
            ]
        found = [] if self.unavailable() is None else [HOW_TO_GET_IT]
        if backend in ("cpu", "cuda") and not self._is_here:
            host = urlsplit(self.base_url).hostname
            found.append(f"{host} is not this machine, which backend {backend} speaks of; set backend: endpoint")
        if self.tokenizer and not Path(self.tokenizer).expanduser().is_dir():
            found.append(f"tokenizer: no folder at {self.tokenizer}")
        if self.api_key_env != DEFAULT_KEY_ENV and not os.environ.get(self.api_key_env, "").strip():
            found.append(f"api_key_env: {self.api_key_env} is not set in the environment")
        return found

    def open(self, site: Site) -> EngineAdapter:
        from engines.openai.adapter import OpenAiAdapter

        return OpenAiAdapter(self, site)

    @property
    def _is_here(self) -> bool:
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def _check_url(url: str) -> None:
    """Without the URL in the message: it may hold a password."""
    example = "expected something like http://127.0.0.1:8000/v1"
    try:
        parts: SplitResult = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(f"base_url: not a URL; {example}") from None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError(
            "base_url: leave user and password out; the key comes from the variable that api_key_env names"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise ValueError(f"base_url: {example}")
    if parts.query or parts.fragment or any(not "!" <= character <= "~" for character in url):
        raise ValueError(f"base_url: no ?, #, spaces or letters beyond ASCII; {example}")
