"""Engines by name: ours, a plugin's, a broken plugin's; and what is said of options they do not have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from engines.registry import (
    BUILT_IN,
    EngineError,
    engine_entries,
    known_engines,
    make_engine,
    option_mistakes,
    option_names,
    summary_of,
    why_unavailable,
)
from tests.plugins.installed import MODULE_PREFIX, POLICY, SERVED, install, install_engine


@dataclass(frozen=True, slots=True)
class Toy:
    """As small as can be.

    And no smaller.
    """

    size: int
    style: Literal["round", "square"] = "round"

    name = "toy"
    uses_host_kv = False
    partition = None

    def decide(self, view: object) -> None:
        """What makes it a policy."""

    def __post_init__(self) -> None:
        if self.size > 9:
            raise ValueError("size: a toy is at most 9")


NOT_AN_ENGINE = 3


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path in which plugins are installed; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(MODULE_PREFIX)]:
        del sys.modules[name]


@pytest.fixture
def plugins(site: Path) -> None:
    targets = {
        "toy": f"{__name__}:Toy",
        "broken": "no.such.module:Engine",
        "odd": f"{__name__}:NOT_AN_ENGINE",
        "gpu_only": f"{__name__}:Toy",
    }
    install(site, "toys", "\n".join(f"{name} = {target}" for name, target in targets.items()))


def test_ours_can_all_be_made() -> None:
    for kind, entry in BUILT_IN.items():
        assert entry.status == "ours"
        assert entry.summary == summary_of(kind)
        assert option_names(kind) is not None
    assert make_engine("gpu_only", {"admit": "chunk"}).admit == "chunk"


@pytest.mark.usefixtures("plugins")
def test_a_plugin_is_an_engine_and_cannot_replace_ours() -> None:
    assert make_engine("toy", {"size": 3}) == Toy(3)
    assert known_engines()["toy"].status == "toys 1.0"
    assert known_engines()["gpu_only"].status == "ours"
    assert set(known_engines()) == {"toy", "broken", "odd", *BUILT_IN}
    (rejected,) = (entry for entry in engine_entries() if entry.kind == "gpu_only" and entry.status != "ours")
    assert "is the name of one of ours" in rejected.problem


@pytest.mark.usefixtures("plugins")
def test_a_broken_plugin_is_one_line_when_chosen() -> None:
    with pytest.raises(EngineError, match=r'engine "broken" .* cannot be loaded .*ModuleNotFoundError') as caught:
        make_engine("broken", {})
    assert "\n" not in str(caught.value)
    assert "reinstall or remove toys 1.0" in str(caught.value)
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


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Own(BaseException): pass\nraise Own('two\\nlines \\x1b[31m')", "Own: two lines ?[31m"),
        ("class Mute(Exception):\n    def __str__(self): raise KeyError\nraise Mute", "Mute"),
        ("def (", "SyntaxError: invalid syntax"),
        ("import warnings\nwarnings.warn('old')", "UserWarning: old"),  # errors, as they are in this suite
        ("", "AttributeError"),
    ],
)
def test_whatever_an_import_raises_is_one_line(site: Path, source: str, reason: str) -> None:
    install_engine(site, "hostile", source)
    (mistake,) = option_mistakes("hostile", {})
    assert mistake[0] == "kind"
    assert f"cannot be loaded from module_of_hostile:Engine: {reason}" in mistake[1]
    assert mistake[1].isprintable()
    assert make_engine("gpu_only", {}), "nobody else is affected"


def test_what_an_import_prints_does_not_reach_stdout(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_engine(site, "chatty", f"print('hello')\n{POLICY}")
    assert make_engine("chatty", {"pace": 3}).pace == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("class Engine: pass", "is not a dataclass of options"),
        ("Engine = 3", "is not a dataclass of options"),
        (POLICY.replace("def decide", "def choose"), "has neither decide (a policy) nor open (an engine of its own)"),
        (POLICY.replace("    partition = GpuOnly.partition\n", ""), "lacks partition"),
        (SERVED.replace("    runs_model = False\n", "").replace("def problems", "def p"), "lacks runs_model, problems"),
    ],
)
def test_a_class_that_is_no_engine(site: Path, source: str, complaint: str) -> None:
    install_engine(site, "unfit", source)
    (mistake,) = option_mistakes("unfit", {})
    assert f"{complaint}; see engines/README.md" in mistake[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("    pace: int = 1\n    def __post_init__(self): raise KeyError('pace')", "KeyError: 'pace'"),
        ("    pace: int = 1\n    def __post_init__(self): raise SystemExit(3)", "SystemExit: 3"),
        ("    pace: 'Nowhere' = 1", "NameError: name 'Nowhere' is not defined"),
        ("    pace: int = 1\n    @property\n    def name(self): raise OSError('gone')", "OSError: gone"),
    ],
)
def test_options_that_a_plugin_cannot_take(site: Path, options: str, reason: str) -> None:
    source = POLICY.replace("    pace: int = 1", options)
    install_engine(site, "picky", source.replace('    name = "plugin"\n', "") if "name(self)" in options else source)
    assert option_mistakes("picky", {}) == [("", reason)]


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("", None),
        ("    @staticmethod\n    def unavailable(): return None\n", None),
        (
            "    @staticmethod\n    def unavailable(): return 'needs a dongle:\\n plug it in'\n",
            "needs a dongle: plug it in",
        ),
        ("    @staticmethod\n    def unavailable(): raise SystemExit(1)\n", "its unavailable() raised SystemExit: 1"),
        ("    def unavailable(self): return None\n", "its unavailable() raised TypeError"),
    ],
)
def test_an_engine_says_why_it_cannot_be_had(site: Path, method: str, answer: str | None) -> None:
    install_engine(site, "shy", POLICY + "\n" + method)
    found = why_unavailable("shy")
    assert found == answer if answer is None else (found or "").startswith(answer)


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        (("", ""), "Decides as gpu_only does."),
        (('    """Decides as gpu_only does."""\n', ""), ""),
        (('    name = "plugin"', '    summary = "what it\\nsays"\n    name = "plugin"'), "what it says"),
    ],
)
def test_a_summary_in_one_line(site: Path, change: tuple[str, str], summary: str) -> None:
    install_engine(site, "wordy", POLICY.replace(*change))
    assert summary_of("wordy") == summary
