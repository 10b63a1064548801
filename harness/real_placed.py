"""What engines that place weights need beyond real.py: the model's matrices in their places, and threads beside the
launching one for host, link and disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from engines.apex import attention as native
from engines.backends.disk_store import DiskStore
from engines.backends.op_times import OpSink
from engines.backends.pacing import ModelledPace, NativePace, Pace
from engines.backends.placed_backend import Lane, PlacedExecutor
from engines.backends.placed_weights import PlacedWeights
from engines.backends.workers import CudaLink, Worker
from engines.core.clock import MonotonicClock
from engines.core.cost import CostTable
from engines.core.placement import Placement
from engines.core.types import Capabilities, Limits
from engines.core.units import Tier, Unit
from engines.model.config import load_config
from engines.model.decoder import row_counts
from engines.model.families import open_decoder
from engines.model.sampler import Sampling
from engines.model.weights import load_weights, random_weights
from harness.real import DTYPES, claim_priority, has_priority


class PlacedModel:
    """A model whose matrices went to their places, and the folder on disk that some of them may be in."""

    def __init__(
        self,
        name_or_folder: str,
        dtype: str,
        backend: str,
        seed: int,
        longest_request_tokens: int,
        warm_rows: int,
        placement: Placement,
        disk: tuple[str, int],
    ) -> None:
        config = load_config(name_or_folder)
        device = torch.device("cuda" if backend == "cuda" else "cpu")
        self.disk = DiskStore(*disk) if placement.uses_disk else None
        try:
            weights = (
                load_weights(name_or_folder, config, DTYPES[dtype])
                if Path(name_or_folder).is_dir()
                else random_weights(config, seed, DTYPES[dtype])
            )
            self.weights = PlacedWeights(placement, device, self.disk)
            self.model = open_decoder(
                config,
                weights,
                min(config.max_positions, longest_request_tokens),
                device=device,
                linear=self.weights.linear,
                host_embedding=placement.embedding is Tier.HOST,
            )
            self.weights.complete()
        except BaseException:
            if self.disk is not None:
                self.disk.close()
            raise
        if warm_rows:
            with torch.inference_mode():
                self.weights.warm_up(list(row_counts(warm_rows)))
                self.model.warm_up(warm_rows)


def placed_executor(
    placed: PlacedModel,
    capabilities: Capabilities,
    placement: Placement,
    limits: Limits,
    clock: MonotonicClock,
    costs: CostTable | None,
    spare: Sequence[int],
    sink: OpSink | None = None,
    sampling: Mapping[str, Any] = MappingProxyType({}),
    pool: native.Pool | None = None,
) -> tuple[PlacedExecutor, dict[str, object]]:
    """The executor and what it resolved. With `costs` every op is paced to them, without it runs at full speed."""
    pace: Pace = ModelledPace(clock, costs, sink) if costs is not None else NativePace(clock, sink)
    model = placed.model
    threads = capabilities.host_threads if not spare else min(capabilities.host_threads, len(spare))
    lanes: dict[Unit, Lane] = {Unit.CPU: Worker("host", clock, spare[:threads], threads)}
    is_cuda = model.device.type == "cuda"
    # Short copies that nobody computes meanwhile: where they share a core with the host's products they go first.
    first = claim_priority if costs is not None and has_priority() else None
    lanes[Unit.H2D] = CudaLink(clock, model.device) if is_cuda else Worker("link", clock, spare, first=first)
    lanes[Unit.DISK] = Worker("disk", clock, spare, first=first)
    host_model = model.seen_from(torch.device("cpu")) if is_cuda else model
    executor = PlacedExecutor(
        (model, host_model),
        placed.weights,
        capabilities,
        placement,
        pace,
        limits.max_batch,
        lanes,
        placed.disk,
        Sampling(**sampling),
        pool,
    )
    return executor, {
        "attention": "torch paged gather + SDPA" if is_cuda else f"C++ paged ({native.get_isa()})",
        "device": model.device.type,
        "torch": torch.__version__,
        "pace": "paced" if costs is not None else "native",
        "cpu_threads": threads,
        **{f"{tier.name.lower()}_bytes": size for tier, size in executor.nbytes.items()},
    }
