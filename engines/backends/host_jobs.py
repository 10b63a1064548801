"""Host attention in flight: a ticket of the native pool, and when its work began and ended on the run's clock."""

from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from engines.apex import attention as native
from engines.backends.attention_ops import KvRows, Pages
from engines.backends.rows import HostRows, Places
from engines.core.clock import Clock, stopwatch


@dataclass(frozen=True, slots=True)
class HostJob:
    pool: native.Pool
    ticket: int

    def done(self) -> bool:
        return self.pool.done(self.ticket)

    def wait(self, clock: Clock) -> tuple[float, float]:
        """Returns when it is done, with begin and end; both are now if that was so long ago that nobody knows."""
        self.pool.wait(self.ticket)
        now_s = clock.now()
        with suppress(ValueError):
            passed_s = now_s - stopwatch()  # the pool's clock and the stopwatch are one
            began_s, ended_s = self.pool.span(self.ticket)
            return began_s + passed_s, ended_s + passed_s
        return now_s, now_s


def append_on_host(fresh: KvRows, pages: Pages, places: Places) -> None:
    """Before the attention of the same layer may start."""
    key, value = fresh.key.cpu(), fresh.value.cpu()
    native.append_kv(key, value, pages.keys, pages.values, places.page_ids, places.offsets)


def submit(pool: native.Pool, query: Tensor, pages: Pages, rows: HostRows, out: Tensor) -> HostJob:
    """`out` is on the host and written when the job is done."""
    host_query = query.cpu()
    scale = query.shape[-1] ** -0.5
    ticket = native.submit_decode_attention(
        pool, host_query, pages.keys, pages.values, rows.tables, rows.contexts, out, scale
    )
    return HostJob(pool, ticket)
