"""FlexGen's equations: what one layer takes, and what lies where, for fractions of weights, KV cache and hidden state.

As printed with the system [paper, code]. Everything here is affine in the fractions, which is what makes it an LP
(planner.py). Names follow the equations: `ctog` is a transfer from CPU to GPU, and so on; `_p` prefill, `_g` decode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from engines.lp_balanced.constants import GIGABYTE, TERAFLOP, Constants
from engines.lp_balanced.shapes import PlannedModel

DISK_DECODE_SHARE = 0.95  # of the disk's rate that decoding's weight reads get


@dataclass(frozen=True, slots=True)
class Fractions:
    """Of weights, cache and hidden state on GPU, CPU and disk (n: NVMe)."""

    wg: float = 0.0
    wc: float = 0.0
    wn: float = 0.0
    cg: float = 0.0
    cc: float = 0.0
    cn: float = 0.0
    hg: float = 0.0
    hc: float = 0.0
    hn: float = 0.0

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(each.name for each in fields(Fractions))


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a block of `gpu_batch * batches` requests with prompts of s and answers of n tokens."""

    model: PlannedModel
    constants: Constants
    s: int
    n: int
    gpu_batch: int
    batches: int

    @property
    def block(self) -> int:
        return self.gpu_batch * self.batches

    def prefill_s(self, f: Fractions) -> dict[str, float]:
        """T_pre is at least each of these."""
        k, h1, s, bls = self.constants, self.model.hidden, self.s, self.block
        w, kv = self.model.layer_bytes, self.model.kv_bytes
        ctog = (w * (f.wc + f.wn) + 2 * s * h1 * bls * (f.hc + f.hn)) / _rate(k.gpu_from_cpu_gb_per_s)
        gtoc = kv * (s + 1) * bls * (f.cc + f.cn) / _rate(k.cpu_from_gpu_cache_gb_per_s)
        gtoc += 2 * s * h1 * bls * (f.hc + f.hn) / _rate(k.cpu_from_gpu_hidden_gb_per_s)
        dtoc = (w * f.wn + 2 * s * h1 * bls * f.hn) / _rate(k.cpu_from_disk_gb_per_s)
        ctod = kv * bls * (s + 1) * f.cn / _rate(k.disk_from_cpu_cache_gb_per_s)
        ctod += 2 * s * h1 * bls * f.hn / _rate(k.disk_from_cpu_hidden_gb_per_s)
        compute = bls * s * self.model.layer_flops / (k.matmul_prefill_tflops * TERAFLOP)
        compute += 4 * bls * s**2 * h1 / (k.attention_prefill_tflops * TERAFLOP)
        return {"load": ctog + dtoc, "store": gtoc + ctod, "compute": compute}

    def decode_s(self, f: Fractions) -> dict[str, float]:
        """T_gen, per token, is at least each of these: every one waits for what comes from the CPU."""
        k, h1, bls = self.constants, self.model.hidden, self.block
        w, kv, context = self.model.layer_bytes, self.model.kv_bytes, self.s + self.n / 2
        ctog = (w * (f.wc + f.wn) + 2 * h1 * bls * (f.hc + f.hn)) / _rate(k.gpu_from_cpu_gb_per_s)
        gtoc = 2 * h1 * bls * (f.hc + f.hn) / _rate(k.cpu_from_gpu_hidden_gb_per_s)
        dtoc = (kv * bls * context * f.cn + 2 * h1 * bls * f.hn) / _rate(k.cpu_from_disk_gb_per_s)
        dtoc += w * f.wn / (DISK_DECODE_SHARE * _rate(k.cpu_from_disk_gb_per_s))
        ctod = (kv * bls * f.cn + 2 * h1 * bls * f.hn) / _rate(k.disk_from_cpu_decode_gb_per_s)
        compute = bls * self.model.layer_flops / (k.matmul_decode_tflops * TERAFLOP)
        compute += 4 * bls * context * h1 * f.cg / (k.attention_decode_tflops * TERAFLOP)
        compute += 4 * bls * context * h1 * (f.cc + f.cn) / self.cpu_flops
        parts = {"to the CPU": gtoc, "from the disk": dtoc, "to the disk": ctod, "compute": compute}
        return {name: ctog + part_s for name, part_s in parts.items()}

    @property
    def cpu_flops(self) -> float:
        """The CPU's attention rate: small batches and small models reach less of it."""
        k = self.constants
        a = max(0.0, math.log2(64 / self.gpu_batch))
        b = max(0.0, math.log2(4096 / self.model.hidden))
        return k.cpu_tflops * TERAFLOP * max(0.1, 1 + k.cpu_c1 * a * b - k.cpu_c2 * a - k.cpu_c3 * b)

    def peak_bytes(self, f: Fractions) -> dict[str, dict[str, float]]:
        """By tier, then by phase."""
        h1, h2, l, nh = self.model.hidden, self.model.ffn, self.model.layers, self.model.heads  # noqa: E741
        s, n, bls, gbs, w = self.s, self.n, self.block, self.gpu_batch, self.model.layer_bytes
        kv = self.model.kv_bytes
        gpu = w * l * f.wg + kv * (s + n) * bls * l * f.cg + 2 * w * (1 - f.wg)
        cpu = w * l * f.wc + w * (1 - f.wg)
        return {
            "GPU": {
                "prefill": gpu
                + 2 * s * h1 * bls * f.hg
                + 2 * s * h1 * gbs * (1 - f.hg)
                + gbs * (18 * s * h1 + 2 * nh * s**2 + 2 * s * h2),
                "decode": gpu
                + 2 * h1 * bls * f.hg
                + 2 * h1 * gbs * (1 - f.hg)
                + kv * gbs * (s + n) * f.cg
                + gbs * (14 * h1 + 2 * h2)
                + gbs * f.cg * (2 * h1 + 2 * (s + n) * h1 + 2 * nh * (s + n))
                + gbs * f.cg * (2 * (s + n) * h1 + 2 * h1),
            },
            "CPU": {
                "prefill": cpu + 2 * s * h1 * bls * f.hc + kv * s * bls * l * f.cc + 2 * s * h1 * gbs * (1 - f.hg),
                "decode": w * l * f.wc
                + 2 * h1 * bls * f.hc
                + kv * (s + n) * bls * l * f.cc
                + w * f.wn
                + 4 * h1 * gbs * f.hn
                + 2 * kv * (s + n) * gbs * f.cn
                + 2 * nh * (s + n) * gbs
                + 2 * h1 * gbs,
            },
            "disk": {
                "peak": w * l * f.wn + 2 * s * h1 * bls * f.hn + kv * (s + n) * bls * l * f.cn,
            },
        }

    def total_s(self, f: Fractions) -> float:
        """T: all layers, the prompt and the n - 1 tokens after the first."""
        layers = self.model.layers
        return layers * max(self.prefill_s(f).values()) + layers * (self.n - 1) * max(self.decode_s(f).values())


def _rate(gb_per_s: float) -> float:
    return gb_per_s * GIGABYTE
