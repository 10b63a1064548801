"""What engines are asked to do: requests with lengths and arrival times - fitted, replayed or fixed.

A workload is a function of its options and a seed. Not here: sending it (the harness's driver) and anything about
models beyond the size of a vocabulary.
"""

from workloads.arrivals import Saturate
from workloads.clipping import clip
from workloads.expansion import SWEEPABLE, expand
from workloads.kinds import COMMON_DEFAULTS, KINDS, WorkloadKind, build
from workloads.prompts import prompt_token_ids
from workloads.saturation import asks_to_saturate, at_rate, search_of
from workloads.schedules import ARRIVAL_KINDS
from workloads.types import Clipping, RealisedStatistics, Request, Workload, WorkloadError, realised

__all__ = [
    "ARRIVAL_KINDS",
    "COMMON_DEFAULTS",
    "KINDS",
    "SWEEPABLE",
    "Clipping",
    "RealisedStatistics",
    "Request",
    "Saturate",
    "Workload",
    "WorkloadError",
    "WorkloadKind",
    "asks_to_saturate",
    "at_rate",
    "build",
    "clip",
    "expand",
    "prompt_token_ids",
    "realised",
    "search_of",
]
