"""`harness profile --fit`: constants of a machine come back out of a profile made by formula from them, and the file
that says so is a machine like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from engines.core.cost import Work
from engines.core.roofline import Roofline
from engines.core.types import Move, Tier
from engines.hardware import Gemm, GpuAttention, Grade, Hardware, catalogue_names, load_hardware
from engines.model.config import load_config
from harness.catalogue_entry import write_entry
from harness.costs import machine_rates, model_costs
from harness.errors import ConfigError
from harness.profile_file import CountPoint, Points, Profile, Spread, load_profile, save_profile
from harness.profile_fit import line
from tests.harness.conftest import Call
from tests.profile import laws

AnyPoint = TypeVar("AnyPoint", bound=Spread)

MODEL, DTYPE = "llama-2-7b", "float32"
BASE = "a10"


def truth() -> Hardware:
    base = load_hardware(BASE)
    gpu = replace(
        base.gpu, gemm=Gemm(0.7, 0.55, 2.5), attention=GpuAttention(2.1e-5, 0.62), op_fixed_s=1.3e-5, gemm_4bit=None
    )
    gpu = replace(gpu, small_ops=None)  # a profile times them with the products
    link = replace(base.link, h2d_bytes_per_s=11e9, d2h_bytes_per_s=9e9, latency_s=1.5e-5)
    return replace(base, gpu=gpu, cpu=replace(base.cpu, attention_share=0.45), link=link)


def profiled(hardware: Hardware) -> Profile:
    """As laws.py makes one, but every op takes what a roofline says of it."""
    costs = Roofline(model_costs(load_config(MODEL), DTYPE), machine_rates(hardware, DTYPE))
    profile = laws.made_profile(model=MODEL)
    points = profile.points
    return profile.model_copy(
        update={
            "points": Points(
                first=_took(points.first, costs.pre_attention_s),
                between=_took(points.between, costs.linear_s),
                last=_took(points.last, costs.post_attention_s),
                head=_took(points.head, costs.head_s),
                decode_attention=tuple(
                    _at(
                        p,
                        costs.accel_attention_s(
                            Work(tokens=p.rows, decode_rows=p.rows, decode_kv_tokens=p.rows * p.context)
                        ),
                    )
                    for p in points.decode_attention
                ),
                prefill_attention=points.prefill_attention,
                host_attention=tuple(
                    _at(p, costs.host_attention_s(p.rows, p.rows * p.context) * laws.HOST_THREADS / p.threads)
                    for p in points.host_attention
                ),
                move_to_host=_took(points.move_to_host, lambda n: costs.move_s(_move(n, Tier.HOST))),
                move_to_accel=_took(points.move_to_accel, lambda n: costs.move_s(_move(n, Tier.ACCEL))),
            )
        }
    )


@pytest.fixture
def profile_path(tmp_path: Path) -> Path:
    path = tmp_path / "measured.json"
    save_profile(path, profiled(truth()))
    return path


def test_the_constants_come_back(call: Call, profile_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    answer = call("profile", "--from", profile_path, "--fit", out, "--hardware", BASE)
    assert (answer.code, answer.out) == (0, f"{out}: written\n"), answer.err
    found, made, base = load_hardware(str(out)), truth(), load_hardware(BASE)
    assert found.name == "mine"
    gemm = found.gpu.gemm
    assert gemm.bandwidth_efficiency == pytest.approx(0.7, rel=0.01)
    assert gemm.compute_efficiency == pytest.approx(0.55, rel=0.01)
    assert gemm.exponent == pytest.approx(2.5, rel=0.02)
    assert found.gpu.op_fixed_s == pytest.approx(1.3e-5, rel=0.02)
    assert (gemm.tile_rows, gemm.by_tokens, found.gpu.small_ops) == (1, None, None)
    assert gemm.by_shape is not None
    model = load_config(MODEL)
    shapes = {(each.inputs, each.outputs) for each in gemm.by_shape.products}
    assert shapes == {*model.matrices, (model.hidden_size, model.vocab_size)}
    for product in gemm.by_shape.products:
        assert product.by_tokens.ratios == pytest.approx([1.0] * len(product.by_tokens.ratios), abs=5e-3)
    assert found.gpu.attention.fixed_s == pytest.approx(2.1e-5, rel=0.01)
    assert found.gpu.attention.efficiency == pytest.approx(0.62, rel=0.01)
    assert found.cpu.attention_share == pytest.approx(0.45, rel=0.01)
    assert found.link.h2d_bytes_per_s == pytest.approx(made.link.h2d_bytes_per_s, rel=0.01)
    assert found.link.d2h_bytes_per_s == pytest.approx(made.link.d2h_bytes_per_s, rel=0.01)
    assert found.link.latency_s == pytest.approx(1.5e-5, rel=0.01)
    assert found.host_overhead_per_step_s == laws.STEP_OVERHEAD_S
    assert (found.gpu.memory_bytes, found.disk, found.gpu_name) == (base.gpu.memory_bytes, base.disk, base.gpu_name)


def test_it_says_what_was_measured_and_what_was_taken_over(call: Call, profile_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    call("profile", "--from", profile_path, "--fit", out, "--hardware", BASE)
    found, base = load_hardware(str(out)), load_hardware(BASE)
    assert found.sources.keys() == {path for path in base.sources if not path.startswith("gpu.small_ops.")} | {
        "gpu.gemm.by_shape",
        "gpu.gemm.tile_rows",
    }
    measured = {path for path, source in found.sources.items() if source.grade is Grade.MEASURED}
    assert measured == {
        "gpu.gemm.bandwidth_efficiency",
        "gpu.gemm.compute_efficiency",
        "gpu.gemm.exponent",
        "gpu.gemm.by_shape",
        "gpu.gemm.tile_rows",
        "gpu.op_fixed_s",
        "gpu.attention.fixed_s",
        "gpu.attention.efficiency",
        "cpu.attention_share",
        "link.h2d_bytes_per_s",
        "link.d2h_bytes_per_s",
        "link.latency_s",
        "host_overhead_per_step_s",
        "interference.host",
        "interference.links",
        "interference.accelerator",
    }
    assert found.sources["gpu.memory_bytes"].text.startswith("taken over from a10: ")
    assert found.sources["gpu.memory_bytes"].grade is base.sources["gpu.memory_bytes"].grade
    assert MODEL in found.sources["gpu.gemm.exponent"].text
    assert out.read_text().startswith("# Fitted by `harness profile --fit` to measured.json: llama-2-7b in float32")


def test_what_was_measured_elsewhere_is_an_assumption_here(call: Call, profile_path: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    call("profile", "--from", profile_path, "--fit", first, "--hardware", BASE)
    whole = profiled(truth())
    bare = whole.model_copy(update={"points": whole.points.model_copy(update={"host_attention": ()})})
    save_profile(profile_path, bare)
    call("profile", "--from", profile_path, "--fit", second, "--hardware", first)
    found = load_hardware(str(second))
    assert found.cpu.attention_share == load_hardware(str(first)).cpu.attention_share
    assert found.sources["cpu.attention_share"].grade is Grade.ASSUMED
    assert found.sources["gpu.gemm.exponent"].grade is Grade.MEASURED


def test_what_units_cost_each_other_comes_back_as_a_factor_with_its_range(
    call: Call, profile_file: Path, tmp_path: Path
) -> None:
    """The profile's law has every point slower by one factor; one of the host's points is given another."""
    profile = load_profile(profile_file)
    assert profile.beside is not None
    first, *others = profile.beside.host_attention
    faster = first.model_copy(update={"median_s": first.median_s / laws.BESIDE / 2})
    points = profile.beside.model_copy(update={"host_attention": (faster, *others)})
    save_profile(profile_file, profile.model_copy(update={"beside": points}))
    out = tmp_path / "mine.yaml"
    answer = call("profile", "--from", profile_file, "--fit", out, "--hardware", BASE)
    assert answer.code == 0, answer.err
    found = load_hardware(str(out))
    for unit in ("host", "links", "accelerator"):
        assert getattr(found.interference, unit) == pytest.approx(laws.BESIDE, rel=1e-3)
    source = found.sources["interference.host"]
    assert source.grade is Grade.MEASURED
    assert source.low is not None
    assert 1.0 <= source.low <= found.interference.host


def test_a_profile_made_alone_says_nothing_of_interference(call: Call, profile_file: Path, tmp_path: Path) -> None:
    save_profile(profile_file, load_profile(profile_file).model_copy(update={"beside": None}))
    out = tmp_path / "mine.yaml"
    assert call("profile", "--from", profile_file, "--fit", out, "--hardware", BASE).code == 0
    found, base = load_hardware(str(out)), load_hardware(BASE)
    assert found.interference == base.interference
    assert found.sources["interference.host"].text.startswith(f"taken over from {BASE}: ")


def test_a_profile_as_this_harness_writes_them_makes_a_machine(call: Call, profile_file: Path, tmp_path: Path) -> None:
    """Of a law that no roofline has: the layer is met where it was measured all the same."""
    out = tmp_path / "law.yaml"
    answer = call("profile", "--from", profile_file, "--fit", out, "--hardware", BASE)
    assert answer.code == 0, answer.err
    costs = Roofline(model_costs(load_config(laws.MODEL), DTYPE), machine_rates(load_hardware(str(out)), DTYPE))
    for tokens in (1, 64, 256):
        assert costs.linear_s(tokens) == pytest.approx(laws.between_s(tokens), rel=0.05)
    assert answer.out.endswith("law.yaml: written\n")
    planned = call("validate", "--config", _experiment(tmp_path, out))
    assert planned.code == 0, planned.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--fit", "x.yaml"), "--fit: needs --hardware"),
        (("--fit", "x.yaml", "--hardware", "a11"), 'did you mean "a10"?'),
        (("--fit", "x.txt", "--hardware", BASE), "--fit x.txt: name a .yaml file"),
        (("--fit", "no/x.yaml", "--hardware", BASE), "--fit no/x.yaml: name a .yaml file"),
        (("--hardware", BASE), "only with --fit"),
        (("--from", "x.json"), "only with --fit"),
        (("--from", "x.json", "--fit", "x.yaml", "--hardware", BASE), "x.json: no such file"),
        ((), "--model, --out: name what to measure"),
        (("--model", "tiny-1m"), "--model, --out: name what to measure"),
        (
            ("--model", "tiny-1m", "--dtype", "bfloat16", "--fit", "x.yaml", "--hardware", "t4_g4dn_4xlarge"),
            "--hardware: t4_g4dn_4xlarge has no bfloat16; it has float16, float32",
        ),
    ],
)
def test_mistakes_are_one_line_and_measure_nothing(call: Call, options: tuple[str, ...], said: str) -> None:
    answer = call("profile", *options)
    assert answer.code == 2
    [message] = answer.errors
    assert said in message


def test_another_model_than_the_profile_s(call: Call, profile_path: Path) -> None:
    answer = call("profile", "--from", profile_path, "--fit", "x.yaml", "--hardware", BASE, "--model", "tiny-1m")
    assert answer.code == 2
    assert "was measured with llama-2-7b" in answer.errors[0]


def test_what_grows_with_nothing_is_no_rate() -> None:
    assert list(line([0.0, 10.0, 20.0], [1.0, 2.0, 3.0], "x")) == pytest.approx([1.0, 0.1])
    with pytest.raises(ConfigError, match="moves takes no longer with more bytes"):
        line([1.0, 10.0, 20.0], [3.0, 2.0, 1.0], "moves")


@pytest.mark.parametrize("name", catalogue_names())
def test_every_machine_survives_being_written(name: str, tmp_path: Path) -> None:
    machine, path = load_hardware(name), tmp_path / "written.yaml"
    write_entry(path, machine, "as it was")
    assert load_hardware(str(path)) == machine


def _experiment(folder: Path, hardware: Path) -> Path:
    path = folder / "experiment.yaml"
    experiment = {
        "schema_version": 1,
        "name": "fitted",
        "backend": "sim",
        "hardware": str(hardware),
        "model": "llama-2-7b",
        "dtype": "float16",
        "budget": {"accel_kv_tokens": 4096, "cpu_threads": 1, "max_batch": 4, "max_batch_tokens": 512},
        "engines": ["gpu_only"],
        "workloads": [{"kind": "long_output", "prompt": 10, "output": 8, "requests": 6}],
    }
    path.write_text(yaml.safe_dump(experiment))
    return path


def _took(points: tuple[CountPoint, ...], seconds: Callable[[int], float]) -> tuple[CountPoint, ...]:
    return tuple(_at(point, seconds(point.count)) for point in points)


def _at(point: AnyPoint, seconds: float) -> AnyPoint:
    return point.model_copy(update={"p10_s": seconds, "median_s": seconds, "p90_s": seconds})


def _move(tokens: int, target: Tier) -> Move:
    source = Tier.ACCEL if target is Tier.HOST else Tier.HOST
    return Move(0, source, (), target, (), tokens)
