"""Hugging Face transformers as an engine of its own: `generate` with static batching, and Accelerate's offload.

Not here: transformers itself. worker.py runs it in a process of its own, under this very Python unless told otherwise.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engines.process.adapter import ProcessAdapter, Worker, found_python

if TYPE_CHECKING:
    from engines.core.adapter import EngineAdapter, Site

PLACEMENTS = ("auto", "balanced", "balanced_low_0", "sequential")
SIZE = re.compile(r"\d+(\.\d+)? *[KMG]I?B", re.IGNORECASE)  # as Accelerate reads it
NO_ACCELERATOR = frozenset({"cpu", "disk"})
Device = int | str


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """transformers' `generate`. A batch is formed of whoever waits, oldest first, up to max_batch and as far as their
    prompts and answers, all padded to the longest, fit into the KV; it runs to its end before the next one starts.

    `offload` takes all weights off the accelerator, as Accelerate's cpu_offload and disk_offload do: each layer comes
    in when it is computed. `device_map` with `max_memory` spreads them over the accelerator, the host and the disk, as
    from_pretrained does; what `max_memory` leaves open is the envelope's. On the `cpu` backend the CPU is the
    accelerator, so `max_memory: {cpu: ...}` is its memory, and what does not fit is on the disk.
    """

    offload: Literal["none", "cpu", "disk"] = "none"
    device_map: str | Mapping[str, Device] = ""  # auto, balanced, balanced_low_0, sequential, or {module: device}
    max_memory: Mapping[Device, int | str] = field(default_factory=dict)  # {"0": 10GiB, cpu: 30GiB}
    offload_folder: str = ""  # where `offload: disk` writes; the cell's own folder when not given
    attention: Literal["sdpa", "eager"] = "sdpa"
    batch: int | Literal["auto"] = "auto"  # requests at once; auto: max_batch
    python: str = ""  # of another environment with transformers
    start_limit_s: float = 900.0

    def __post_init__(self) -> None:
        if not self.start_limit_s > 0:
            raise ValueError(f"start_limit_s: must be above 0, not {self.start_limit_s}")
        if self.batch != "auto" and not self.batch >= 1:
            raise ValueError(f"batch: must be auto or at least 1, not {self.batch}")
        if isinstance(self.device_map, str) and self.device_map not in ("", *PLACEMENTS):
            raise ValueError(
                f"device_map: must be {', '.join(PLACEMENTS)} or say {{module: device}}, not {self.device_map!r}"
            )
        if self.offload != "none" and self.device_map:
            raise ValueError("offload takes all weights away and device_map spreads them; give one of the two")
        if self.max_memory and self.device_map not in PLACEMENTS:
            raise ValueError(f"max_memory: goes with device_map: {' | '.join(PLACEMENTS)}")
        for device, size in self.max_memory.items():
            if isinstance(size, str) and not SIZE.fullmatch(size):
                raise ValueError(f"max_memory: {device}: must be bytes or a size such as 10GiB, not {size!r}")

    @property
    def runs_model(self) -> bool:
        return True

    def problems(self, backend: str, paced: bool) -> list[str]:
        if backend == "sim":
            return ["is the real one and cannot be simulated; leave it out there"]
        if backend == "endpoint":
            return ["runs here; for a server that is already running use kind: openai"]
        if paced:
            return ["is the real one and cannot be paced; set emulation.mode: native"]
        return list(self._missing()) or list(self._misplaced(backend))

    def open(self, site: Site) -> EngineAdapter:
        python = found_python(self.python, [Path(sys.executable)])
        assert python is not None, "problems() has been asked"
        device_map = self.device_map if isinstance(self.device_map, str) else dict(self.device_map)
        settings = {
            "offload": self.offload,
            "device_map": device_map,
            "max_memory": {str(device): size for device, size in self.max_memory.items()},
            "attention": self.attention,
            "batch": site.max_batch if self.batch == "auto" else self.batch,
            "host_threads": site.host_threads,
            "kv_bytes_per_token": site.kv_bytes_per_token,
        }
        environment = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        if site.backend == "cpu":
            environment["OMP_NUM_THREADS"] = str(site.accel_cores)
        script = Path(__file__).with_name("worker.py")
        folder = Path(self.offload_folder).expanduser() if self.offload_folder else None
        return ProcessAdapter(Worker("hf", python, script, settings, environment, self.start_limit_s, folder), site)

    def _missing(self) -> Iterator[str]:
        if found_python(self.python, [Path(sys.executable)]) is None:
            yield f"no Python at {self.python or sys.executable}; give python: PATH"
        if self.offload_folder and not Path(self.offload_folder).expanduser().is_dir():
            yield f"offload_folder: no folder at {self.offload_folder}"
        if (self.offload != "none" or self.device_map) and not self.python and find_spec("accelerate") is None:
            yield "offload and device_map need Accelerate: run `pip install accelerate`"

    def _misplaced(self, backend: str) -> Iterator[str]:
        """Devices that the backend does not have, and a model that would not run on the one it is measured on."""
        named = [] if isinstance(self.device_map, str) else list(self.device_map.values())
        if backend == "cpu":
            strange = {str(device): None for device in (*named, *self.max_memory) if device not in NO_ACCELERATOR}
            for device in strange:
                yield f"device {device!r} is not there on backend cpu; device_map and max_memory may name cpu and disk"
        elif named and NO_ACCELERATOR.issuperset(named):
            yield "device_map: puts nothing on the GPU, so that the CPU would compute; name 0, or set offload: cpu"
