"""A cost table made of a machine's rates and a model's sizes: what a machine does at best, and how near it comes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from engines.core.cost import Work
from engines.core.placement import Part
from engines.core.products import SMALL_OPS_PER_PART, Shape, in_tiles, values_between
from engines.core.row_ratios import RatioPoints, RowRatios
from engines.core.types import Move, Tier, Unit

SUMMED = (Part.OUTPUT, Part.DOWN)  # matrices that are split by what they read: what they make has to be added up
PACKED_BYTES = 4.5 / 8  # per parameter: a 4-bit code, and two 16-bit numbers for every 64 of them


@dataclass(frozen=True, slots=True)
class ModelCosts:
    """Bytes and multiply-adds of one layer of one model in one dtype."""

    layers: int
    pre_parameters: int
    post_parameters: int
    head_parameters: int
    bytes_per_parameter: float
    kv_bytes_per_token: int  # one layer, keys and values
    attention_flops_per_pair: int  # 4 * query heads * head dim
    query_bytes_per_row: int  # one layer
    matrices: tuple[tuple[int, int], ...] = ()  # inputs and outputs, in the order of Part
    packed_bytes_per_parameter: float = 0.0  # of the layers' matrices, where they are kept in fewer bits
    tokens_each: int = 1  # how many tokens of the modelled workload one prompt or KV token here stands for


@dataclass(frozen=True, slots=True)
class MachineRates:
    """Achieved rates, not peaks: the efficiencies are already in. Sources are in the machine's YAML."""

    gemm_bytes_per_s: float
    gemm_flops_per_s: float
    gemm_exponent: float
    gemm_fixed_s: float
    attention_bytes_per_s: float
    attention_fixed_s: float
    host_attention_bytes_per_s: float
    host_attention_fixed_s: float
    h2d_bytes_per_s: float
    d2h_bytes_per_s: float
    link_latency_s: float
    step_overhead_s: float
    host_gemm_bytes_per_s: float = 0.0
    host_gemm_flops_per_s: float = 0.0
    disk_read_bytes_per_s: float = 0.0
    disk_write_bytes_per_s: float = 0.0
    packed_bytes_per_s: float = 0.0  # of products with packed weights
    packed_flops_per_s: float = 0.0
    packed_exponent: float = 1.0
    gemm_tile_rows: int = 1
    gemm_by_tokens: tuple[tuple[int, float], ...] = ()  # (tokens, measured / formula); may be none
    gemm_by_shape: tuple[tuple[Shape, tuple[tuple[int, float], ...]], ...] = ()  # the same of one product each
    small_op_fixed_s: float = 0.0  # norms, rotary positions, activations
    small_op_bytes_per_s: float = 0.0  # zero: not modelled, or within the ratios
    shares: int = 1  # accelerators that every layer is split over, whose rates together the others then are
    peer_bytes_per_s: float = 0.0  # from one accelerator to the next, while all pass something on
    peer_latency_s: float = 0.0

    def slowed(self, host: float, links: float, accelerator: float) -> "MachineRates":
        """Each unit's ops take so many times as long."""
        return replace(
            self,
            gemm_bytes_per_s=self.gemm_bytes_per_s / accelerator,
            gemm_flops_per_s=self.gemm_flops_per_s / accelerator,
            gemm_fixed_s=self.gemm_fixed_s * accelerator,
            attention_bytes_per_s=self.attention_bytes_per_s / accelerator,
            attention_fixed_s=self.attention_fixed_s * accelerator,
            packed_bytes_per_s=self.packed_bytes_per_s / accelerator,
            packed_flops_per_s=self.packed_flops_per_s / accelerator,
            host_attention_bytes_per_s=self.host_attention_bytes_per_s / host,
            host_gemm_bytes_per_s=self.host_gemm_bytes_per_s / host,
            h2d_bytes_per_s=self.h2d_bytes_per_s / links,
            d2h_bytes_per_s=self.d2h_bytes_per_s / links,
            peer_bytes_per_s=self.peer_bytes_per_s / accelerator,
            peer_latency_s=self.peer_latency_s * accelerator,
        )


class Roofline:
    """Each product: t = ((bytes / B)^p + (flops / F)^p)^(1/p) + fixed, times one scale for emulating a machine in slow
    motion. A layer is its products, and the small ops between them.
    """

    def __init__(
        self,
        model: ModelCosts,
        machine: MachineRates,
        time_scale: float = 1.0,
        alone: MachineRates | None = None,
        accel_slowdown: float = 1.0,
    ) -> None:
        """`alone`: the rates of units that work one at a time, where they differ from those of `machine`."""
        self.model = model
        self.machine = machine
        self.time_scale = time_scale
        self.accel_slowdown = accel_slowdown
        self.alone = self if alone is None else Roofline(model, alone, time_scale)
        self._kv_bytes = model.kv_bytes_per_token * model.tokens_each
        self.pre_attention_s = lru_cache(4096)(self._pre_attention_s)
        self.post_attention_s = lru_cache(4096)(self._post_attention_s)
        self.linear_s = lru_cache(4096)(self._linear_s)
        self.head_s = lru_cache(4096)(self._head_s)
        self.rows_to_host_s = lru_cache(4096)(self._rows_to_host_s)
        self.rows_to_accel_s = lru_cache(4096)(self._rows_to_accel_s)
        self.matrix_s = lru_cache(4096)(self._matrix_s)
        self.host_matrix_s = lru_cache(4096)(self._host_matrix_s)
        self._widths = dict(zip(Part, model.matrices, strict=False))
        self._values_between = values_between(model.matrices)
        self._common_ratio = self._row_ratios(machine.gemm_by_tokens)
        self._ratios = {shape: self._row_ratios(points) for shape, points in machine.gemm_by_shape}

    def equals(self, other: object) -> bool:
        """Whether the other one says the same of everything."""
        if not isinstance(other, Roofline):
            return False
        if (self.model, self.machine, self.time_scale) != (other.model, other.machine, other.time_scale):
            return False
        return self.alone.machine == other.alone.machine

    @property
    def step_overhead_s(self) -> float:
        return self.machine.step_overhead_s * self.time_scale

    @property
    def token_overhead_s(self) -> float:
        return 0.0  # a catalogue's overhead is one number per step

    def gemm_rows(self, work: Work) -> int:
        return work.tokens + work.prefill_tokens * (self.model.tokens_each - 1)

    def accel_attention_s(self, work: Work) -> float:
        machine, model = self.machine, self.model
        seconds = 0.0
        if work.decode_rows:
            read = work.decode_kv_tokens * self._kv_bytes
            seconds += machine.attention_fixed_s + read / machine.attention_bytes_per_s
        if work.prefill_tokens:
            read = work.prefill_kv_tokens * self._kv_bytes
            flops = work.prefill_pairs * model.attention_flops_per_pair * model.tokens_each**2
            seconds += machine.attention_fixed_s + max(
                read / machine.attention_bytes_per_s, flops / machine.gemm_flops_per_s
            )
        return seconds * self.time_scale

    def host_attention_s(self, rows: int, kv_tokens: int) -> float:
        if not rows:
            return 0.0
        read = kv_tokens * self._kv_bytes
        machine = self.machine
        return (machine.host_attention_fixed_s + read / machine.host_attention_bytes_per_s) * self.time_scale

    def move_s(self, move: Move) -> float:
        rate = self.machine.d2h_bytes_per_s if move.target is Tier.HOST else self.machine.h2d_bytes_per_s
        return self._link_s(move.tokens * self._kv_bytes * self.model.layers, rate)

    def _rows_to_host_s(self, rows: int) -> float:
        row_bytes = self.model.query_bytes_per_row + self.model.kv_bytes_per_token
        return self._link_s(rows * row_bytes, self.machine.d2h_bytes_per_s)

    def _rows_to_accel_s(self, rows: int) -> float:
        return self._link_s(rows * self.model.query_bytes_per_row, self.machine.h2d_bytes_per_s)

    def kv_to_host_s(self, tokens: int) -> float:
        return self._link_s(tokens * self._kv_bytes, self.machine.d2h_bytes_per_s)

    def kv_to_accel_s(self, tokens: int) -> float:
        return self._link_s(tokens * self._kv_bytes, self.machine.h2d_bytes_per_s)

    def _link_s(self, moved: float, bytes_per_s: float) -> float:
        return (self.machine.link_latency_s + moved / bytes_per_s) * self.time_scale if moved else 0.0

    def _pre_attention_s(self, tokens: int) -> float:
        model = self.model
        return self._layer_s(model.matrices[:1] or ((model.pre_parameters, 1),), (Part.QKV,), tokens)

    def _post_attention_s(self, tokens: int) -> float:
        model = self.model
        products_s = self._layer_s(model.matrices[1:] or ((model.post_parameters, 1),), (Part.UP,), tokens)
        return products_s + len(SUMMED) * self._summed_s(tokens)

    def _linear_s(self, tokens: int) -> float:
        model = self.model
        whole = model.matrices or ((model.pre_parameters + model.post_parameters, 1),)
        return self._layer_s(whole, (Part.QKV, Part.UP), tokens) + len(SUMMED) * self._summed_s(tokens)

    def _head_s(self, sampled: int) -> float:
        if not sampled:
            return 0.0
        inputs = self.model.matrices[0][0] if self.model.matrices else 1
        shape = (inputs, self.model.head_parameters / inputs)
        return self._product_s(shape, 1.0, sampled) + self._gathered_s(sampled)

    # --- several accelerators ----------------------------------------------------------------------------------------

    def _summed_s(self, rows: int) -> float:
        """Each accelerator has a part of a matrix, and a part of every sum: round a ring twice, in as many pieces."""
        shares = self.machine.shares
        if shares == 1 or not rows:
            return 0.0
        return 2 * (shares - 1) * self._passed_on_s(rows * self._hidden_bytes / shares)

    def _gathered_s(self, rows: int) -> float:
        """Of every row's logits each accelerator has a part: round the ring once."""
        shares = self.machine.shares
        if shares == 1:
            return 0.0
        logits = self.model.head_parameters * self.model.bytes_per_parameter**2 / self._hidden_bytes
        return (shares - 1) * self._passed_on_s(rows * logits / shares)

    def next_stage_s(self, rows: int) -> float:
        return self._passed_on_s(rows * self._hidden_bytes)

    def _passed_on_s(self, moved: float) -> float:
        machine = self.machine
        return (machine.peer_latency_s + moved / machine.peer_bytes_per_s) * self.time_scale

    @property
    def _hidden_bytes(self) -> float:
        """Of one row's hidden state."""
        return self._widths[Part.QKV][0] * self.model.bytes_per_parameter

    def _layer_s(self, shapes: Sequence[Shape], beside: Sequence[Part], tokens: int) -> float:
        """Products with a layer's matrices, which may be packed; the head is not."""
        if not tokens:
            return 0.0
        if self.model.packed_bytes_per_parameter:
            products_s = self._packed_s(shapes, tokens)
        else:
            products_s = sum([self._product_s(shape, 1.0, tokens) for shape in shapes])
        return products_s + self._between_s(beside, tokens)

    def _packed_s(self, shapes: Sequence[Shape], tokens: int) -> float:
        model, machine = self.model, self.machine
        parameters = sum([inputs * outputs for inputs, outputs in shapes])
        memory_s = parameters * model.packed_bytes_per_parameter / machine.packed_bytes_per_s
        compute_s = 2 * parameters * tokens / machine.packed_flops_per_s
        streamed_s = _overlapped(memory_s, compute_s, machine.packed_exponent)
        return (streamed_s + len(shapes) * machine.gemm_fixed_s) * self.time_scale

    def _product_s(self, shape: Shape, share: float, rows: int) -> float:
        """With so many of its columns. Ratios are those of the whole matrix: part of it must not cost more."""
        machine = self.machine
        rates = (machine.gemm_bytes_per_s, machine.gemm_flops_per_s)
        tiled = in_tiles(rows, machine.gemm_tile_rows)
        streamed_s = self._streamed_s(share * (shape[0] * shape[1]), tiled, rates)
        ratio = self._ratios.get(shape, self._common_ratio)
        if ratio is not None:
            streamed_s *= ratio(tiled)
        return streamed_s + machine.gemm_fixed_s * self.time_scale

    def _between_s(self, beside: Sequence[Part], tokens: int) -> float:
        """Norms, rotary positions and activations next to these products."""
        machine = self.machine
        values = [self._values_between[part] for part in beside if part in self._values_between]
        if not values or not machine.small_op_bytes_per_s:
            return 0.0
        streamed_s = tokens * sum(values) * self.model.bytes_per_parameter / machine.small_op_bytes_per_s
        return (len(values) * SMALL_OPS_PER_PART * machine.small_op_fixed_s + streamed_s) * self.time_scale

    def _row_ratios(self, points: RatioPoints) -> RowRatios | None:
        """The same for a matrix of any size: both parts of the formula grow with its parameters."""
        machine = self.machine
        rates = (machine.gemm_bytes_per_s, machine.gemm_flops_per_s)
        return RowRatios(points, lambda tokens: self._streamed_s(1.0, tokens, rates)) if points else None

    def _streamed_s(self, parameters: float, tokens: float, rates: tuple[float, float]) -> float:
        """Bytes and arithmetic, which partly overlap."""
        memory_s = parameters * self.model.bytes_per_parameter / rates[0]
        compute_s = 2 * parameters * tokens / rates[1]
        return _overlapped(memory_s, compute_s, self.machine.gemm_exponent) * self.time_scale

    # --- placed weights ----------------------------------------------------------------------------------------------

    @property
    def widths(self) -> Mapping[Part, tuple[int, int]]:
        return self._widths

    def _matrix_s(self, parts: Sequence[Part], share: float, rows: int) -> float:
        """What lies between products is not divided: each share of a matrix has its share of it."""
        if not rows:
            return 0.0
        products_s = sum([self._product_s(self._widths[part], share, rows) for part in parts])
        sums = len([part for part in parts if part in SUMMED])
        return products_s + share * self._between_s(parts, rows) + sums * self._summed_s(rows)

    def _host_matrix_s(self, parts: Sequence[Part], share: float, rows: int) -> float:
        machine, parameters = self.machine, self._parameters(parts, share)
        if not rows:
            return 0.0
        rates = (machine.host_gemm_bytes_per_s, machine.host_gemm_flops_per_s)
        return self._streamed_s(parameters, rows, rates) + machine.host_attention_fixed_s * self.time_scale

    def weights_s(self, parts: Sequence[Part], share: float, unit: Unit, *, packed: bool) -> float:
        bytes_each = PACKED_BYTES if packed else self.model.bytes_per_parameter
        rate = self.machine.h2d_bytes_per_s if unit is Unit.H2D else self.machine.disk_read_bytes_per_s
        return self._link_s(self._parameters(parts, share) * bytes_each, rate)

    def unpack_s(self, parts: Sequence[Part], share: float) -> float:
        """Codes are read and floats are written; that these are read again is the product's."""
        moved = self._parameters(parts, share) * (PACKED_BYTES + self.model.bytes_per_parameter)
        return moved / self.machine.gemm_bytes_per_s * self.time_scale

    def rows_s(self, values_per_row: float, rows: int, target: Tier) -> float:
        rate = self.machine.d2h_bytes_per_s if target is Tier.HOST else self.machine.h2d_bytes_per_s
        return self._link_s(values_per_row * rows * self.model.bytes_per_parameter, rate)

    def host_prompts_s(self, work: Work) -> float:
        """Arithmetic, or reading each prompt's KV once, whichever takes longer."""
        if not work.prefill_tokens:
            return 0.0
        machine, model = self.machine, self.model
        flops = work.prefill_pairs * model.attention_flops_per_pair * model.tokens_each**2
        read_s = work.prefill_kv_tokens * self._kv_bytes / machine.host_attention_bytes_per_s
        longest_s = max(read_s, flops / machine.host_gemm_flops_per_s)
        return (machine.host_attention_fixed_s + longest_s) * self.time_scale

    def kv_on_disk_s(self, tokens: int, *, writes: bool) -> float:
        machine = self.machine
        rate = machine.disk_write_bytes_per_s if writes else machine.disk_read_bytes_per_s
        return self._link_s(tokens * self._kv_bytes, rate)

    def _parameters(self, parts: Sequence[Part], share: float) -> float:
        sizes = [self._widths[part] for part in parts]
        return share * sum([inputs * outputs for inputs, outputs in sizes])


def _overlapped(memory_s: float, compute_s: float, exponent: float) -> float:
    """Between the larger and the sum: how far a product's reading hides behind its arithmetic."""
    return float((memory_s**exponent + compute_s**exponent) ** (1 / exponent))
