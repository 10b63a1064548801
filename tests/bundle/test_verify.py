"""One changed byte is found wherever it is; so is whoever changes a number and mends the hashes afterwards."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.bundle import Bundled
from harness.checksums import CHECKSUMS_FILE, sha256_of
from harness.container import NotABundleError
from harness.verify import Verification, verify
from reports.page import write_report
from results.store import RunFolder
from tests.bundle.conftest import Call, Forge


def quick(bundle: Path) -> Verification:
    return verify(bundle, simulate=False)


def named(found: Verification) -> set[str]:
    return {each.file.rpartition("/")[2] for each in found.differences}


def test_an_honest_bundle_is_verified_and_simulated_again(bundled: Bundled) -> None:
    found = verify(bundled.path)
    assert found.differences == ()
    assert (found.exit_code, found.id, found.simulated_again) == (0, bundled.id, 1)
    assert found.recomputed > 150, "metrics alone are more than a hundred"
    assert [line.partition(":")[0] for line in found.as_recorded] == ["cell_wall_s"]


def test_as_json(bundled: Bundled, call: Call) -> None:
    answer = call("verify", bundled.path, "--no-simulate", "--json")
    assert answer.code == 0
    said = json.loads(answer.out)
    assert (said["verified"], said["id"], said["differences"]) == (True, bundled.id, [])
    assert any("not simulated again" in line for line in said["as_recorded"])


# --- a changed byte ---------------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x01
    path.write_bytes(data)


def test_a_flipped_byte_in_any_file_of_an_unpacked_bundle(forge: Forge) -> None:
    files = [path for path in forge.top.rglob("*") if path.is_file()]
    assert len(files) >= 10
    for path in files:
        before, size = path.read_bytes(), path.stat().st_size
        for at in {0, size // 3, size // 2, size - 1}:
            flip(path, at)
            found = quick(forge.top)
            assert path.name == CHECKSUMS_FILE or named(found) == {path.name}, (path, at)
            assert found.exit_code == 1, (path, at)
            path.write_bytes(before)
    assert quick(forge.top).exit_code == 0


def places(container: Path) -> Iterator[int]:
    """Into headers and names, into each content and its entry in the directory, and every byte of the end."""
    with zipfile.ZipFile(container) as archive:
        directory = archive.start_dir
        for number, member in enumerate(archive.infolist()):
            begin = member.header_offset
            yield from (begin + at for at in range(number % 3, 34, 3))
            yield begin + 30 + len(member.filename.encode()) + member.file_size // 2
            yield from (directory + at for at in range(number % 4, 47, 4))
            directory += 46 + len(member.filename.encode())
    yield from range(directory, container.stat().st_size)


def test_a_flipped_byte_anywhere_in_the_container(bundled: Bundled, tmp_path: Path) -> None:
    copy = Path(shutil.copy(bundled.path, tmp_path / "copy.zip"))
    chosen = sorted(set(places(copy)))
    assert len(chosen) > 250
    missed = []
    for at in chosen:
        flip(copy, at)
        try:
            if not quick(copy).differences:
                missed.append(at)
        except NotABundleError:
            pass
        flip(copy, at)
    assert missed == []
    assert quick(copy).exit_code == 0


def test_a_damaged_member_is_named(bundled: Bundled, tmp_path: Path) -> None:
    copy = Path(shutil.copy(bundled.path, tmp_path / "copy.zip"))
    with zipfile.ZipFile(copy) as archive:
        [member] = [each for each in archive.infolist() if each.filename.endswith("report.html")]
    flip(copy, member.header_offset + 2000)
    assert named(quick(copy)) == {"report.html"}


@pytest.mark.parametrize("stray", [b"", b"appended", b"\0"])
def test_something_before_or_behind_the_container(stray: bytes, bundled: Bundled, tmp_path: Path) -> None:
    for at, data in enumerate((stray + bundled.path.read_bytes(), bundled.path.read_bytes() + stray)):
        path = tmp_path / f"{at}.zip"
        path.write_bytes(data)
        try:
            assert quick(path).exit_code == (1 if stray else 0)
        except NotABundleError:
            assert stray


def test_a_missing_file_and_one_too_many(forge: Forge) -> None:
    (forge.cell / "trace.json").unlink()
    (forge.cell / "notes.txt").write_text("more")
    assert {(each.what, each.expected) for each in quick(forge.top).differences} == {
        ("file", "present"),
        ("file", "nothing"),
    }
    assert named(quick(forge.top)) == {"trace.json", "notes.txt"}


def test_another_bundle_under_this_name(bundled: Bundled, tmp_path: Path) -> None:
    copy = Path(shutil.copy(bundled.path, tmp_path / f"run-{'0' * 16}.zip"))
    assert [each.what for each in quick(copy).differences] == ["id in the file's name"]


# --- a forger who mends the hashes ------------------------------------------------------------------------------------


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def change_row(path: Path, column: str, change: Callable[[Any], Any]) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    values = table.column(column).to_pylist()
    values[2] = change(values[2])
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), path)


def tell_everybody(forge: Forge) -> None:
    """What a careful forger does: the run's summary, the report and the hashes follow from the changed records."""
    from harness.verdicts import verdicts

    folder = RunFolder.open(forge.top)
    folder.write_run_summary(verdicts([cell.to_json() for cell in folder.gather().cells]))
    write_report(forge.top)
    forge.mend_hashes()
    assert not [each for each in quick(forge.top).differences if each.what == "SHA-256"]


def metric_keys(opened: Path) -> list[str]:
    [path] = opened.glob("cells/*/summary.json")
    return sorted(json.loads(path.read_text())["metrics"])


def test_every_metric_is_found_when_changed(opened: Path, forge: Forge) -> None:
    path = forge.cell / "summary.json"
    change_json(
        path,
        lambda cell: cell["metrics"].update({key: value * 1.0001 + 1e-6 for key, value in cell["metrics"].items()}),
    )
    tell_everybody(forge)
    found = {each.what for each in quick(forge.top).differences if each.file.startswith("cells/")}
    keys = {f"metrics.{key}" for key in metric_keys(opened)} - {"metrics.cell_wall_s"}
    assert keys <= found
    assert len(keys) > 100


def test_one_metric_in_the_last_digits_that_are_shown(forge: Forge) -> None:
    change_json(
        forge.cell / "summary.json",
        lambda cell: cell["metrics"].update(ttft_s_mean=cell["metrics"]["ttft_s_mean"] * (1 - 1e-6)),
    )
    tell_everybody(forge)
    assert [each.what for each in quick(forge.top).differences] == ["metrics.ttft_s_mean"]


@pytest.mark.parametrize("key", ["ttft_s_mean", "regret_share", "peak_accel_bytes"])
def test_a_metric_taken_away_or_invented(key: str, forge: Forge) -> None:
    def change(cell: dict[str, Any]) -> None:
        del cell["metrics"][key]
        cell["unavailable"][key] = "withheld: the cell is invalid"
        cell["metrics"]["energy_j_per_output_token"] = 0.1

    change_json(forge.cell / "summary.json", change)
    tell_everybody(forge)
    assert quick(forge.top).exit_code == 1


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("requests.parquet", "arrival_s"),
        ("requests.parquet", "first_token_s"),
        ("requests.parquet", "last_token_s"),
        ("requests.parquet", "output_tokens"),
        ("requests.parquet", "prompt_tokens"),
        ("steps.parquet", "ended_s"),
        ("steps.parquet", "gpu_busy_s"),
        ("steps.parquet", "scheduler_s"),
        ("steps.parquet", "accel_blocks_used"),
    ],
)
def test_a_row_of_the_records(table: str, column: str, forge: Forge) -> None:
    change_row(forge.cell / table, column, lambda value: value * 2 + 1)
    forge.mend_hashes()
    found = quick(forge.top)
    assert found.exit_code == 1
    whats = {each.what for each in found.differences if each.file.startswith(f"cells/{forge.cell.name}")}
    if column == "output_tokens":  # fewer or more than there are times of tokens
        assert whats == {"recomputing it"}
    else:
        assert any(what.startswith("metrics.") for what in whats)


def test_a_number_in_the_report(forge: Forge) -> None:
    path = forge.top / "report.html"
    page = path.read_text()
    at = page.rindex("</td>", 0, page.index("</table>"))
    digit = max(i for i in range(at) if page[i].isdigit() and i < at)
    path.write_text(page[:digit] + str((int(page[digit]) + 1) % 10) + page[digit + 1 :])
    forge.mend_hashes()
    assert named(quick(forge.top)) == {"report.html"}
    # Nor does it help to say that other code made it.
    change_json(forge.top / "bundle.json", lambda about: about["made_by"].update(code_sha256="0" * 64))
    forge.mend_hashes()
    found = quick(forge.top)
    assert found.other_code.keys() == {"code_sha256"}
    assert named(found) == {"report.html"}


def test_a_verdict(forge: Forge) -> None:
    change_json(forge.top / "summary.json", lambda run: run["verdicts"].__setitem__(0, "apex is 90 % faster"))
    write_report(forge.top)
    forge.mend_hashes()
    assert [each.what for each in quick(forge.top).differences] == ["of the cells.verdicts[0]"]


def test_a_simulation_that_is_called_measured(forge: Forge) -> None:
    change_json(forge.cell / "summary.json", lambda cell: cell.update(label="measured"))
    change_json(forge.cell / "spec.json", lambda spec: spec.update(label="measured"))
    change_json(forge.top / "manifest.json", lambda manifest: manifest.update(label="measured"))
    tell_everybody(forge)
    assert named(quick(forge.top)) == {"summary.json", "spec.json", "manifest.json"}


def test_an_invalid_cell_that_is_called_ok_and_an_unfair_one_fair(forge: Forge) -> None:
    def change(cell: dict[str, Any]) -> None:
        cell["resolved"]["max_batch"] = 4096
        cell["parity"].update(checked_requests=1, held=False)

    change_json(forge.cell / "summary.json", change)
    tell_everybody(forge)
    found = {each.what for each in quick(forge.top).differences}
    assert "unfair, length" in found or "unfair" in found
    assert "status" in found


def test_what_only_the_simulation_can_tell(forge: Forge) -> None:
    """Operators and draws come from no record; a request's own wait for its dispatch is in no figure that shows it."""

    def change(cell: dict[str, Any]) -> None:
        cell["operators"][0]["seconds"] *= 2
        key = next(iter(cell["draws"]["values"]))
        cell["draws"]["values"][key][0] *= 2

    change_json(forge.cell / "summary.json", change)
    change_row(forge.cell / "steps.parquet", "decode_rows", lambda rows: rows)
    [journal] = [forge.cell / "journal.jsonl.gz"]
    lines = gzip.decompress(journal.read_bytes()).splitlines(keepends=True)
    journal.write_bytes(gzip.compress(b"".join(lines[:-1])))
    tell_everybody(forge)
    found = verify(forge.top)
    whats = {each.what for each in found.differences if each.what.startswith("simulated again")}
    assert any("operators[0].seconds" in what for what in whats)
    assert any("draws.values" in what for what in whats)
    assert any("lines" in what for what in whats)


def test_records_that_cannot_be_read_are_a_difference_and_hide_no_other(forge: Forge) -> None:
    (forge.cell / "requests.parquet").write_bytes(b"PAR1 no table PAR1")
    (forge.top / "summary.json").write_text("[" * 100_000)
    forge.mend_hashes()
    found = quick(forge.top)
    assert {"summary.json", forge.cell.name} <= named(found)


def test_nothing_is_written_into_a_folder_that_is_verified(forge: Forge) -> None:
    before = {path: sha256_of(path) for path in forge.top.rglob("*") if path.is_file()}
    verify(forge.top)
    assert {path: sha256_of(path) for path in forge.top.rglob("*") if path.is_file()} == before
