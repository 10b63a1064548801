"""Where bytes live, and what can be busy."""

from enum import IntEnum


class Tier(IntEnum):
    """Where bytes live."""

    ACCEL = 0
    HOST = 1
    DISK = 2


class Unit(IntEnum):
    """What can be busy at the same time as something else."""

    GPU = 0
    CPU = 1
    H2D = 2
    D2H = 3
    DISK = 4
