"""What the modes would reach if nothing got in their way: the published and derived formulas, over GPU-only.

No transfers, no launches, no fixed costs per step; a layer's linear part, both attentions, and how many requests there
are. The benches print what really ran beside these.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.core.cost import CostTable, Work
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

    @property
    def host_s(self) -> float:
        """T_catt of one more request."""
        rows = self.state.host_rows
        return self.costs.host_attention_s(rows, rows * self.state.context) / rows

    def linear_s(self, rows: float) -> float:
        """T_lin"""
        return self.costs.linear_s(round(rows)) if rows else 0.0

    @property
    def r(self) -> float:
        return self.accel_s / self.linear_s(self.state.accel_rows)

    @property
    def gpu_over_cpu(self) -> float:
        """N_G / N_C"""
        return self.state.accel_rows / self.accel_s * self.host_s

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
        """B_G + host requests, as many as the host serves meanwhile, per 2 T_lin + T_gatt."""
        accel, best = self.state.accel_rows, 0.0
        for rows in range(self.state.host_rows + 1):
            took_s = self.linear_s(accel) + self.linear_s(rows) + self.accel_s
            if rows * self.host_s <= took_s:
                best = max(best, (accel + rows) / took_s)
        return best

    def _overlapping(self, joined: int) -> float:
        """(B_G + j + x) per T_lin + max(T_gatt, T_catt(j)); a cohort row advances one layer per pass."""
        accel, attention_s = self.state.accel_rows, max(self.accel_s, joined * self.host_s)
        window_s = self.linear_s(accel + joined) + attention_s
        lagging = min((self.state.host_rows - joined) / self.layers, window_s / self.host_s - joined)
        took_s = self.linear_s(accel + joined + max(lagging, 0.0)) + attention_s
        return (accel + joined + max(lagging, 0.0)) / took_s
