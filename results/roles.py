"""What a run of a night is for. On its own, since commands name it before anything heavy is imported."""

from enum import StrEnum


class Role(StrEnum):
    """What a run of a night is for."""

    NIGHT = "night"
    CONTROL = "control"  # the same code once more, beside the night's run: what differs is the machine's doing
    CONFIRMATION = "confirmation"  # of a suspicion, by running again
