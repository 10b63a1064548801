"""The boundaries between packages hold, and the control plane knows neither tensors nor chance nor the wall clock."""

from __future__ import annotations

import pytest

from tests.architecture.boundaries import MAY_IMPORT, crossings, impurities, within
from tests.architecture.sources import PACKAGES, parse, product, product_names

CORE = tuple(module for module in product() if within(module.name, "engines.core"))


def test_the_product_is_found() -> None:
    assert {module.name for module in product()} >= {
        *PACKAGES,
        "harness.cli",
        "engines.core.types",
        "engines.gpu_only.policy",
    }
    assert "engines.apex._cpu" in product_names()
    assert len(CORE) >= 8


def test_no_package_imports_across_its_boundary() -> None:
    assert [line for module in product() for line in crossings(module, product_names())] == []


def test_every_boundary_has_a_module_inside() -> None:
    names = [module.name for module in product()]
    assert [prefix for prefix in MAY_IMPORT if not any(within(name, prefix) for name in names)] == []


def test_the_control_plane_is_a_pure_function_of_its_inputs() -> None:
    assert [line for module in CORE for line in impurities(module, product_names())] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("workloads.kinds", "from harness import plan"),
        ("results.store", "import engines.core.types"),
        ("reports.page", "from harness.stats import verdicts"),
        ("reports.page", "def page():\n    from engines.core import types"),
        ("engines.core.kv", "from engines.backends.buffers import PagedKv"),
        ("engines.core.kv", "from ..model import config"),
        ("engines.core.policy", "from engines import registry"),
        ("engines.model.llama", "from engines.core.types import Tier"),
        ("engines.backends.sim", "import engines.registry"),
        ("engines.backends.moves", "from engines.apex.policy import Apex"),
        ("engines.gpu_only.policy", "from engines.backends import sim"),
        ("engines.gpu_only.policy", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import engines.model"),
        ("engines.neo.policy", "from engines.apex import attention"),
        ("engines.neo.policy", "import importlib\nimportlib.import_module('engines.gpu_only.policy')"),
        ("engines.apex.policy", "from engines.apex import attention"),
        ("engines.apex.attention", "import engines.core.types"),
        ("engines.hardware.machine", "from engines.model.config import load_config"),
        ("engines.registry", "from engines.gpu_only.policy import GpuOnly"),
        ("engines.suggest", "import engines.registry"),
    ],
)
def test_a_crossing_is_noticed(name: str, source: str) -> None:
    known = product_names() | {"engines.apex.policy", name}
    assert len(crossings(parse(name, source), known)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("harness.build", "import workloads, results, reports.page\nfrom engines.apex import attention"),
        ("engines.backends.moves", "from engines.apex import attention as native"),
        (
            "engines.neo.policy",
            "from engines.core.policy import View\nfrom engines.neo import balance\nfrom . import balance",
        ),
        ("engines.core.kv", "from .types import Tier\nfrom . import errors"),
        ("reports.page", "import enginespeed, harness_of_something_else"),
    ],
)
def test_what_is_allowed_passes(name: str, source: str) -> None:
    assert crossings(parse(name, source), product_names() | {name, "engines.neo.balance"}) == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import numpy as np",
        "from random import Random",
        "def later():\n    import threading",
        "import concurrent.futures",
        "import time",
        "from datetime import datetime",
        "import pydantic",
    ],
)
def test_an_impurity_is_noticed(source: str) -> None:
    assert len(impurities(parse("engines.core.kv", source), product_names())) == 1


def test_only_the_clock_reads_the_time() -> None:
    assert impurities(parse("engines.core.clock", "import time"), product_names()) == []
    assert impurities(parse("engines.core.clock", "import random"), product_names()) != []
