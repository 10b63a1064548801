"""What an experiment is: the keys of its YAML, their types and defaults, and which names they may use.

Frozen, and valid once constructed: engines, their options, workloads, the model and the machine exist.
How files, the environment and --set come together is config.py's; what is run in which order is plan.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.fields import AT_LEAST_ONE, OR_ITS_NAME, Count, CountOrAuto, MistakesError, Name, Positive, Section, Size
from harness.prediction_error import PredictorSection

Backend = Literal["auto", "cuda", "cpu", "sim", "endpoint"]
DType = Literal["float32", "bfloat16", "float16"]


class Budget(Section):
    """The fairness envelope: every engine gets this. Sizes in bytes; `auto` is sized from the machine."""

    accel_memory: Size = "auto"  # weights + KV + workspace
    host_memory: Size = "auto"  # KV, and weights of engines that keep some there
    disk: Size = "auto"  # weights and KV of engines that keep some there
    disk_folder: str | None = None  # where; the system's folder for temporary files when not given
    accel_kv_tokens: CountOrAuto = "auto"
    accel_page_tokens: Count = 16  # what KV on the accelerator is handed out in
    host_kv_tokens: CountOrAuto = "auto"
    cpu_threads: CountOrAuto = "auto"
    accel_cores: Count = 1  # `cpu` backend only
    max_batch: Count = 256
    max_batch_tokens: Count = 2048

    @model_validator(mode="before")
    @classmethod
    def _auto_is_the_default(cls, value: object) -> object:
        """Any entry may be `auto`, also those whose default is a plain number."""
        return {key: entry for key, entry in value.items() if entry != "auto"} if isinstance(value, dict) else value


class Pace(Section):
    """How the emulated accelerator is slowed: the catalogue machine running the reference model, times time_scale."""

    reference_model: str | None = None  # the model itself when not given
    time_scale: Positive = 1.0
    tokens_each: Count = 1  # of the modelled workload that one prompt or KV token here stands for

    @field_validator("reference_model")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return value if value is None else _known_model(value)


class Emulation(Section):
    """Of the `cpu` backend: paced to a catalogue machine's proportions, or native at full speed."""

    mode: Literal["paced", "native"] = "paced"
    pace: Pace = Pace()


class Measure(Section):
    warmup_requests: Annotated[int, Field(ge=0)] = 0
    repeats: Count = 1
    order: Literal["interleaved", "sequential"] = "interleaved"
    seed: Annotated[int, Field(ge=0)] = 0
    time_limit_s: Positive = 3600.0  # per cell, start-up included
    draws: Annotated[int, Field(ge=0)] = 4  # simulated on so many machines within the ranges of uncertain constants


class Slo(Section):
    """What a request must meet to count as goodput."""

    ttft_s: Positive | None = None
    tpot_s: Positive | None = None
    e2e_s: Positive | None = None

    @property
    def limits(self) -> dict[str, float]:
        """Those that are given."""
        return {key: limit for key, limit in self.model_dump().items() if limit is not None}

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.ttft_s is None and self.tpot_s is None and self.e2e_s is None:
            raise ValueError("give at least one of ttft_s, tpot_s, e2e_s, or leave slo out")
        return self


class EngineChoice(BaseModel):
    """An engine by kind, with the options of its policy beside it. `name` tells two of a kind apart."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    name: Name = ""  # the kind, when not given
    weight_bits: Literal[4, 8] | None = None  # of the layers' matrices; simulated only
    gpus: Count = 1  # of the machine's, each with accel_memory; simulated only
    parallel: Literal["tensor", "pipeline"] = "tensor"  # what several have of the model: all of every layer, or a run

    @property
    def simulated_only(self) -> bool:
        """What our runtime cannot do on a real machine."""
        return self.weight_bits is not None or self.gpus > 1

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if isinstance(value, str):
            return {"kind": value, "name": value}
        if isinstance(value, Mapping) and "kind" in value:
            return {"name": value["kind"]} | dict(value)
        raise ValueError("expected an engine's name, or a mapping with kind:")

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        from engines.registry import option_mistakes

        mistakes = option_mistakes(self.kind, self.options)
        if mistakes:
            raise MistakesError(mistakes)
        return self


class WorkloadChoice(BaseModel):
    """A workload by kind, with its options beside it. A list of values is a sweep."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str

    @property
    def options(self) -> dict[str, Any]:
        return {"kind": self.kind, **(self.model_extra or {})}

    @model_validator(mode="before")
    @classmethod
    def _a_mapping(cls, value: object) -> object:
        if isinstance(value, Mapping) and "kind" in value:
            return value
        raise ValueError("expected a mapping with kind:, such as {kind: chat, rate: 0.8, requests: 300}")

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        from workloads import expand

        expand(self.options)
        return self


class Experiment(Section):
    schema_version: Literal[1]
    name: Name
    backend: Backend = "auto"
    hardware: str | None = None  # catalogue name or path; needed wherever a machine is modelled
    profile: str | None = None  # of `harness profile`: simulates this model instead of hardware, predicts on real cores
    model: str  # shape name, or a folder with config.json and safetensors
    dtype: DType
    budget: Budget = Budget()
    engines: Annotated[tuple[Annotated[EngineChoice, OR_ITS_NAME], ...], AT_LEAST_ONE]
    workloads: Annotated[tuple[WorkloadChoice, ...], AT_LEAST_ONE]
    emulation: Emulation = Emulation()
    measure: Measure = Measure()
    slo: Slo | None = None
    predictor: PredictorSection | None = None  # what policies believe, made wrong on purpose

    @property
    def models_a_machine(self) -> bool:
        """Whether durations come from a catalogue entry: not on real hardware at full speed, nor by a profile."""
        if self.backend == "sim":
            return self.profile is None
        return self.backend == "auto" or (self.backend == "cpu" and self.emulation.mode == "paced")

    @field_validator("hardware")
    @classmethod
    def _known_hardware(cls, value: str | None) -> str | None:
        if value is not None:
            from engines.hardware import load_hardware

            load_hardware(value)
        return value

    @field_validator("profile")
    @classmethod
    def _readable_profile(cls, value: str | None) -> str | None:
        if value is not None:
            from harness.profile_file import load_profile

            load_profile(value)
        return value

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        return _known_model(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        from workloads import asks_to_saturate

        mistakes = []
        if self.models_a_machine and self.hardware is None:
            mistakes.append(("hardware", f"missing: backend {self.backend} models a machine; `harness list hardware`"))
        mistakes += [("profile", problem) for problem in self._profile_problems()]
        names = [engine.name for engine in self.engines]
        for index, name in enumerate(names):
            if name in names[:index]:
                mistakes.append(
                    (f"engines.{index}.name", f'"{name}" is used twice; give each engine a name of its own')
                )
        for index, workload in enumerate(self.workloads):
            if self.slo is None and asks_to_saturate(workload.options):
                where = f"workloads.{index}.arrivals"
                mistakes.append((where, "saturate searches for the highest rate that meets the slo; give slo:"))
        if mistakes:
            raise MistakesError(mistakes)
        return self

    def _profile_problems(self) -> Iterator[str]:
        """Why the profile has no place in this experiment, or says nothing about its model."""
        from engines.model.config import load_config
        from harness.profile_file import load_profile, mismatches

        if self.profile is None:
            return
        if self.emulation.mode == "paced" and self.backend == "cpu":
            yield "a paced cpu backend follows hardware:; set emulation.mode: native, or leave the profile out"
        if self.emulation.pace != Pace():
            yield "a measured table is neither scaled nor slowed; leave emulation.pace out"
        profile, page_tokens = load_profile(self.profile), self.budget.accel_page_tokens
        yield from mismatches(profile, load_config(self.model), self.dtype, page_tokens)


def _known_model(name_or_path: str) -> str:
    from engines.model.config import load_config

    load_config(name_or_path)
    return name_or_path
