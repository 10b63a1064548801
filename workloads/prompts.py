"""The token ids of a prompt: a function of the seed and the request, in whatever order they are asked for.

Not text: lengths decide the work, and ids drawn evenly from the vocabulary cost the same as words. A conversation has
one stream of ids for all its turns, so a later turn's prompt begins with the prompt of the turn before. The earlier
answers inside it are drawn like the rest; they are not what a model said, which differs between models and would
change the workload.
"""

from __future__ import annotations

from workloads.streams import Purpose, whole_numbers
from workloads.types import MAX_TOKENS, Request, WorkloadError

FIRST_ORDINARY_TOKEN_ID = 3  # 0..2 are padding, unknown, begin and end of text in the models we serve


def prompt_token_ids(request: Request, vocab_size: int, seed: int) -> list[int]:
    """`request.prompt_tokens` ids in [3, vocab_size)."""
    if not FIRST_ORDINARY_TOKEN_ID < vocab_size <= MAX_TOKENS:
        raise WorkloadError(f"vocab_size must be more than {FIRST_ORDINARY_TOKEN_ID}, not {vocab_size}")
    if request.session >= 0:
        purpose, index = Purpose.SESSION_TOKENS, request.session
    else:
        purpose, index = Purpose.REQUEST_TOKENS, request.request_id
    ids = whole_numbers(seed, purpose, index, request.prompt_tokens, FIRST_ORDINARY_TOKEN_ID, vocab_size)
    return list(map(int, ids.tolist()))
