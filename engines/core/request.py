"""The scheduler's own record of one request: counters and block numbers, owned by `EngineCore` alone."""

from enum import Enum

from engines.core.types import RequestSpec, Tier


class Phase(Enum):
    WAITING = "waiting"  # holds no slot; its KV, if any, was swapped to the host
    RUNNING = "running"  # holds a slot and blocks
    ENDED = "ended"


class Request:
    """`known` tokens exist (prompt and generated); the KV of the first `computed` of them is in blocks."""

    __slots__ = (
        "blocks",
        "capacity",
        "computed",
        "in_flight",
        "known",
        "phase",
        "preemptions",
        "prompt_tokens",
        "request_id",
        "sequence",
        "slot",
        "started",
        "stop_ids",
        "target",
        "tier",
    )

    def __init__(self, spec: RequestSpec, sequence: int) -> None:
        self.request_id = spec.request_id
        self.sequence = sequence  # order of arrival: the only priority there is
        self.prompt_tokens = spec.prompt_tokens
        self.known = spec.prompt_tokens
        self.target = spec.prompt_tokens + spec.max_new_tokens
        self.stop_ids = spec.stop_ids
        self.computed = 0
        self.slot = -1
        self.tier = Tier.ACCEL
        self.blocks: list[int] = []
        self.capacity = 0  # tokens that `blocks` can hold
        self.phase = Phase.WAITING
        self.preemptions = 0
        self.started = False
        self.in_flight = False  # a cohort on the host still reads its pages

    @property
    def pending(self) -> int:
        """Tokens whose KV is still to be computed: 1 for a decode, more for a prefill."""
        return self.known - self.computed

    def __repr__(self) -> str:
        return f"Request({self.request_id}, {self.phase.value}, {self.computed}/{self.known}/{self.target})"
