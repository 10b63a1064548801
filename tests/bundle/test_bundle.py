"""What is in a bundle: the whole run, always the same bytes, and nothing that the run folder does not have."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from harness.bundle import BUNDLE_FILE, Bundled, make_bundle
from harness.checksums import CHECKSUMS_FILE
from harness.errors import ConfigError
from harness.keys_at_hand import refuse_secrets
from results.errors import ResultsError
from tests.bundle.conftest import Call


@pytest.fixture
def copied(run_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_dir, tmp_path / run_dir.name))


def test_every_file_of_the_run_is_in_it_as_it_was(bundled: Bundled, run_dir: Path, opened: Path) -> None:
    ours = {path.relative_to(run_dir): path for path in run_dir.rglob("*") if path.is_file()}
    theirs = {path.relative_to(opened): path for path in opened.rglob("*") if path.is_file()}
    assert theirs.keys() - ours.keys() == {Path(BUNDLE_FILE), Path(CHECKSUMS_FILE)}
    assert all(theirs[name].read_bytes() == ours[name].read_bytes() for name in ours)
    assert bundled.files == len(theirs)


def test_the_same_run_gives_the_same_bytes(bundled: Bundled, copied: Path, tmp_path: Path) -> None:
    for path in copied.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o700)
    again = make_bundle(copied, tmp_path / "again.zip")
    assert again.id == bundled.id
    assert again.path.read_bytes() == bundled.path.read_bytes()


def test_an_unpacked_bundle_is_a_run_folder_whose_bundle_is_the_same(
    bundled: Bundled, opened: Path, tmp_path: Path
) -> None:
    assert make_bundle(opened, tmp_path / "again.zip").id == bundled.id


def test_the_id_is_the_hash_of_the_list_and_the_list_is_what_sha256sum_reads(bundled: Bundled, opened: Path) -> None:
    assert hashlib.sha256((opened / CHECKSUMS_FILE).read_bytes()).hexdigest() == bundled.id
    checked = subprocess.run(["sha256sum", "--strict", "-c", CHECKSUMS_FILE], cwd=opened, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert len(checked.stdout.splitlines()) == bundled.files - 1


def test_its_name_has_the_id(run_dir: Path, bundled: Bundled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_bundle(run_dir).path == Path(f"{run_dir.name}-{bundled.id[:16]}.zip")


def test_what_is_no_part_of_the_run_is_left_out_and_named(copied: Path, bundled: Bundled, tmp_path: Path) -> None:
    (copied / ".env").write_text("A_KEY=1")
    (copied / "notes.txt").write_text("mine")
    (copied / "cells" / ".summary.json.0123.tmp").write_text("half")
    made = make_bundle(copied, tmp_path / "b.zip")
    assert (made.left_out, made.id) == ((".env", "notes.txt"), bundled.id)


def test_no_value_of_the_environment_is_in_it(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-1234567890abcdef")
    monkeypatch.setenv("OF_NO_INTEREST", "never-to-be-seen-anywhere")
    with zipfile.ZipFile(make_bundle(run_dir, tmp_path / "b.zip").path) as archive:
        said = b"".join(archive.read(name) for name in archive.namelist())
    for value in (b"sk-1234567890abcdef", b"never-to-be-seen-anywhere", b"PYTEST_CURRENT_TEST"):
        assert value not in said


@pytest.mark.parametrize("variable", ["SOME_API_KEY", "MINE"])
def test_a_secret_in_the_records_is_refused_wherever_it_hides(
    variable: str, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "sk-1234567890abcdef")
    config = {"engines": [{"kind": "openai", "api_key_env": "MINE"}]}
    [journal] = copied.glob("cells/*/journal.jsonl.gz")
    refuse_secrets({"journal": journal}, config)
    journal.write_bytes(gzip.compress(b'{"reason": "said sk-1234567890abcdef"}\n'))
    with pytest.raises(ConfigError, match=rf"^journal: .*\b{variable}\b") as refused:
        refuse_secrets({"journal": journal}, config)
    assert "sk-1234567890abcdef" not in str(refused.value)


def test_a_secret_in_a_table_is_refused(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setenv("A_TOKEN", "0123456789abcdef")
    [table] = copied.glob("cells/*/requests.parquet")
    frame = pq.read_table(table).to_pandas()
    frame["reason"] = "401 for 0123456789abcdef"
    frame.to_parquet(table)
    with pytest.raises(ConfigError, match="A_TOKEN"):
        make_bundle(copied, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


@pytest.mark.parametrize("change", [lambda report: report.unlink(), lambda report: report.write_text("<html>")])
def test_only_a_report_that_can_be_made_again_is_packed(change: object, copied: Path, tmp_path: Path) -> None:
    assert callable(change)
    change(copied / "report.html")
    with pytest.raises(ConfigError, match=r"`harness report .*` makes it"):
        make_bundle(copied, tmp_path / "b.zip")


def test_a_link_is_not_followed(copied: Path, tmp_path: Path) -> None:
    (copied / "cells" / "elsewhere").symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="link"):
        make_bundle(copied, tmp_path / "b.zip")


def test_a_run_that_goes_on_is_not_packed(run_dir: Path, tmp_path: Path) -> None:
    from results.store import RunFolder

    with RunFolder.open(run_dir).claimed(), pytest.raises(ResultsError, match="another process"):
        make_bundle(run_dir, tmp_path / "b.zip")


def test_commands(run_dir: Path, bundled: Bundled, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "b.zip"
    made = call("bundle", run_dir, "--out", out)
    assert (made.code, bundled.id in made.out) == (0, True)
    assert call("verify", out, "--no-simulate", "--id", bundled.id[:20]).code == 0
    wrong = call("verify", out, "--no-simulate", "--id", "0" * 16)
    assert (wrong.code, "b.zip: id: expected 0000000000000000, found" in wrong.out) == (1, True)
    assert call("verify", out, "--id", "latest").errors == [
        "error: --id latest: expected 16 to 64 hexadecimal digits, as `harness bundle` prints them"
    ]
    assert call("bundle", tmp_path / "none").code == 2
    assert call("bundle", run_dir, "--out", tmp_path).code == 2
    for nothing in (tmp_path / "none", run_dir, run_dir / "report.html", Path("/dev/null")):
        found = call("verify", nothing)
        assert found.code == 2, nothing
        assert len(found.errors) == 1
