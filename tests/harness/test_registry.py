"""Engines by name: ours, a plugin's, a broken plugin's; and what is said of options they do not have."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Literal

import pytest

from engines.registry import BUILT_IN, EngineError, known_engines, make_engine, option_mistakes, option_names


@dataclass(frozen=True, slots=True)
class Toy:
    size: int
    style: Literal["round", "square"] = "round"

    def decide(self, view: object) -> None:
        """What makes it a policy."""

    def __post_init__(self) -> None:
        if self.size > 9:
            raise ValueError("size: a toy is at most 9")


NOT_AN_ENGINE = 3


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {
        "toy": f"{__name__}:Toy",
        "broken": "no.such.module:Engine",
        "odd": f"{__name__}:NOT_AN_ENGINE",
        "gpu_only": f"{__name__}:Toy",
    }
    points = [EntryPoint(name, target, "harness.engines") for name, target in targets.items()]
    monkeypatch.setattr("engines.registry.entry_points", lambda group: points)


def test_ours_can_all_be_made() -> None:
    for kind, entry in known_engines().items():
        assert entry.summary
        assert option_names(kind) is not None
    assert make_engine("gpu_only", {"admit": "chunk"}).admit == "chunk"


@pytest.mark.usefixtures("plugins")
def test_a_plugin_is_an_engine_and_cannot_replace_ours() -> None:
    assert make_engine("toy", {"size": 3}) == Toy(3)
    assert known_engines()["gpu_only"].status == "ours"
    assert set(known_engines()) == {"toy", "broken", "odd", *BUILT_IN}


@pytest.mark.usefixtures("plugins")
def test_a_broken_plugin_is_one_line_when_chosen() -> None:
    with pytest.raises(EngineError, match=r'engine "broken" .* cannot be loaded .*ModuleNotFoundError') as caught:
        make_engine("broken", {})
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="is not a dataclass"):
        make_engine("odd", {})


@pytest.mark.usefixtures("plugins")
def test_options_are_checked_by_name_type_and_the_policy_itself() -> None:
    found = option_mistakes("toy", {"sise": 1, "style": "flat"})
    assert [name for name, _ in found] == ["sise", "style", "size"]
    assert 'did you mean "size"' in found[0][1]
    assert "'round' or 'square'" in found[1][1]
    assert found[2][1] == "missing"
    assert option_mistakes("toy", {"size": 10}) == [("", "size: a toy is at most 9")]
    with pytest.raises(EngineError, match='engine "toy", option sise'):
        make_engine("toy", {"sise": 1})


def test_an_unknown_engine() -> None:
    with pytest.raises(EngineError, match='did you mean "gpu_only"'):
        make_engine("gpu-only", {})
