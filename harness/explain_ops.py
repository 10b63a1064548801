"""`harness explain ops`: what each op of one layer takes on a catalogue machine, and which of its constants decides it.

Values are those of the cost table that simulations run by. Not here: what a scheduler makes of them (explain.py), or
machines that were profiled, whose tables have no constants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engines.core.cost import Work
from engines.core.roofline import Roofline
from engines.hardware import Grade, Hardware, Source, load_hardware
from engines.model.config import load_config
from harness.catalogue import Listing
from harness.costs import HOST_ATTENTION_FIXED_S, machine_rates, model_costs
from harness.errors import ConfigError

OPS = {
    "linear_s": "matrix products",  # and the small ops between them
    "accel_attention_s": "attention, GPU",
    "host_attention_s": "attention, host",
    "h2d_s": "results to the GPU",
    "d2h_s": "rows to the host",
}
HOST_FIXED = "host_attention_fixed_s"  # of the harness, not of a machine's file
HOST_FIXED_SOURCE = Source("a launch of the host's kernel and its answer; the same for every machine", Grade.ASSUMED)
RATIOS = ("gpu.gemm.tile_rows", "gpu.gemm.by_shape", "gpu.gemm.by_tokens")
TOKENS = re.compile("0*[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Governor:
    """The largest term of an op's formula. `of`: constants that `constant` is a share of, or that correct the term."""

    term: str
    constant: str
    of: tuple[str, ...]
    source: str
    grade: Grade


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds of one layer."""

    tokens: int
    batch: int
    linear_s: float  # all matrix products, and norms and activations between them
    accel_attention_s: float  # decodes of `batch` requests
    host_attention_s: float
    h2d_s: float  # what attention on the host made of `tokens` rows
    d2h_s: float  # their query, key and value
    governed_by: Mapping[str, Governor]


@dataclass(frozen=True, slots=True)
class Constant:
    value: float | None  # None for a table
    source: str
    grade: Grade
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Ops:
    hardware: str
    model: str
    dtype: str
    context: int
    rows: tuple[Row, ...]
    constants: Mapping[str, Constant]  # those that govern some op of some row

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def parsed_tokens(text: str) -> tuple[int, ...]:
    """ "1,16,256": one ConfigError for all that is no positive whole number."""
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not TOKENS.fullmatch(word)]
    if wrong:
        raise ConfigError(f"--tokens {text}: {wrong[0]!r} is no positive whole number; use such as 1,16,256")
    return tuple(int(word) for word in words)


def explained_ops(hardware: str, model: str, tokens: Sequence[int], context: int, batch: int | None, dtype: str) -> Ops:
    """`batch` requests decode, each with `context` tokens; as many as there are tokens when not given."""
    machine = load_hardware(hardware)
    costs = Roofline(model_costs(load_config(model), dtype), machine_rates(machine, dtype))
    rows = tuple(_row(costs, machine, dtype, count, batch or count, context) for count in tokens)
    governors = [governor for row in rows for governor in row.governed_by.values()]
    paths = dict.fromkeys(path for governor in governors for path in (governor.constant, *governor.of))
    constants = {path: _constant(machine, path) for path in paths}
    return Ops(machine.name, model, dtype, context, rows, constants)


def _row(costs: Roofline, machine: Hardware, dtype: str, tokens: int, batch: int, context: int) -> Row:
    seconds = {
        "linear_s": costs.linear_s(tokens),
        "accel_attention_s": costs.accel_attention_s(Work(decode_rows=batch, decode_kv_tokens=batch * context)),
        "host_attention_s": costs.host_attention_s(batch, batch * context),
        "h2d_s": costs.rows_to_accel_s(tokens),
        "d2h_s": costs.rows_to_host_s(tokens),
    }
    fixed = {
        "accel_attention_s": costs.machine.attention_fixed_s,
        "host_attention_s": costs.machine.host_attention_fixed_s,
        "h2d_s": costs.machine.link_latency_s,
        "d2h_s": costs.machine.link_latency_s,
    }
    terms = {op: {"fixed": fixed[op], "bandwidth": seconds[op] - fixed[op]} for op in fixed}
    terms["linear_s"] = _linear_terms(costs, tokens)
    governed_by = {op: _governor(machine, dtype, op, terms[op]) for op in OPS}
    return Row(tokens=tokens, batch=batch, **seconds, governed_by=governed_by)


def _linear_terms(costs: Roofline, tokens: int) -> dict[str, float]:
    """Of the formula that the roofline evaluates; bytes and arithmetic overlap, so they do not add up to the time."""
    parameters, rates = costs.model.pre_parameters + costs.model.post_parameters, costs.machine
    return {
        "fixed": len(costs.widths) * rates.gemm_fixed_s,
        "bandwidth": parameters * costs.model.bytes_per_parameter / rates.gemm_bytes_per_s,
        "compute": 2 * parameters * tokens / rates.gemm_flops_per_s,
    }


def _governor(machine: Hardware, dtype: str, op: str, terms: Mapping[str, float]) -> Governor:
    term = max(terms, key=lambda name: terms[name])
    constant, *of = _paths(op, term, dtype)
    if op == "linear_s" and term in ("bandwidth", "compute"):
        of.extend(path for path in RATIOS if path in machine.sources)
    source = _source(machine, constant)
    return Governor(term, constant, tuple(of), source.text, source.grade)


def _paths(op: str, term: str, dtype: str) -> tuple[str, ...]:
    """The constant of a term, and what it is a share of: the peak is a datasheet's, the share is what is uncertain."""
    return {
        ("linear_s", "fixed"): ("gpu.op_fixed_s",),
        ("linear_s", "bandwidth"): ("gpu.gemm.bandwidth_efficiency", "gpu.bandwidth_bytes_per_s"),
        ("linear_s", "compute"): ("gpu.gemm.compute_efficiency", f"gpu.flops.{dtype}"),
        ("accel_attention_s", "fixed"): ("gpu.attention.fixed_s",),
        ("accel_attention_s", "bandwidth"): ("gpu.attention.efficiency", "gpu.bandwidth_bytes_per_s"),
        ("host_attention_s", "fixed"): (HOST_FIXED,),
        ("host_attention_s", "bandwidth"): ("cpu.attention_share", "cpu.read_bandwidth_bytes_per_s"),
        ("h2d_s", "fixed"): ("link.latency_s",),
        ("h2d_s", "bandwidth"): ("link.h2d_bytes_per_s",),
        ("d2h_s", "fixed"): ("link.latency_s",),
        ("d2h_s", "bandwidth"): ("link.d2h_bytes_per_s",),
    }[op, term]


def _constant(machine: Hardware, path: str) -> Constant:
    source = _source(machine, path)
    return Constant(_value(machine, path), source.text, source.grade, source.low, source.high)


def _source(machine: Hardware, path: str) -> Source:
    return HOST_FIXED_SOURCE if path == HOST_FIXED else machine.sources[path]


def _value(machine: Hardware, path: str) -> float | None:
    if path == HOST_FIXED:
        return HOST_ATTENTION_FIXED_S
    found = machine.at(path)
    return found if isinstance(found, int | float) else None


# --- for a terminal --------------------------------------------------------------------------------------------------


def ops_listing(found: Ops) -> Listing:
    """Microseconds, each with the term that decides it."""
    columns = ("tokens", "batch", *(f"{name} us" for name in OPS.values()))
    return Listing(columns, [tuple(_cells(row)) for row in found.rows])


def constants_listing(found: Ops) -> Listing:
    columns = ("constant", "value", "range", "grade", "source")
    rows = [
        (path, _shown(each.value), _range(each), each.grade.value, each.source)
        for path, each in found.constants.items()
    ]
    return Listing(columns, rows)


def _cells(row: Row) -> Iterator[str]:
    yield f"{row.tokens:,}"
    yield f"{row.batch:,}"
    for op in OPS:
        yield f"{getattr(row, op) * 1e6:,.1f} {row.governed_by[op].term}"


def _range(constant: Constant) -> str:
    if constant.low is None and constant.high is None:
        return "-"
    return f"{_shown(constant.low)} to {_shown(constant.high)}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
