"""The two examples of engines/README.md: what it prints is what lies in engines/examples, and runs as told."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tokenize
from importlib.util import find_spec
from pathlib import Path

import pytest

from results.query import load_run
from results.schema import CellSummary
from tests.plugins.conftest import Home

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "engines" / "examples"
README = (REPOSITORY / "engines" / "README.md").read_text()
POLICY_SECTION, ENGINE_SECTION = re.split(r"^## ", README, flags=re.MULTILINE)[-3:-1]
MOST_CODE_LINES = 50
# As crowded as in the text: prompts of several chunks, more of them than are computed at a time.
SHORTER = (
    "--set=workloads.0.requests=8",
    "--set=workloads.0.prompt=60",
    "--set=workloads.0.rate=200",
    "--set=budget.max_batch_tokens=32",
)
LEFT_BY_BUILDS = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
needs_kernels = pytest.mark.skipif(find_spec("engines.apex._cpu") is None, reason="the native extension is not built")


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("section", "language", "path"),
    [
        (POLICY_SECTION, "python", "shortest_first/shortest_first.py"),
        (POLICY_SECTION, "toml", "shortest_first/pyproject.toml"),
        (POLICY_SECTION, "yaml", "mine.yaml"),
        (ENGINE_SECTION, "python", "one_by_one/one_by_one.py"),
        (ENGINE_SECTION, "toml", "one_by_one/pyproject.toml"),
    ],
)
def test_the_readme_shows_the_files(section: str, language: str, path: str) -> None:
    """Whole, though perhaps in parts; blank lines between two parts are the text's own."""
    printed = "\n".join(blocks(section, language)).splitlines()
    written = (EXAMPLES / path).read_text().splitlines()
    assert [line for line in printed if line] == [line for line in written if line]


def test_the_scheduler_is_as_short_as_promised() -> None:
    source = (EXAMPLES / "shortest_first" / "shortest_first.py").read_text()
    assert 20 < len(code_lines(source)) <= MOST_CODE_LINES


def code_lines(source: str) -> set[int]:
    """Lines with anything but comments and docstrings on them."""
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type not in blank and not token.string.startswith('"""')}


# --- installed --------------------------------------------------------------------------------------------------------


def pip_install(project: Path, *arguments: object) -> None:
    """Without an index and without a second environment: what is here must do."""
    offline = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *offline, *map(str, arguments), str(project)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def examples(home: Home) -> Home:
    """Built and installed from copies, because a build leaves its litter where it is."""
    for name in ("shortest_first", "one_by_one"):
        shutil.copytree(EXAMPLES / name, home.folder / name, ignore=LEFT_BY_BUILDS)
        pip_install(home.folder / name, "--target", home.site, "--upgrade")
    return home


def command(section: str, number: int, home: Home) -> list[str]:
    """A `harness run` of the text, with the experiment where it is from here."""
    text = "\n".join(blocks(section, "sh")).replace("\\\n", "").replace("engines/examples", str(EXAMPLES))
    found = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("harness run")]
    return [*found[number], "--out", str(home.folder / "runs")]


def cells(home: Home, *arguments: object) -> dict[str, CellSummary]:
    answer = home(*arguments, "--json")
    assert answer.code == 0, answer
    return {cell.engine: cell for cell in load_run(Path(json.loads(answer.out)["run_dir"])).cells}


def test_both_are_listed_with_where_they_come_from(examples: Home) -> None:
    rows = {row["engine"]: row for row in json.loads(examples("list", "engines", "--json").out)}
    assert rows["shortest_first"] == {
        "engine": "shortest_first",
        "from": "shortest-first 0.1.0",
        "kind": "policy",
        "state": "ok",
        "what it does": "The prompt with the least left to compute goes first.",
    }
    assert (rows["one_by_one"]["from"], rows["one_by_one"]["kind"]) == ("one-by-one 0.1.0", "engine of its own")
    assert rows["one_by_one"]["state"] == "ok"


def test_an_editable_one_is_listed_with_its_folder(home: Home) -> None:
    """By the note that pip leaves. It is not run here: in a folder that is only on the path, no .pth file is read."""
    project = home.folder / "editable"
    shutil.copytree(EXAMPLES / "shortest_first", project, ignore=LEFT_BY_BUILDS)
    other = Home(home.folder / "other")
    other.site.mkdir(parents=True)
    pip_install(project, "--target", other.site, "--editable")
    (row,) = (row for row in json.loads(other("list", "engines", "--json").out) if row["engine"] == "shortest_first")
    assert row["from"] == f"shortest-first 0.1.0 at {project}"


@needs_kernels
def test_the_schedulers_tokens_are_the_models(examples: Home) -> None:
    words = command(POLICY_SECTION, 0, examples)
    found = cells(examples, *words, *SHORTER, "--set", "engines.2.prompt_tokens=8")
    assert set(found) == {"gpu_only", "shortest_first", "capped"}
    for cell in found.values():
        assert cell.parity is not None
        assert (cell.parity.held, cell.parity.checked_requests, cell.unfair) == (True, 8, ())


@needs_kernels
def test_the_engines_tokens_are_the_models(examples: Home) -> None:
    words = command(ENGINE_SECTION, 0, examples)
    found = cells(examples, *words, *SHORTER)
    assert set(found) == {"gpu_only", "one_by_one"}
    mine = found["one_by_one"]
    assert mine.parity is not None
    assert (mine.parity.held, mine.parity.checked_requests, mine.unfair) == (True, 8, ())
    assert mine.resolved["max_batch"] == 1
    assert not [note for note in mine.notes if "does not report" in note]


def test_the_scheduler_does_what_the_text_says(examples: Home) -> None:
    """In simulated time, so that the figures are the same everywhere."""
    found = cells(examples, *command(POLICY_SECTION, 1, examples))
    figures = {name: cell.metrics for name, cell in found.items()}
    told = {name: (figures[name]["ttft_s_p50"], figures[name]["tpot_s_mean"]) for name in figures}
    assert f"after {told['shortest_first'][0]:.2f} s instead of {told['gpu_only'][0]:.2f} s" in README
    assert f"({1e3 * told['capped'][1]:.0f} ms instead of {1e3 * told['gpu_only'][1]:.0f})" in README
    assert f"come later ({told['capped'][0]:.2f} s)" in README
    throughput = [figures[name]["output_tokens_per_s"] for name in ("shortest_first", "gpu_only")]
    assert throughput[0] == pytest.approx(throughput[1], rel=0.01)


@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ("engines=[{kind: shortest_first, prompt_tokens: 0}]", 2, "prompt_tokens: must be 1 or more, not 0"),
        ("engines=[{kind: shortest_first, prompt_token: 9}]", 2, 'unknown option; did you mean "prompt_tokens"?'),
        ("engines=[one_by_one]", 2, "engine one_by_one: runs on this machine's CPU at its own speed: set backend: cpu"),
    ],
)
def test_their_mistakes_are_told_like_ours(examples: Home, setting: str, code: int, message: str) -> None:
    base = ("--config", EXAMPLES / "mine.yaml", "--backend", "sim", "--set", "hardware=a10")
    answer = examples("validate", *base, "--set", setting)
    assert answer.code == code
    assert len(answer.err.splitlines()) == 1
    assert message in answer.err
