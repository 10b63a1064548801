"""The file of `harness profile`: what was measured, where, with what spread, and how well the table predicts it.

Versioned; a reader refuses other versions, and other models, dtypes and page sizes than its own, in one line. What the
numbers become is engines/core/profile_table.py's; measuring is profile_run.py's.

Version 1: the first. Version 2: host attention by number of threads; every op once more with the other units busy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from engines.core.profile_table import Measurements, ProfileTable
from engines.model.config import ModelConfig
from harness.errors import ConfigError
from harness.experiment import DType
from harness.fields import AT_LEAST_ONE, Count, Section
from results.errors import ResultsError
from results.files import read_json, write_json

SCHEMA_VERSION: Final = 2
KIND: Final = "op profile"
DECIDE_COSTS = ("vocab_size", "hidden_size", "ffn_size", "layers", "query_heads", "kv_heads", "head_dim")

ProfiledBackend = Literal["cpu", "cuda"]
Seconds = Annotated[float, Field(ge=0)]
Whole = Annotated[int, Field(ge=0)]


class Spread(Section):
    """One point, as often as it was visited."""

    p10_s: Seconds
    median_s: Seconds
    p90_s: Seconds
    samples: Count


class CountPoint(Spread):
    count: Count  # tokens, or sampled rows

    @property
    def key(self) -> int:
        return self.count


class RowsPoint(Spread):
    rows: Count
    context: Count  # of each row, the new token included

    @property
    def key(self) -> tuple[int, int]:
        return self.rows, self.context


class HostPoint(RowsPoint):
    threads: Count

    @property
    def key(self) -> tuple[int, int, int]:  # type: ignore[override]
        return self.threads, self.rows, self.context


class ChunkPoint(Spread):
    length: Count
    start: Whole

    @property
    def key(self) -> tuple[int, int]:
        return self.length, self.start


Counts = Annotated[tuple[CountPoint, ...], AT_LEAST_ONE]


class Points(Section):
    """By op of engines/core/pipeline.py; seconds of one op of one layer, of moves of all layers."""

    first: Counts
    between: Counts
    last: Counts  # when nobody samples
    head: Counts  # what sampling adds to it
    decode_attention: Annotated[tuple[RowsPoint, ...], AT_LEAST_ONE]
    prefill_attention: Annotated[tuple[ChunkPoint, ...], AT_LEAST_ONE]
    host_attention: tuple[HostPoint, ...]  # empty: there was no core beside the accelerator's
    move_to_host: Counts
    move_to_accel: Counts

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        for name in type(self).model_fields:
            keys: list[Hashable] = [point.key for point in getattr(self, name)]
            if len(set(keys)) < len(keys):
                raise ValueError(f"{name} holds a point twice")
        return self


class Dispatch(Section):
    """Medians of one job of host attention that has next to nothing to read; its threads still spin."""

    submit_s: Seconds  # what the caller pays
    wake_s: Seconds  # from the call until the first thread begins
    return_s: Seconds  # from the last thread's end until wait() returns


class Overhead(Section):
    """Between the end of a step and the start of the next, in the loop that serves, by how many decode."""

    step_s: Seconds
    token_s: Seconds
    gaps: Counts
    dispatch: Dispatch | None = None  # None: there was no core beside the accelerator's


class HeldOut(Section):
    """A point that the table has not seen, and what it says of it."""

    what: str
    at: str
    measured_s: Seconds
    predicted_s: Seconds

    @property
    def error(self) -> float:
        return abs(self.predicted_s - self.measured_s) / self.measured_s if self.measured_s else 0.0


class Accuracy(Section):
    """Relative errors over the held-out points."""

    median_error: Seconds
    p95_error: Seconds
    held_out: tuple[HeldOut, ...]


class Setting(Section):
    """What the numbers hold for."""

    backend: ProfiledBackend
    model: str
    shape: dict[str, int]
    dtype: DType
    accel_cores: Whole  # 0 on a GPU
    host_threads: Whole  # of host attention
    accel_page_tokens: Count
    host_page_tokens: Count
    max_batch_tokens: Count
    max_context: Count
    kv_tokens: Count  # held by the pages in memory
    rounds: Count
    grid: Literal["full", "quick"]


class Profile(Section):
    schema_version: Literal[2] = SCHEMA_VERSION
    kind: Literal["op profile"] = KIND
    label: Literal["measured"] = "measured"
    created_utc: str
    setting: Setting
    machine: dict[str, Any]
    versions: dict[str, Any]
    git_commit: str | None
    points: Points
    beside: Points | None  # accelerator and moves while the host attends, host attention while the accelerator works
    overhead: Overhead
    accuracy: Accuracy
    accuracy_beside: Accuracy | None

    def table(self, beside: bool = False) -> ProfileTable:
        """A new one with each call: what is simulated and what a policy believes are never one object."""
        points = self.beside if beside else self.points
        if points is None:
            raise ConfigError("this profile was made with --alone: it knows nothing of units that work side by side")
        return ProfileTable(measurements(points, self.overhead, self.setting.shape["layers"]))


def measurements(points: Points, overhead: Overhead, layers: int) -> Measurements:
    """Host attention with all the threads there were."""
    threads = max((point.threads for point in points.host_attention), default=0)
    return Measurements(
        first=_knots(points.first),
        between=_knots(points.between),
        last=_knots(points.last),
        head=_knots(points.head),
        decode={point.key: point.median_s for point in points.decode_attention},
        prefill={point.key: point.median_s for point in points.prefill_attention},
        host={
            (point.rows, point.context): point.median_s for point in points.host_attention if point.threads == threads
        },
        to_host=_knots(points.move_to_host),
        to_accel=_knots(points.move_to_accel),
        step_overhead_s=overhead.step_s,
        token_overhead_s=overhead.token_s,
        layers=layers,
    )


def shape_of(model: ModelConfig) -> dict[str, int]:
    return {name: getattr(model, name) for name in DECIDE_COSTS}


def save_profile(path: Path, profile: Profile) -> None:
    write_json(path, profile.model_dump(mode="json"))


def load_profile(path: str | Path) -> Profile:
    """ConfigError in one line where the file is none, is of another version, or was tampered with."""
    try:
        raw = read_json(Path(path))
    except ResultsError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise ConfigError(f"{path}: no profile; `harness profile --out FILE.json` writes one")
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: version {raw.get('schema_version')!r}, this harness reads {SCHEMA_VERSION}; profile again"
        )
    try:
        return Profile.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {where}: {first['msg']}; profile again") from None


def mismatches(profile: Profile, model: ModelConfig, dtype: str, page_tokens: int) -> Iterator[str]:
    """Why its numbers say nothing about this model, dtype or page size."""
    setting = profile.setting
    if setting.shape != shape_of(model):
        differing = [name for name, size in shape_of(model).items() if setting.shape.get(name) != size]
        yield (
            f"was measured with {setting.model}, which differs from {model.name} in {', '.join(differing)}; "
            f"profile {model.name}"
        )
    if setting.dtype != dtype:
        yield f"was measured in {setting.dtype}, not in {dtype}; profile again with --dtype {dtype}"
    if setting.accel_page_tokens != page_tokens:
        yield (
            f"was measured with pages of {setting.accel_page_tokens} tokens, budget.accel_page_tokens is "
            f"{page_tokens}; profile again with --page-tokens {page_tokens}"
        )


def digest_of(path: str | Path) -> str:
    """Tells two files of one name apart: a cell's numbers hang on what the profile said."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _knots(points: Sequence[CountPoint]) -> list[tuple[int, float]]:
    return sorted((point.count, point.median_s) for point in points)
