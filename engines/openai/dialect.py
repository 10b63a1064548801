"""What one server takes and gives, as the probe found it, and the request written accordingly.

Greedy, of a forced length, streamed. A server that does not take a field would refuse the request with it, so that what
is optional is sent only where it was taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engines.openai.answer import Counting
from engines.openai.prompts import Prompt

WANTED = ("temperature", "include_usage", "ignore_eos", "return_token_ids")
# Where ignore_eos is not taken. Else not: it forces the length by keeping stop tokens out, which changes the answer.
SECOND_BEST = {"ignore_eos": "min_tokens"}
RUNNING_USAGE = "continuous_usage_stats"
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")  # newer OpenAI models know only the second


@dataclass(frozen=True, slots=True)
class Dialect:
    path: str
    model: str
    takes: tuple[str, ...] = WANTED
    length_field: str = LENGTH_FIELDS[0]
    extra: Mapping[str, Any] = field(default_factory=dict)
    counting: Counting = Counting.IDS
    prompt_tokens_added: int = 0  # by the server, to every prompt

    def body(self, prompt: Prompt, tokens: int, stop_ids: frozenset[int] = frozenset()) -> bytes:
        """With `stop_ids` an answer may end early, at one of them."""
        fields: dict[str, Any] = {"model": self.model, **prompt.fields, self.length_field: tokens, "stream": True}
        if "temperature" in self.takes:
            fields["temperature"] = 0
        usage = {name: True for name in ("include_usage", RUNNING_USAGE) if name in self.takes}
        if usage:
            fields["stream_options"] = usage
        if "return_token_ids" in self.takes:
            fields["return_token_ids"] = True
        if "ignore_eos" in self.takes:
            fields |= {"stop_token_ids": sorted(stop_ids)} if stop_ids else {"ignore_eos": True}
        if "min_tokens" in self.takes and not stop_ids:
            fields["min_tokens"] = tokens
        return json.dumps({**fields, **self.extra}, separators=(",", ":")).encode()
