"""Plugins in an experiment: what cannot be had is said before anything runs, what fails later costs its own cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.query import Run
from tests.e2e.commands import Answer
from tests.plugins.conftest import Home
from tests.plugins.installed import POLICY, SERVED, install_engine

RAISE = 'raise RuntimeError("lost its way")'
IN_DECIDE = POLICY.replace("return GpuOnly().decide(view)", "{}")
IN_PARTITION = POLICY.replace("    partition = GpuOnly.partition", "    def partition(self, *_):\n        " + RAISE)
IN_OPEN = SERVED.replace("return Adapter(site.clock)", RAISE)
IN_POLL = SERVED.replace("self.clock.wait_until(now_s + 1e-3)", RAISE)
IN_CLOSE = SERVED.replace("    def close(self):\n        pass", "    def close(self):\n        " + RAISE)

LOST = "exited with code 1: RuntimeError: lost its way"
FAILING = {
    "decide": (IN_DECIDE.format(RAISE), LOST),
    "decide_exit": (IN_DECIDE.format("raise SystemExit(0)"), "the process ended without a summary"),
    "partition": (IN_PARTITION, LOST),
    "open": (IN_OPEN, LOST),
    "poll": (IN_POLL, LOST),
    "close": (IN_CLOSE, LOST),
}

NO = "    @staticmethod\n    def unavailable():\n        return 'no dongle: plug it in'\n"
WITH_OPTION = SERVED.replace("    runs_model = False", "    port: int = 0\n\n    runs_model = False" + "\n\n" + NO)
SAYS_IT_TWICE = WITH_OPTION.replace("return []", "return [] if self.port == 1 else [self.unavailable()]")
NOT_SIMULATED = WITH_OPTION.replace("return []", "return ['is real: set backend: cpu'] if backend == 'sim' else []")


@pytest.fixture(scope="module")
def stormy(home: Home) -> tuple[Answer, Run]:
    """A good cell, a cell for every place where a plugin may fail, cells of good plugins."""
    for kind, (source, _) in FAILING.items():
        install_engine(home.site, kind, source)
    install_engine(home.site, "good_served", SERVED)
    answer = home("run", "--config", home.config("gpu_only", *FAILING, "good_served"))
    return answer, home.the_run()


def test_a_failing_plugin_costs_its_own_cell(stormy: tuple[Answer, Run]) -> None:
    answer, run = stormy
    assert answer.code == 4
    assert "Traceback" not in answer.err
    good = ("gpu_only", "good_served")
    assert {cell.engine: str(cell.status) for cell in run.cells} == {
        **dict.fromkeys(good, "ok"),
        **dict.fromkeys(FAILING, "failed"),
    }


@pytest.mark.parametrize("kind", FAILING)
def test_the_reason_stands_beside_its_name(stormy: tuple[Answer, Run], kind: str) -> None:
    answer, run = stormy
    (cell,) = (cell for cell in run.cells if cell.engine == kind)
    assert (cell.error or "").startswith(FAILING[kind][1]), cell.error
    (line,) = (line for line in answer.err.splitlines() if f"] {kind} on " in line)
    assert FAILING[kind][1] in line


def assert_refused(home: Home, config: Path, code: int, message: str) -> None:
    """By every command that would run it or plan it, in one line, and nothing is written."""
    for command in ("validate", "plan", "run"):
        answer = home(command, "--config", config, *(["--out", "never"] if command == "run" else []))
        assert (answer.code, answer.out) == (code, ""), answer
        assert answer.err.splitlines() == [f"error: {message}"]
    assert not (home.folder / "never").exists()


@pytest.mark.parametrize(
    ("kind", "source", "options", "code", "message"),
    [
        ("shy_policy", POLICY + "\n" + NO, {}, 3, "engine shy_policy: no dongle: plug it in"),
        ("shy", WITH_OPTION, {}, 3, "engine shy: no dongle: plug it in"),
        ("shy_twice", SAYS_IT_TWICE, {"port": 2}, 3, "engine shy_twice: no dongle: plug it in"),
        ("shy_real", NOT_SIMULATED, {"port": 2}, 2, "engine shy_real: is real: set backend: cpu"),
        (
            "upset",
            SERVED.replace("return []", "raise OSError('no such port')"),
            {},
            2,
            "engine upset: its problems() raised OSError: no such port; upgrade or remove it",
        ),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_runs(
    home: Home, kind: str, source: str, options: dict[str, int], code: int, message: str
) -> None:
    install_engine(home.site, kind, source)
    assert_refused(home, home.config("gpu_only", {"kind": kind, **options}), code, message)


def test_an_option_may_bring_what_is_missing(home: Home) -> None:
    """As a path to another environment does; the engine itself sees no problem then."""
    install_engine(home.site, "shy_cured", SAYS_IT_TWICE)
    answer = home("validate", "--config", home.config({"kind": "shy_cured", "port": 1}))
    assert (answer.code, answer.err) == (0, "")


def test_two_that_cannot_be_had_are_named_at_once(home: Home) -> None:
    install_engine(home.site, "absent", POLICY + "\n" + NO)
    config = home.config("absent", {"kind": "absent", "name": "again"})
    message = "engine absent: no dongle: plug it in; engine again: no dongle: plug it in"
    assert_refused(home, config, 3, message)


def test_a_plugin_that_cannot_be_loaded_is_a_mistake_in_the_configuration(home: Home) -> None:
    install_engine(home.site, "hollow", "raise SystemExit(0)")
    config = home.config("gpu_only", "hollow")
    where = f"{config.name}:{_line(config, 'hollow')}: engines.1.kind"
    reason = "cannot be loaded from module_of_hollow:Engine: SystemExit: 0; reinstall or remove dist-hollow 1.0"
    message = f'{where}: engine "hollow" (dist-hollow 1.0): {reason}'
    assert_refused(home, config, 2, message)


def test_offline_generation_says_the_same(home: Home) -> None:
    install_engine(home.site, "distant", POLICY + "\n" + NO)
    (home.folder / "prompts.jsonl").write_text('{"id": 1, "prompt_token_ids": [1, 2, 3]}\n')
    files = ("--prompts", "prompts.jsonl", "--out", "answers.jsonl")
    answer = home("generate", "--engine", "distant", "--model", "tiny-1m", *files)
    assert (answer.code, answer.err) == (3, "error: engine distant: no dongle: plug it in\n")


def _line(path: Path, word: str) -> int:
    return 1 + next(number for number, line in enumerate(path.read_text().splitlines()) if word in line)
