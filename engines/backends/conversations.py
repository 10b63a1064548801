"""The tokens of the requests that an executor has been told of, and how each draws its next one."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from engines.model.sampler import Sampling, sample

GREEDY = Sampling()


class Conversations:
    def __init__(self, sampling: Sampling = GREEDY) -> None:
        self.sequences: dict[int, list[int]] = {}
        self._default = sampling
        self._sampling: dict[int, Sampling] = {}

    def register(self, request_id: int, prompt_token_ids: Sequence[int]) -> None:
        self.sequences[request_id] = list(prompt_token_ids)
        if not self._default.greedy:  # each request draws from a stream of its own, whatever shares its batch
            self._sampling[request_id] = replace(self._default, seed=self._default.seed + request_id)

    def forget(self, request_id: int) -> None:
        self.sequences.pop(request_id, None)
        self._sampling.pop(request_id, None)

    def clear(self) -> None:
        self.sequences.clear()
        self._sampling.clear()

    def sample(self, logits: Tensor, requests: Sequence[int], positions: Sequence[int]) -> list[int]:
        """Who was aborted in flight samples as well, and nobody keeps it."""
        settings = [self._sampling.get(request_id, GREEDY) for request_id in requests]
        tokens = sample(logits, settings, positions)
        for request_id, token in zip(requests, tokens, strict=True):
            if request_id in self.sequences:
                self.sequences[request_id].append(token)
        return tokens
