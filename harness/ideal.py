"""What the modes would reach if nothing got in their way: the published and derived formulas, over GPU-only.

A layer's linear part, both attentions (the host's with its launch and the rows' way there and back), and how many
requests there are; nothing per step, no bubbles. The benches print what really ran beside these.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from engines.apex.paper import gpu_over_cpu
from engines.core.cost import CostTable, Work
from engines.core.dealing import host_seconds
from engines.core.types import Mode
from harness.steady import State


@dataclass(frozen=True, slots=True)
class Ideal:
    """Of one state; `context` in the tokens that the cost table counts, `layers` of the model that runs."""

    costs: CostTable
    state: State
    layers: int

    @property
    def accel_s(self) -> float:
        """T_gatt"""
        rows = self.state.accel_rows
        return self.costs.accel_attention_s(
            Work(tokens=rows, decode_rows=rows, decode_kv_tokens=rows * self.state.context)
        )

    def host_s(self, rows: int) -> float:
        """T_catt and the launch."""
        return host_seconds(self.costs, rows, rows * self.state.context)

    def served(self, window_s: float) -> int:
        """How many requests the host attends to in that time."""
        return bisect_right(range(1, self.state.host_rows + 1), window_s, key=self.host_s)

    def linear_s(self, rows: float) -> float:
        """T_lin"""
        return self.costs.linear_s(round(rows)) if rows else 0.0

    @property
    def r(self) -> float:
        return self.accel_s / self.linear_s(self.state.accel_rows)

    @property
    def gpu_over_cpu(self) -> float:
        """N_G / N_C"""
        rows = self.state.host_rows
        return gpu_over_cpu(self.state.accel_rows, self.accel_s, rows, self.host_s(rows))

    def over_gpu_only(self) -> dict[Mode, float]:
        accel = self.state.accel_rows
        alone = accel / (self.linear_s(accel) + self.accel_s)
        rates = {
            Mode.ASYMMETRIC: self._asymmetric(),
            Mode.ASYNC_OVERLAP: self._overlapping(0),
            Mode.FULL_OVERLAP: max(self._overlapping(joined) for joined in range(self.state.host_rows + 1)),
        }
        return {mode: rate / alone for mode, rate in rates.items()}

    def _asymmetric(self) -> float:
        """B_G + |C| per 2 T_lin + T_gatt, of |C| as many as each half hides behind the other."""
        accel = self.state.accel_rows
        first = self.served(self.linear_s(accel) + self.accel_s)
        second = min(self.served(self.linear_s(accel)), self.state.host_rows - first)
        rows = accel + first + second
        return rows / (self.linear_s(accel + first) + self.linear_s(max(second, 1)) + self.accel_s)

    def _overlapping(self, joined: int) -> float:
        """(B_G + j + x) per T_lin + max(T_gatt, T_catt(j)); a cohort row advances one layer per pass."""
        accel, host_s = self.state.accel_rows, self.host_s(joined)
        left_s = self.linear_s(accel + joined) + max(self.accel_s - host_s, 0.0)
        lagging = min((self.state.host_rows - joined) / self.layers, float(self.served(left_s)))
        rows = accel + joined + lagging
        return rows / (self.linear_s(rows) + max(self.accel_s, host_s))
