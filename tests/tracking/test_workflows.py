"""The workflows say what exists: they parse, their commands are there, and they may do no more than they need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from harness.cli import app
from harness.config import config_names

REPOSITORY = Path(__file__).resolve().parents[2]
NIGHTLY = REPOSITORY / ".github" / "workflows" / "nightly.yml"
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
COMMANDS = set(typer.main.get_group(app).commands)
SECRET = re.compile(r"secrets\.|github\.token|GH_TOKEN|GITHUB_TOKEN")


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(NIGHTLY.read_text())["jobs"]
    return found


def scripts(jobs: dict[str, Any]) -> Iterator[str]:
    for job in jobs.values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


def test_every_command_exists(jobs: dict[str, Any]) -> None:
    lines = [line.strip() for script in scripts(jobs) for line in script.splitlines()]
    made = [match[1] for line in lines if (match := re.match(r"make(?: -C \w+)? ([a-z-]+)", line))]
    called = [match[1] for line in lines for match in re.finditer(r"/harness\"? ([a-z]+)", line)]
    assert {"install", "nightly"} == set(made)
    assert set(made) <= TARGETS
    assert {"run", "compare"} == set(called)
    assert set(called) <= COMMANDS


def test_the_target_runs_the_command() -> None:
    recipe = re.search(r"^nightly:.*\n\t(.+)$", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    assert recipe
    assert recipe[1] == "$(BIN)/harness nightly $(NIGHTLY)"
    assert "nightly" in COMMANDS


def test_every_experiment_exists() -> None:
    text = NIGHTLY.read_text()
    named = set(re.findall(r"config=(\w+)", text)) | set(re.findall(r"configs/(\w+)\.yaml", text))
    assert named == {"t4_llama2", "a10_llama2", "nightly_sim"}
    assert named <= set(config_names())


def test_permissions_are_given_job_by_job(jobs: dict[str, Any]) -> None:
    assert yaml.safe_load(NIGHTLY.read_text())["permissions"] == {}
    assert {name: job["permissions"] for name, job in jobs.items()} == {
        "hosted": {"contents": "write"},
        "gpu": {"contents": "write"},
        "publish": {"pages": "write", "id-token": "write"},
        "compare": {"contents": "read", "pull-requests": "write"},
    }


def test_a_token_is_given_to_the_comment_alone_and_never_printed(jobs: dict[str, Any]) -> None:
    assert not [script for script in scripts(jobs) if SECRET.search(script)]
    given = [step for job in jobs.values() for step in job["steps"] if SECRET.search(str(step))]
    assert [step["name"] for step in given] == ["Comment"]
    kept = [step for step in jobs["compare"]["steps"] if "checkout" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in kept)


def test_pull_requests_of_forks_are_left_alone(jobs: dict[str, Any]) -> None:
    assert "head.repo.full_name == github.repository" in jobs["compare"]["if"]
    assert all("github.event_name != 'pull_request'" in jobs[name]["if"] for name in ("hosted", "gpu", "publish"))


def test_texts_of_others_reach_scripts_as_variables_only(jobs: dict[str, Any]) -> None:
    assert not [script for script in scripts(jobs) if "${{" in script]


def test_evidence_is_kept_whatever_comes_out(jobs: dict[str, Any]) -> None:
    for name in ("hosted", "gpu", "compare"):
        (step,) = [step for step in jobs[name]["steps"] if step.get("name") == "Evidence"]
        assert step["if"] == "always()"
        assert "upload-artifact" in step["uses"]
