"""One batch on its way through the layers, with the flights that are aboard: the tensors between two ops.

Not here: when what runs (pipeline.py, cohorts.py), and how long it may look like taking (pacing.py).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engines.apex.attention import Pool
from engines.backends.attention_ops import KvRows, PagedOps, Pages
from engines.backends.buffers import PagedKv
from engines.backends.flights import Flight
from engines.backends.host_jobs import HostJob, append_on_host, submit
from engines.backends.rows import Rows
from engines.core.errors import UnsupportedPlanError
from engines.core.types import Tier
from engines.model.decoder import Decoder

Stores = dict[Tier, PagedKv]
Sampler = Callable[[Tensor, Sequence[int], Sequence[int]], list[int]]  # logits, requests, positions


class BatchPass:
    """`PassWork`. `sampled`: the tokens of the batch's own rows, then those of the flights that came to the end."""

    def __init__(
        self, model: Decoder, ops: PagedOps, stores: Stores, rows: Rows, sampler: Sampler, pool: Pool | None
    ) -> None:
        self._model = model
        self._ops = ops
        self._stores = stores
        self._rows = rows
        self._sampler = sampler
        self._pool = pool
        self._own = len(rows.token_ids)
        self._host = slice(rows.decode_rows, rows.decode_rows + (len(rows.host.contexts) if rows.host else 0))
        self._hidden, self._query, self._fresh, self._attended = self.nothing(model, rows.token_ids.device, self._own)
        self._from_host = self._attended[self._host].cpu()
        self._job: HostJob | None = None
        self.sampled: list[int] = []

    @staticmethod
    def nothing(model: Decoder, device: torch.device, rows: int) -> tuple[Tensor, Tensor, KvRows, Tensor]:
        """Hidden rows, queries, keys and values before the first layer, and room for what attention makes of them."""
        config = model.config
        empty = torch.empty(0, device=device)
        attended = torch.empty(rows, config.query_heads, config.head_dim, dtype=model.dtype, device=device)
        return empty, empty, KvRows(empty, empty), attended

    @property
    def job(self) -> HostJob:
        if self._job is None:
            raise UnsupportedPlanError("the host's attention is asked for before it was submitted")
        return self._job

    # --- the accelerator ---------------------------------------------------------------------------------------------

    def first(self, aboard: Sequence[Flight]) -> None:
        ids = _joined(self._rows.token_ids, [flight.rows.token_ids for flight in aboard])
        if len(ids):
            self._pre_attention(0, self._model.embed(ids, self._positions(aboard)), aboard)

    def attention(self, layer: int) -> None:
        self.accel_attention(layer)
        if self._rows.staged is not None:
            self.prompt_to_host(layer)

    def accel_attention(self, layer: int) -> None:
        rows, query, out = self._rows, self._query, self._attended
        if rows.decode_rows:
            self._ops.decode(query[: rows.decode_rows], self._pages(Tier.ACCEL, layer), rows, out[: rows.decode_rows])
        for segment in rows.prefills:
            span = slice(segment.first_row, segment.first_row + segment.length)
            chunk = self._fresh.span(segment.first_row, segment.length)
            self._ops.prefill(query[span], chunk, self._pages(segment.tier, layer), segment, out[span])

    def between(self, layer: int, aboard: Sequence[Flight]) -> None:
        hidden = self._post_attention(layer, aboard)
        if len(hidden):
            self._pre_attention(layer + 1, hidden, aboard)

    def last(self, layer: int, aboard: Sequence[Flight]) -> None:
        hidden, rows = self._post_attention(layer, aboard), self._rows
        own = hidden[: self._own]
        sampling = own if rows.sample_rows is None else own[rows.sample_rows]
        if aboard:
            sampling = torch.cat((sampling, hidden[self._own :]))
        requests, positions = list(rows.sample_requests), list(rows.sample_positions)
        for flight in aboard:
            requests.extend(flight.rows.requests)
            positions.extend(flight.rows.contexts.tolist())
        if requests:
            self.sampled = self._sampler(self._model.logits(sampling), requests, positions)

    def _pre_attention(self, layer: int, hidden: Tensor, aboard: Sequence[Flight]) -> None:
        query, key, value = self._model.pre_attention(layer, hidden, self._positions(aboard))
        end = self._own
        if aboard:
            self._hidden, self._query, self._fresh = hidden[:end], query[:end], KvRows(key[:end], value[:end])
        else:
            self._hidden, self._query, self._fresh = hidden, query, KvRows(key, value)
        if self._rows.accel is not None:
            self._ops.append(self._fresh, self._pages(Tier.ACCEL, layer), self._rows.accel)
        for flight in aboard:
            begin, end = end, end + len(flight.rows.requests)
            flight.hidden, flight.query = hidden[begin:end], query[begin:end]
            flight.fresh = KvRows(key[begin:end], value[begin:end])

    def _positions(self, aboard: Sequence[Flight]) -> Tensor:
        return _joined(self._rows.positions, [flight.rows.positions for flight in aboard])

    def _post_attention(self, layer: int, aboard: Sequence[Flight]) -> Tensor:
        if not self._own and not aboard:
            return self._hidden
        hidden, attended = self._hidden, self._attended
        if not self._own:
            first, *rest = aboard
            hidden, attended, aboard = first.hidden, first.attended, rest
        hidden = _joined(hidden, [flight.hidden for flight in aboard])
        attended = _joined(attended, [flight.attended for flight in aboard])
        return self._model.post_attention(layer, hidden, attended.flatten(1))

    # --- the host ----------------------------------------------------------------------------------------------------

    def rows_to_host(self, layer: int) -> None:
        assert self._rows.host is not None
        fresh = KvRows(self._fresh.key[self._host], self._fresh.value[self._host])
        append_on_host(fresh, self._pages(Tier.HOST, layer), self._rows.host.places)

    def submit_host(self, layer: int) -> None:
        assert self._rows.host is not None
        pages = self._pages(Tier.HOST, layer)
        self._job = submit(self._threads(), self._query[self._host], pages, self._rows.host, self._from_host)

    def rows_to_accel(self) -> None:
        self._attended[self._host].copy_(self._from_host)

    def prompt_to_host(self, layer: int) -> None:
        """The stage of a layer is the fresh rows themselves; its place on the host are the request's pages."""
        places, pages = self._rows.staged, self._pages(Tier.HOST, layer)
        assert places is not None
        append_on_host(KvRows(places.of(self._fresh.key), places.of(self._fresh.value)), pages, places)

    def hand_over(self, flight: Flight, layer: int) -> None:
        pages = self._pages(Tier.HOST, layer)
        append_on_host(flight.fresh, pages, flight.rows.places)
        flight.job = submit(self._threads(), flight.query, pages, flight.rows, flight.attended)

    def _threads(self) -> Pool:
        if self._pool is None:
            raise UnsupportedPlanError("a plan attends on the host, but this run has no threads there")
        return self._pool

    def _pages(self, tier: Tier, layer: int) -> Pages:
        store = self._stores[tier]
        return Pages(store.keys[layer], store.values[layer])


def _joined(own: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Without a copy where nobody is aboard."""
    return torch.cat([own, *[other.to(own.device) for other in others]]) if others else own
