"""What the endpoint turned out to be, in the words of a cell's record: before serving, and what serving showed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from engines.core.adapter import Site
from engines.openai.answer import Counting
from engines.openai.errors import EndpointError
from engines.openai.probe import Findings
from engines.openai.secret import Secret

if TYPE_CHECKING:
    from engines.openai.options import OpenAi

COARSE = 1.05  # tokens per chunk, above which gaps between tokens are hardly those of tokens any more


@dataclass(slots=True)
class Tally:
    """Of the serving itself."""

    requests: int = 0
    tokens: int = 0
    chunks: int = 0
    retries: int = 0
    renewed_connections: int = 0

    def served(self) -> dict[str, object]:
        per_chunk = self.tokens / self.chunks if self.chunks else 0.0
        counts = {
            "requests_sent": self.requests,
            "retries": self.retries,
            "renewed_connections": self.renewed_connections,
            "tokens_per_chunk": round(per_chunk, 3),
        }
        return counts | coarse(per_chunk)


def resolved(options: OpenAi, site: Site, found: Findings, secret: Secret) -> dict[str, object]:
    dialect = found.dialect
    reason = why_no_token_ids(options, site, found)
    forcing = [name for name in ("ignore_eos", "min_tokens") if name in dialect.takes]
    length = f"forced by {forcing[0]}" if forcing else "not forced: an answer that ends early is a failure"
    return {
        "endpoint": options.base_url,
        "served_model": found.model,
        "server": found.server or "does not say",
        "client": f"aiohttp {aiohttp.__version__}",
        "api_key": f"from {secret.name}" if secret.is_set else "none",
        "prompts": f"{options.prompt} to /{dialect.path}",
        "prompt_tokens_added": dialect.prompt_tokens_added,
        "fields_taken": ", ".join(dialect.takes) or "none of the optional ones",
        "answer_length": length,
        "tokens_counted_by": dialect.counting.value,
        "usage": "held against every answer" if found.usage_is_told else "not told, so that nothing is held against it",
        "retries_allowed": options.retries,
        **({} if found.longest_request_tokens is None else {"longest_request_tokens": found.longest_request_tokens}),
        **coarse(found.tokens_per_chunk),
        **({"no_token_ids": reason} if reason else {}),
    }


def require_room(options: OpenAi, site: Site, found: Findings) -> None:
    """Said once and before serving, where every long request would be rejected."""
    limit, longest = found.longest_request_tokens, site.longest_request_tokens
    if limit is None or longest <= limit:
        return
    fitting = (limit - 1) // site.accel_page_tokens * site.accel_page_tokens
    raise EndpointError(
        f"{options.base_url}: holds requests of up to {limit} tokens, the longest here has {longest}; "
        f"set budget.accel_kv_tokens to {fitting} or fewer, which clips the workload for every engine alike"
    )


def why_no_token_ids(options: OpenAi, site: Site, found: Findings) -> str:
    """Why the tokens cannot be held against the model's own; empty where they can."""
    dialect = found.dialect
    if options.prompt != "token_ids":
        return f"prompts are sent as {options.prompt}, which the server tokenises anew"
    if dialect.counting is not Counting.IDS:
        return "the server gives no token ids"
    if "temperature" not in dialect.takes:
        return "the server does not take temperature 0, so that its tokens are drawn"
    if "min_tokens" in dialect.takes:
        return "the server does not take ignore_eos, and min_tokens keeps the model's stop tokens out"
    if dialect.prompt_tokens_added:
        return f"the server adds {dialect.prompt_tokens_added} tokens of its own to every prompt"
    if not Path(site.model).is_dir():
        return f"{site.model} is a shape; to check tokens give the folder of the model that is served"
    return ""


def coarse(per_chunk: float) -> dict[str, object]:
    if per_chunk <= COARSE:
        return {}
    return {"chunks": f"coarser than tokens, {per_chunk:.2f} each: gaps between tokens are gaps between chunks"}
