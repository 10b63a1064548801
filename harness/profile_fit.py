"""A catalogue entry from a profile: what `harness profile` measured of one model's ops, as constants that hold for
other models, batches and contexts as well.

What a profile cannot tell - memory sizes, peaks, the disk, products on the host - is taken from a machine of the
catalogue, with its source. Efficiencies are shares of that machine's peaks, so a wrong peak shifts them and no time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.core.curves import Curve
from engines.hardware import Cpu, Gpu, GpuAttention, Grade, Hardware, Link, Source, load_hardware
from engines.model.config import ModelConfig, load_config
from harness.catalogue_entry import write_entry
from harness.costs import DTYPE_BYTES
from harness.errors import ConfigError
from harness.fitting import Peaks
from harness.fitting_ratios import TILES, fit_tables
from harness.op_tables import Point
from harness.profile_file import CountPoint, HostPoint, Profile, load_profile, mismatches
from harness.profile_interference import slowdowns

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS = 4  # a profile repeats to some percent


@dataclass(frozen=True, slots=True)
class FitRequest:
    out: Path
    base: Hardware
    model: str


def fit_request(
    out: Path | None, base: str | None, made: Path | None, model: str | None, dtype: str
) -> FitRequest | None:
    """ConfigError for what can be known before anything is measured; `made`: a profile of before."""
    if out is None:
        if base or made:
            raise ConfigError("--hardware, --from: only with --fit FILE.yaml, which they are for")
        return None
    if base is None:
        raise ConfigError("--fit: needs --hardware, a machine whose memory sizes, peaks and disk the new one has")
    if made is not None:
        setting = load_profile(made).setting
        model, dtype = model or setting.model, setting.dtype
    hardware = load_hardware(base)
    if problems := [*_mistakes(out, hardware, dtype)]:
        raise ConfigError(problems)
    return FitRequest(out, hardware, model or "")


def _mistakes(out: Path, base: Hardware, dtype: str) -> Iterator[str]:
    if dtype not in base.gpu.flops:
        yield f"--hardware: {base.name} has no {dtype}; it has {', '.join(sorted(base.gpu.flops))}"
    if out.is_dir() or not out.parent.is_dir() or out.suffix not in (".yaml", ".yml"):
        yield f"--fit {out}: name a .yaml file in a folder that there is"


def write_fit(made: Path, request: FitRequest) -> None:
    profile, model = load_profile(made), load_config(request.model)
    setting = profile.setting
    if found := [*mismatches(profile, model, setting.dtype, setting.accel_page_tokens)]:
        raise ConfigError(f"--model: {made} {problem}" for problem in found)
    heading = (
        f"Fitted by `harness profile --fit` to {made.name}: {setting.model} in {setting.dtype}, "
        f"backend {setting.backend},\n{setting.grid} grid, {setting.rounds} rounds, {profile.created_utc}. "
        f"What it cannot tell is {request.base.name}'s."
    )
    write_entry(request.out, fitted_hardware(profile, model, request.base, request.out.stem), heading)


def fitted_hardware(profile: Profile, model: ModelConfig, base: Hardware, name: str) -> Hardware:
    fitting = _Fitting(profile, model)
    gpu, cpu, link = fitting.gpu(base.gpu), fitting.cpu(base.cpu), fitting.link(base.link)
    description = f"fitted to a profile of {model.name}; memory, peaks and disk of {base.name}"
    measured = replace(base, name=name, description=description, gpu=gpu, cpu=cpu, link=link)
    if profile.beside is not None:
        factors = {unit: each.value for unit, each in slowdowns(profile.points, profile.beside).items()}
        measured = replace(measured, interference=replace(base.interference, **factors))
    measured = replace(measured, host_overhead_per_step_s=_rounded(profile.overhead.step_s))
    return replace(measured, sources=_sources(base, fitting, cpu is not base.cpu))


@dataclass(frozen=True, slots=True)
class _Fitting:
    """Points of a profile as lines and products; one layer's unless said otherwise."""

    profile: Profile
    model: ModelConfig

    @property
    def kv_bytes(self) -> int:
        return self.model.kv_bytes_per_token_per_layer(DTYPE_BYTES[self.profile.setting.dtype])

    def gpu(self, base: Gpu) -> Gpu:
        dtype = self.profile.setting.dtype
        peaks = Peaks(base.bandwidth_bytes_per_s, base.flops[dtype], DTYPE_BYTES[dtype])
        tables = fit_tables([*self.products()], self.shapes(), peaks, rounded=_rounded)
        fixed_s, per_byte_s = self.decode_attention()
        attention = GpuAttention(_rounded(fixed_s), _rounded(1 / per_byte_s / base.bandwidth_bytes_per_s))
        gemm = replace(tables.fit.gemm, by_shape=tables.by_shape)
        return replace(base, gemm=gemm, attention=attention, op_fixed_s=tables.fit.fixed_s, small_ops=None)

    def products(self) -> Iterator[Point]:
        """With the norms, activations and rotary positions beside them: what is timed here is all that lies between
        two attentions.
        """
        points, sizes = self.profile.points, [inputs * outputs for inputs, outputs in self.model.matrices]
        yield from _points("first", sizes[:1], points.first)
        yield from _points("layer", sizes, points.between)
        yield from _points("last", sizes[1:], points.last)
        yield from _points("head", [self.model.hidden_size * self.model.vocab_size], points.head)

    def shapes(self) -> dict[tuple[int, int], list[Point]]:
        """What gets a table of its own. A profile times the three products after attention together, so they share one:
        a whole layer's time without the first product's.
        """
        model, points = self.model, self.profile.points
        sizes = [inputs * outputs for inputs, outputs in model.matrices]
        first_s = Curve.fit([(point.count, point.median_s) for point in points.first])
        others = [
            Point("others", sum(sizes[1:]), point.count, point.median_s - first_s(point.count), len(sizes) - 1)
            for point in points.between
            if point.median_s > first_s(point.count)
        ]
        found = dict.fromkeys(model.matrices[1:], others)
        found[model.matrices[0]] = [*_points("first", sizes[:1], points.first)]
        found[model.hidden_size, model.vocab_size] = [
            *_points("head", [model.hidden_size * model.vocab_size], points.head)
        ]
        return {shape: measured for shape, measured in found.items() if measured}

    def decode_attention(self) -> tuple[float, float]:
        points = self.profile.points.decode_attention
        read = [point.rows * point.context * self.kv_bytes for point in points]
        return line(read, [point.median_s for point in points], "decode_attention")

    def cpu(self, base: Cpu) -> Cpu:
        points = self.host_points()
        if not points:
            return base
        read = [point.rows * point.context * self.kv_bytes for point in points]
        _, per_byte_s = line(read, [point.median_s for point in points], "host_attention")
        return replace(base, attention_share=_rounded(1 / per_byte_s / base.read_bandwidth_bytes_per_s))

    def host_points(self) -> list[HostPoint]:
        """With all the threads there were."""
        points = self.profile.points.host_attention
        most = max((point.threads for point in points), default=0)
        return [point for point in points if point.threads == most]

    def link(self, base: Link) -> Link:
        down = self._moved("move_to_host", self.profile.points.move_to_host)
        up = self._moved("move_to_accel", self.profile.points.move_to_accel)
        return replace(
            base,
            d2h_bytes_per_s=_rounded(1 / down[1]),
            h2d_bytes_per_s=_rounded(1 / up[1]),
            latency_s=_rounded((down[0] + up[0]) / 2),
        )

    def _moved(self, what: str, points: Sequence[CountPoint]) -> tuple[float, float]:
        """All layers of one request."""
        moved = [point.count * self.kv_bytes * self.model.layers for point in points]
        return line(moved, [point.median_s for point in points], what)


def line(sizes: Sequence[float], seconds: Sequence[float], what: str) -> tuple[float, float]:
    """Fixed seconds, and seconds for each byte, neither negative: least squares on relative errors."""
    from scipy.optimize import nnls

    took = np.array(seconds, dtype=np.float64)
    unit = max(sizes)  # in the solver both columns have to be of one order
    columns: NDArray[np.float64] = np.stack([1 / took, np.array(sizes) / unit / took], axis=1)
    (fixed_s, whole_s), _ = nnls(columns, np.ones(len(took)))
    if whole_s <= 0:
        raise ConfigError(f"profile: {what} takes no longer with more bytes; profile again, with more rounds")
    return float(fixed_s), float(whole_s) / unit


def _points(op: str, sizes: Sequence[int], points: Sequence[CountPoint]) -> Iterator[Point]:
    return (Point(op, sum(sizes), point.count, point.median_s, len(sizes)) for point in points if point.median_s > 0)


def _sources(base: Hardware, fitting: _Fitting, host: bool) -> Mapping[str, Source]:
    """What was fitted is measured; what was taken over keeps its grade, unless it was measured: not here, then."""
    kept = {path: _taken_over(source, base.name) for path, source in base.sources.items()}
    within = ("gpu.gemm.", "gpu.small_ops.")  # all of it is fitted, or in what is
    kept = {path: source for path, source in kept.items() if not path.startswith(within)}
    measured = {path: Source(text, Grade.MEASURED) for path, text in _texts(fitting, host).items()}
    return kept | measured | _slowdown_sources(fitting.profile)


def _slowdown_sources(profile: Profile) -> dict[str, Source]:
    """With the quartiles of the points as the range: an op is slowed by none, another by a third."""
    if profile.beside is None:
        return {}
    setting = profile.setting
    text = (
        f"median over the points of a profile of {setting.model} in {setting.dtype}, {profile.created_utc}: "
        "each with the other units busy over the same alone; range: quartiles"
    )
    return {
        f"interference.{unit}": Source(text, Grade.MEASURED, each.low, each.high)
        for unit, each in slowdowns(profile.points, profile.beside).items()
    }


def _taken_over(source: Source, name: str) -> Source:
    grade = Grade.ASSUMED if source.grade is Grade.MEASURED else source.grade
    return replace(source, text=f"taken over from {name}: {source.text}", grade=grade)


def _texts(fitting: _Fitting, host: bool) -> dict[str, str]:
    setting, overhead = fitting.profile.setting, fitting.profile.overhead
    at = f"profile of {setting.model} in {setting.dtype}, {fitting.profile.created_utc}"
    products = f"fit to the products of a {at}, norms and activations with them"
    texts = {
        "gpu.gemm.bandwidth_efficiency": products,
        "gpu.gemm.compute_efficiency": products,
        "gpu.gemm.exponent": products,
        "gpu.gemm.tile_rows": f"{products}: of {', '.join(map(str, TILES))} the one with which they are met best",
        "gpu.gemm.by_shape": f"{products}: each over the fit, the three after attention together",
        "gpu.op_fixed_s": products,
        "gpu.attention.fixed_s": f"fit to the decode attention of a {at}",
        "gpu.attention.efficiency": f"fit to the decode attention of a {at}",
        "link.h2d_bytes_per_s": f"fit to the moves to the accelerator of a {at}",
        "link.d2h_bytes_per_s": f"fit to the moves to the host of a {at}",
        "link.latency_s": f"fit to the moves of a {at}, mean of both directions",
        "host_overhead_per_step_s": f"{at}; {overhead.token_s * 1e6:.1f} us for each sampled token come on top",
    }
    if host:
        texts["cpu.attention_share"] = f"fit to the host attention of a {at}, {setting.host_threads} threads"
    return texts


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
