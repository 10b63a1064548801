"""What can be read of plugins without loading them: whose they are, and what is wrong with what they claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.plugins import Claim, claims
from tests.plugins.installed import install

OURS = {"gpu_only"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def claimed(kind: str) -> list[Claim]:
    return [claim for claim in claims(OURS) if claim.kind == kind]


def test_a_claim_says_whose_it_is(site: Path) -> None:
    install(site, "fine-dist", "fine = fine.engine:Outer.Engine", version="2.1")
    assert claimed("fine") == [Claim("fine", "fine.engine:Outer.Engine", "fine-dist 2.1")]


def test_an_editable_install_says_where_it_runs_from(site: Path) -> None:
    install(site, "own", "mine = own:Mine", editable="/home/me/my%20engine")
    assert [claim.origin for claim in claimed("mine")] == ["own 1.0 at /home/me/my engine"]


@pytest.mark.parametrize(
    "direct", ["{", "[]", '{"url": 3, "dir_info": {"editable": true}}', '{"dir_info": null}', "\xff"]
)
def test_a_broken_note_on_how_it_was_installed_costs_nothing(site: Path, direct: str) -> None:
    (install(site, "own", "mine = own:Mine") / "direct_url.json").write_bytes(direct.encode("latin-1"))
    assert [claim.origin for claim in claimed("mine")] == ["own 1.0"]


def test_two_distributions_that_want_one_name(site: Path) -> None:
    """Which one would be measured must not depend on the order of a path."""
    install(site, "first", "both = first:Engine\nalone = first:Engine")
    install(site, "second", "both = second:Engine")
    assert {(claim.origin, claim.problem) for claim in claimed("both")} == {
        ("first 1.0", "second 1.0 claims this name, too: uninstall all but one"),
        ("second 1.0", "first 1.0 claims this name, too: uninstall all but one"),
    }
    assert [claim.problem for claim in claimed("alone")] == [""]


def test_a_name_of_ours_stays_ours(site: Path) -> None:
    install(site, "usurper", "gpu_only = usurper:Engine")
    assert ["is the name of one of ours" in claim.problem for claim in claimed("gpu_only")] == [True]


def test_a_distribution_that_is_found_twice_counts_once(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "dist", "engine = old:Engine", version="1.0")
    monkeypatch.syspath_prepend(tmp_path / "newer")
    install(tmp_path / "newer", "dist", "engine = new:Engine", version="1.1")
    assert claimed("engine") == [Claim("engine", "new:Engine", "dist 1.1")]


@pytest.mark.parametrize(
    ("line", "kind", "problem"),
    [
        ("no equals sign", "no equals sign", '"no equals sign" is no name for an engine'),
        ("lonely", "lonely", 'its entry point "lonely" is not of the form name = module:Class'),
        ("half = module", "half", "is not of the form name = module:Class"),
        ("odd = module:Class:Other", "odd", "is not of the form"),
        ("odd = ../module:Class", "odd", "is not of the form"),
        ("= module:Class", "?", '"" is no name for an engine'),
        ("../up = module:Class", "../up", "is no name for an engine"),
        ("\x1b[31mred = module:Class", "?[31mred", "is no name for an engine"),
        (f"{'long' * 1000} = x", f"{'long' * 75}...", "is not of the form"),
    ],
)
def test_a_malformed_line_hides_no_other(site: Path, line: str, kind: str, problem: str) -> None:
    install(site, "dist", f"# a comment\n{line}\ngood = module:Class [extra]\n[other.group]\nelse = x")
    (claim,) = claimed(kind)
    assert problem in claim.problem
    assert claim.problem.endswith("; upgrade or remove it")
    assert claim.problem.isprintable()
    assert claimed("good") == [Claim("good", "module:Class", "dist 1.0")]
    assert claimed("else") == []


def test_entry_points_that_are_no_text(site: Path) -> None:
    install(site, "binary", b"[harness.engines]\nx = \xff\xfe:Y\n")
    install(site, "fine", "fine = fine:Engine")
    (claim,) = claimed("?")
    assert claim.origin == "binary 1.0"
    assert claim.problem.startswith("its entry_points.txt cannot be read: UnicodeDecodeError")
    assert claimed("fine") != []


@pytest.mark.parametrize(
    ("metadata", "origin"),
    [
        (None, "a distribution without a name"),
        (b"", "a distribution without a name"),
        (b"\xff\xfe", "a distribution without a name"),
        (b"Name: half\n", "half"),
        (b"Name: other-name\nVersion: 3\n", "other-name 3"),
    ],
)
def test_metadata_that_says_nothing(site: Path, metadata: bytes | None, origin: str) -> None:
    path = install(site, "dist", "engine = module:Class") / "METADATA"
    path.unlink() if metadata is None else path.write_bytes(metadata)
    assert claimed("engine") == [Claim("engine", "module:Class", origin)]
