"""Distributions as an installer leaves them behind, good and bad ones, in a folder that a test puts on the path."""

from __future__ import annotations

import json
from pathlib import Path

MODULE_PREFIX = "module_of_"

POLICY = '''
from dataclasses import dataclass

from engines.gpu_only.policy import GpuOnly


@dataclass(frozen=True, slots=True)
class Engine:
    """Decides as gpu_only does."""

    pace: int = 1

    name = "plugin"
    uses_host_kv = False
    partition = GpuOnly.partition

    def decide(self, view):
        return GpuOnly().decide(view)
'''

SERVED = '''
from dataclasses import dataclass

from engines.core.adapter import Delivery


@dataclass(frozen=True, slots=True)
class Engine:
    """Answers every request with zeros, a token a poll."""

    runs_model = False

    def problems(self, backend, paced):
        return []

    def open(self, site):
        return Adapter(site.clock)


class Adapter:
    def __init__(self, clock):
        self.clock, self.left = clock, {}

    def start(self):
        return {}

    def submit(self, submission):
        self.left[submission.request_id] = submission.max_new_tokens

    @property
    def busy(self):
        return bool(self.left)

    def poll(self, now_s):
        if not self.left:
            return None
        self.clock.wait_until(now_s + 1e-3)
        ids = list(self.left)
        self.left = {each: count - 1 for each, count in self.left.items() if count > 1}
        return Delivery(self.clock.now(), ids, [0] * len(ids), [each for each in ids if each not in self.left])

    def close(self):
        pass
'''


def install(folder: Path, name: str, entry_points: str | bytes, version: str = "1.0", editable: str = "") -> Path:
    """The dist-info of a distribution that claims these engines; the group's heading is added to a text."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    text = entry_points if isinstance(entry_points, bytes) else f"[harness.engines]\n{entry_points}\n".encode()
    (metadata / "entry_points.txt").write_bytes(text)
    if editable:
        direct = {"url": f"file://{editable}", "dir_info": {"editable": True}}
        (metadata / "direct_url.json").write_text(json.dumps(direct))
    return metadata


def install_engine(folder: Path, kind: str, source: str) -> None:
    """A distribution of one module whose class Engine is the engine."""
    install(folder, f"dist-{kind}", f"{kind} = {MODULE_PREFIX}{kind}:Engine")
    (folder / f"{MODULE_PREFIX}{kind}.py").write_text(source)
