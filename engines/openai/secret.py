"""The API key, kept out of everything that is written: it has no text form, and foreign text is quoted without it."""

from __future__ import annotations

import os
import re

from engines.openai.errors import EndpointError
from engines.openai.faults import FaultError

LONGEST_QUOTE = 200
REMOVED = "[key]"
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class Secret:
    """The value of an environment variable; an unset one is no key, which most local servers want."""

    __slots__ = ("_value", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._value = os.environ.get(name, "").strip()
        if not all("!" <= character <= "~" for character in self._value):
            raise EndpointError(f"the key in {name} holds characters that no header may carry: set it anew")

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    @property
    def is_set(self) -> bool:
        return bool(self._value)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def scrub(self, text: str) -> str:
        return text.replace(self._value, REMOVED) if self._value else text

    def quote(self, text: str) -> str:
        """Foreign text as one short line. The key goes before the cut, or half of it would stay."""
        line = self.scrub(_UNPRINTABLE.sub(" ", self.scrub(text))).strip()
        return line if len(line) <= LONGEST_QUOTE else f"{line[:LONGEST_QUOTE]}..."

    def account(self, error: FaultError) -> str:
        """What went wrong, in our words and then the server's."""
        words = self.quote(error.words)
        return f"{self.scrub(error.detail)}: {words}" if words else self.scrub(error.detail)
