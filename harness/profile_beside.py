"""Keeps the other unit busy while one is timed: the host's threads beside the accelerator's steps, and the reverse.

Both read the same memory, so each is slower beside the other than alone; by how much depends on what it does itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.profile_grid import SHORTEST_CONTEXT, Bounds

if TYPE_CHECKING:
    from engines.apex.attention import Pool
    from engines.backends.profile import OpSeconds, StepRig

STEP_ROWS, STEP_CONTEXT = 16, 128  # the accelerator's step beside host attention: a batch that decodes
BUSY_CONTEXT = 512
LEAD_S = 2e-3  # of host attention before what is timed: a step is under way by then
MARGIN = 1.5
LONGEST_JOB_ROWS = 2**14


class Neighbour:
    def __init__(self, rig: StepRig, pool: Pool, bounds: Bounds, host_bounds: Bounds) -> None:
        self._rig, self._pool = rig, pool
        self._step_rows = min(STEP_ROWS, bounds.most_rows)
        self._step_context = max(SHORTEST_CONTEXT, min(STEP_CONTEXT, bounds.longest_context(self._step_rows)))
        self._busy_context = min(BUSY_CONTEXT, host_bounds.max_context)
        self._row_s = self._seconds_per_row()

    def beside(self, run: Callable[[], OpSeconds], step_s: float) -> OpSeconds:
        """What `run` returns, with the host attending from before it begins until after it has ended."""
        seconds = max(LEAD_S, MARGIN * step_s)
        while True:
            tickets = self._busy_host(seconds)
            found = run()
            covered = not self._pool.done(tickets[-1])
            for ticket in tickets:
                self._pool.wait(ticket)
            if covered:
                return found
            seconds *= 2

    def host_attention(self, rows: int, context: int) -> float:
        """Seconds of one layer's attention while the accelerator decodes."""
        from engines.backends.profile import job_seconds

        rig = self._rig
        batch = rig.lay_out(self._step_rows, self._step_context, (), samples=False)
        rig.run(batch)  # binds its pages
        jobs, lead = rig.host_jobs(rows, context), rig.host_jobs(self._rows_for(LEAD_S), self._busy_context)
        lead.submit(self._pool, 1)
        tickets = jobs.submit(self._pool, jobs.MOST)
        while not self._pool.done(tickets[-1]):
            rig.run(batch)
        return job_seconds(self._pool, tickets)

    def _busy_host(self, seconds: float) -> list[int]:
        """Gives the host's threads work for so long."""
        from engines.backends.profile import HostJobs

        jobs = self._rig.host_jobs(self._rows_for(seconds / HostJobs.MOST), self._busy_context)
        return jobs.submit(self._pool, jobs.MOST)

    def _rows_for(self, seconds: float) -> int:
        return min(LONGEST_JOB_ROWS, max(1, round(seconds / self._row_s)))

    def _seconds_per_row(self) -> float:
        from engines.backends.profile import job_seconds

        jobs = self._rig.host_jobs(8, self._busy_context)
        _warm, again = (job_seconds(self._pool, jobs.submit(self._pool, jobs.MOST)) for _ in range(2))
        return again / 8
