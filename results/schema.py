"""The shape of everything a run leaves on disk: names, types and versions of its records.

Not here: where files lie (`store`), how a finished run is asked questions (`query`). Nothing in this module touches a
disk.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pyarrow as pa

from results.draws import Draws
from results.errors import ResultsError
from results.fields import Fields
from results.operator_rows import OperatorRow
from results.parity_check import ParityCheck

# History of the format. A reader takes every version up to its own; a new name, unit or meaning is a new version.
#   1  manifest.json, summary.json, requests.parquet, steps.parquet, samples.parquet, tokens.jsonl.gz
SCHEMA_VERSION = 1

MANIFEST_FILE = "manifest.json"
SUMMARY_FILE = "summary.json"
REQUESTS_FILE = "requests.parquet"
STEPS_FILE = "steps.parquet"
SAMPLES_FILE = "samples.parquet"
TOKENS_FILE = "tokens.jsonl.gz"


class Label(StrEnum):
    """How a number came about. It stands beside every figure the product prints."""

    MEASURED = "measured"
    EMULATED = "emulated"
    SIMULATED = "simulated"


class Status(StrEnum):
    """What became of a cell. Only `OK` gives figures; the others give a reason."""

    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class CellSummary:
    """One engine on one workload, once. Metrics are flat, in SI units named by their keys (`ttft_s_p50`).

    `unfair` lists what the engine took beyond the envelope: its figures stand, but nothing is concluded from them.
    """

    cell_id: str
    engine: str
    workload: str
    backend: str
    label: Label
    repeat: int
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    resolved: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    unfair: tuple[str, ...] = ()
    parity: ParityCheck | None = None
    operators: tuple[OperatorRow, ...] = ()  # of engines whose ops we see
    draws: Draws | None = None  # of simulated cells

    def to_json(self) -> dict[str, object]:
        """Refuses NaN and infinity: a metric that could not be computed is left out, never written as a number."""
        for key, value in self.metrics.items():
            if not math.isfinite(value):
                raise ResultsError(f"{self.cell_id}: metrics.{key} is {value}: leave a metric out when it has no value")
        data: dict[str, object] = {
            "schema_version": SCHEMA_VERSION,
            "cell_id": self.cell_id,
            "engine": self.engine,
            "workload": self.workload,
            "backend": self.backend,
            "label": str(self.label),
            "repeat": self.repeat,
            "status": str(self.status),
            "metrics": {key: float(value) for key, value in self.metrics.items()},
            "resolved": dict(self.resolved),
            "notes": list(self.notes),
            "unavailable": dict(self.unavailable),
            "unfair": list(self.unfair),
        }
        if self.parity is not None:
            data["parity"] = self.parity.to_json()
        if self.operators:
            data["operators"] = [row.to_json() for row in self.operators]
        if self.draws is not None:
            data["draws"] = self.draws.to_json()
        if self.error is not None:
            data["error"] = self.error
        return data

    @classmethod
    def from_json(cls, data: object, source: str = "summary.json") -> CellSummary:
        fields = Fields.of(data, source)
        fields.check_version(SCHEMA_VERSION)
        parity, operators = fields.anything("parity"), enumerate(fields.items("operators", []))
        draws = fields.anything("draws")
        return cls(
            cell_id=fields.text("cell_id"),
            engine=fields.text("engine"),
            workload=fields.text("workload"),
            backend=fields.text("backend"),
            label=fields.choice("label", Label),
            repeat=fields.integer("repeat"),
            status=fields.choice("status", Status),
            metrics=fields.floats("metrics"),
            resolved=fields.mapping("resolved"),
            notes=fields.texts("notes", ()),
            unavailable=fields.text_mapping("unavailable", {}),
            error=fields.text("error", None),
            unfair=fields.texts("unfair", ()),
            parity=None if parity is None else ParityCheck.from_json(parity, f"{source}: parity"),
            operators=tuple(OperatorRow.from_json(row, f"{source}: operators[{at}]") for at, row in operators),
            draws=None if draws is None else Draws.from_json(draws, f"{source}: draws"),
        )


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Every complete cell of a run, and what the comparison of its engines came to, as sentences."""

    cells: tuple[CellSummary, ...]
    verdicts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        return {
            "schema_version": SCHEMA_VERSION,
            "cells": [cell.to_json() for cell in self.cells],
            "verdicts": list(self.verdicts),
        }

    @classmethod
    def from_json(cls, data: object, source: str = "summary.json") -> RunSummary:
        fields = Fields.of(data, source)
        fields.check_version(SCHEMA_VERSION)
        cells = enumerate(fields.items("cells"))
        return cls(
            cells=tuple(CellSummary.from_json(item, f"{source}: cells[{index}]") for index, item in cells),
            verdicts=fields.texts("verdicts", ()),
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was asked for and on what: enough to run it again. Only name and label are indispensable to a reader."""

    name: str
    label: Label
    backend: str = ""
    created_utc: str = ""
    command: str = ""
    config: Mapping[str, object] = field(default_factory=dict)
    machine: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, object] = field(default_factory=dict)
    git_commit: str | None = None
    git_dirty: bool | None = None
    seeds: object = None
    cells_planned: tuple[str, ...] = ()
    cost_model_error: str = ""  # where durations come from a model of the machine: how far it is from measured ops

    def to_json(self) -> dict[str, object]:
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "label": str(self.label),
            "backend": self.backend,
            "created_utc": self.created_utc,
            "command": self.command,
            "config": dict(self.config),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "git_commit": self.git_commit,
            "git_dirty": self.git_dirty,
            "seeds": self.seeds,
            "cells_planned": list(self.cells_planned),
            "cost_model_error": self.cost_model_error,
        }

    @classmethod
    def from_json(cls, data: object, source: str = "manifest.json") -> Manifest:
        fields = Fields.of(data, source)
        fields.check_version(SCHEMA_VERSION)
        return cls(
            name=fields.text("name"),
            label=fields.choice("label", Label),
            backend=fields.text("backend", ""),
            created_utc=fields.text("created_utc", ""),
            command=_command(fields),
            config=fields.mapping("config", {}),
            machine=fields.mapping("machine", {}),
            versions=fields.mapping("versions", {}),
            git_commit=fields.text("git_commit", None),
            git_dirty=fields.flag("git_dirty", None),
            seeds=fields.anything("seeds"),
            cells_planned=fields.texts("cells_planned", ()),
            cost_model_error=fields.text("cost_model_error", ""),
        )


def _command(fields: Fields) -> str:
    """Taken as typed, or as a list of arguments."""
    if isinstance(fields.anything("command"), list):
        return shlex.join(fields.texts("command", ()))
    return fields.text("command", "")


def _schema(*columns: tuple[str, pa.DataType], optional: frozenset[str] = frozenset()) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=name in optional) for name, kind in columns]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})


# One row per request. Times are seconds on the run's clock, whose zero is the start of the cell's serving loop.
# A request that was never scheduled has no times: those columns are null, not zero.
REQUESTS: pa.Schema = _schema(
    ("request_id", pa.int64()),
    ("arrival_s", pa.float64()),
    ("dispatch_s", pa.float64()),
    ("first_scheduled_s", pa.float64()),
    ("first_token_s", pa.float64()),
    ("last_token_s", pa.float64()),
    ("prompt_tokens", pa.int32()),
    ("output_tokens", pa.int32()),
    ("asked_tokens", pa.int32()),
    ("preemptions", pa.int32()),
    ("preempted_s", pa.float64()),
    ("status", pa.string()),
    ("reason", pa.string()),
    ("tier", pa.string()),
    ("warmup", pa.bool_()),
    ("token_times_s", pa.list_(pa.float64())),
    optional=frozenset({"first_scheduled_s", "first_token_s", "last_token_s"}),
)

# One row per step of an engine's loop. `predicted_s` is null for engines that predict nothing.
STEPS: pa.Schema = _schema(
    ("step", pa.int64()),
    ("started_s", pa.float64()),
    ("ended_s", pa.float64()),
    ("mode", pa.string()),
    ("decode_rows", pa.int32()),
    ("prefill_rows", pa.int32()),
    ("prefill_tokens", pa.int32()),
    ("running", pa.int32()),
    ("waiting", pa.int32()),
    ("accel_blocks_used", pa.int32()),
    ("host_blocks_used", pa.int32()),
    ("gpu_busy_s", pa.float64()),
    ("cpu_busy_s", pa.float64()),
    ("h2d_busy_s", pa.float64()),
    ("d2h_busy_s", pa.float64()),
    ("disk_busy_s", pa.float64()),
    ("scheduler_s", pa.float64()),
    ("predicted_s", pa.float64()),
    ("ops", pa.int32()),
    ("overruns", pa.int32()),
    ("preempted", pa.int32()),
    ("moved_tokens", pa.int32()),
    ("found_tokens", pa.int32()),
    optional=frozenset({"predicted_s"}),
)
