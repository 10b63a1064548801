"""Simulated and real cells with one thing about them changed, served in this process, as folders of records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from engines.hardware import Hardware, load_hardware
from harness.catalogue_entry import write_entry
from harness.cell import run_cell
from harness.config import load_experiment
from harness.plan import ResolvedBackend, expand
from results.schema import Status
from results.store import write_json

T4 = "t4_g4dn_4xlarge"
Machine = Callable[[Hardware], Hardware]

LONG_ANSWERS = "{kind: long_output, prompt: 500, output: 60, jitter: 0.1, requests: 16}"


@dataclass(frozen=True, slots=True)
class World:
    """One cell: an engine, a workload, settings, and what its machine has different from a T4's."""

    engine: str = "gpu_only"
    workload: str = LONG_ANSWERS
    sets: tuple[str, ...] = ()
    machine: Machine | None = None
    config: str = "t4_llama2"
    backend: ResolvedBackend = "sim"

    def serve(self, folder: Path) -> Path:
        """The cell's folder."""
        folder.mkdir()
        hardware = T4
        if self.machine is not None:
            hardware = str(folder / "machine.yaml")
            write_entry(Path(hardware), self.machine(load_hardware(T4)), "A T4 with one thing changed.")
        sets = (f"engines=[{self.engine}]", f"workloads=[{self.workload}]", f"hardware={hardware}", *COMMON, *self.sets)
        experiment = load_experiment(self.config, list(sets))
        (cell,) = expand(experiment, self.backend)
        (folder / "spec.json").write_text(cell.to_json())
        summary = run_cell(folder)
        assert summary.status is Status.OK, summary.error
        write_json(folder / "summary.json", summary.to_json())
        return folder


COMMON = ("measure.repeats=1", "measure.warmup_requests=0", "measure.draws=0")


def slower_accelerator(machine: Hardware) -> Hardware:
    gpu = machine.gpu
    flops = {dtype: value / 2 for dtype, value in gpu.flops.items()}
    return replace(machine, gpu=replace(gpu, bandwidth_bytes_per_s=gpu.bandwidth_bytes_per_s / 2, flops=flops))


def slower_accelerator_attention(machine: Hardware) -> Hardware:
    attention = machine.gpu.attention
    return replace(machine, gpu=replace(machine.gpu, attention=replace(attention, efficiency=attention.efficiency / 4)))


def slower_host_attention(machine: Hardware) -> Hardware:
    return replace(machine, cpu=replace(machine.cpu, attention_share=machine.cpu.attention_share / 2))


def slower_link(machine: Hardware) -> Hardware:
    link = machine.link
    rates = {"h2d_bytes_per_s": link.h2d_bytes_per_s / 2, "d2h_bytes_per_s": link.d2h_bytes_per_s / 2}
    return replace(machine, link=replace(link, **rates))


def slower_scheduler(machine: Hardware) -> Hardware:
    return replace(machine, host_overhead_per_step_s=machine.host_overhead_per_step_s + 20e-3)


def few_flops(machine: Hardware) -> Hardware:
    """Prompts are dear, decodes are not: what is computed twice then counts."""
    flops = {dtype: value / 8 for dtype, value in machine.gpu.flops.items()}
    return replace(machine, gpu=replace(machine.gpu, flops=flops))
