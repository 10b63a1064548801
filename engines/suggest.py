"""What to say to someone who misspelt a name: one phrase, the same in every message of the engines and the harness."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A phrase to follow a semicolon: the nearest known name, or all of them when none is near."""
    names = sorted(known)
    nearest = difflib.get_close_matches(word.lower(), names, n=1) or [name for name in names if word and word in name]
    if nearest:
        return f'did you mean "{nearest[0]}"?'
    return f"known: {', '.join(names)}" if names else "none is known"
