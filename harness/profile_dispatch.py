"""What starting and ending a job of host attention costs, beside what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.profile_file import Dispatch

if TYPE_CHECKING:
    from engines.apex.attention import Pool
    from engines.backends.profile import StepRig

JOBS = 500


def measure_dispatch(rig: StepRig, pool: Pool) -> Dispatch:
    arguments = rig.host_jobs(1, 1).arguments
    pool.time_dispatch(*arguments, 50)
    submit_s, wake_s, return_s = np.median(pool.time_dispatch(*arguments, JOBS), axis=0).tolist()
    return Dispatch(submit_s=submit_s, wake_s=max(0.0, wake_s), return_s=max(0.0, return_s))
