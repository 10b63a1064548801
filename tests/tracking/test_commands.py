"""From run folders to what is said of them, as a user calls it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from results.history import History
from results.history_rows import Role, Skipped
from tests.tracking.conftest import RATE, Call, Make, added, copy, day, nights_from

NIGHTS = 12  # enough to be judged
AFTER = 4  # of a change
SLOWER = 0.9


@pytest.fixture(scope="module")
def histories(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Nights that differ by less than a percent; and the same, after which one of the two engines is 10 % slower. Each
    of those nights was confirmed by a rerun.
    """
    folder = tmp_path_factory.mktemp("histories")
    night = nights_from(made, folder)
    steady = added(folder / "steady", map(night, range(NIGHTS)))
    slower = folder / "slower"
    shutil.copy(steady, slower)
    for number in range(NIGHTS, NIGHTS + AFTER):
        scaled = {"gpu_only": SLOWER}
        added(slower, [night(number, scaled=scaled)])
        again = {"command": "again"}
        added(slower, [night(number, scaled=scaled, name=f"again-{number}", manifest=again)], Role.CONFIRMATION)
    return steady, slower


@pytest.fixture
def steady(histories: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(histories[0], tmp_path / "steady"))


@pytest.fixture
def slower(histories: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(histories[1], tmp_path / "slower"))


LAST = day(NIGHTS - 1)
LATER = day(NIGHTS + AFTER - 1)


def name_of(call: Call, db: Path, engine: str = "gpu_only") -> str:
    found = json.loads(call("track", "check", "--db", db, "--night", LATER, "--json").out)["findings"]
    (name,) = {each["series"] for each in found if each["series"].startswith(f"{engine}/batch/{RATE}@")}
    return str(name)


# --- add --------------------------------------------------------------------------------------------------------------


def test_several_runs_at_once_and_again(call: Call, night: Make, db: Path, made: Path) -> None:
    runs = [night(0), night(1)]
    first = call("track", "add", *runs, "--db", db)
    assert (first.code, first.err) == (0, "")
    assert first.out.splitlines() == [
        f"{run}: added, night of {day(number)}, 6 cells" for number, run in enumerate(runs)
    ]
    again = call("track", "add", runs[0], made, "--night", day(0), "--db", db)
    assert again.code == 0
    assert "already there, nothing changed" in again.out.splitlines()[0]
    assert again.out.splitlines()[1].endswith(f"added, night of {day(0)}, 6 cells")


def test_a_run_whose_machine_was_busy_is_kept_and_not_judged(call: Call, night: Make, db: Path) -> None:
    told = {"machine": {"cpu": "x", "load_warning": "load average 9 on 2 cores"}, "backend": "cpu"}
    added = call("track", "add", night(0, manifest=told), "--db", db)
    assert added.code == 0
    assert "kept, and not judged: load average 9 on 2 cores" in added.err
    found = call("track", "check", "--db", db, "--night", day(0))
    assert found.code == 3
    assert re.search(rf"{day(0)} on testbed \w+ is not judged: load average 9 on 2 cores \[simulated\]", found.out)
    assert "regression" not in found.out


def test_nothing_is_added_where_one_run_is_no_run(call: Call, night: Make, db: Path, tmp_path: Path) -> None:
    added = call("track", "add", night(0), tmp_path / "nowhere", "--db", db)
    assert (added.code, added.errors) == (2, [f"error: {tmp_path / 'nowhere'}: no such run folder"])
    assert not db.exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--night", "yesterday"], "--night yesterday: expected a date such as 2026-01-31"),
        (["--db", "/proc/no/such"], "/proc/no/such: cannot hold a history: name a file in a folder that exists"),
    ],
)
def test_bad_words(call: Call, made: Path, db: Path, words: list[str], error: str) -> None:
    found = call("track", "add", made, "--db", db, *words)
    assert (found.code, found.errors) == (2, [f"error: {error}"])


def test_a_run_without_a_date_asks_for_one(call: Call, night: Make, db: Path) -> None:
    run = night(0, manifest={"created_utc": ""})
    found = call("track", "add", run, "--db", db)
    assert (found.code, found.errors) == (2, [f"error: {run}: its manifest does not say when it was run: give --night"])
    assert call("track", "add", run, "--db", db, "--night", day(0)).code == 0


# --- check ------------------------------------------------------------------------------------------------------------


def test_steady_nights_are_fine(call: Call, steady: Path) -> None:
    found = call("track", "check", "--db", steady, "--night", LAST)
    assert (found.code, found.out) == (0, "6 series: 6 ok\n")


def test_a_slower_engine_is_told_with_its_label_and_its_neighbour_is_not(call: Call, slower: Path) -> None:
    found = call("track", "check", "--db", slower, "--night", LATER, "--json")
    assert found.code == 1
    told = json.loads(found.out)
    assert told["exit_code"] == 1
    bad = [each for each in told["findings"] if each["state"] in ("alert", "open")]
    assert {each["series"].split("/")[0] for each in bad} == {"gpu_only"}
    (rate,) = [each for each in bad if f"/{RATE}@" in each["series"]]
    assert re.search(r"(9|10)\.\d % lower since " + day(NIGHTS), rate["sentence"])
    assert all(each["sentence"].endswith("[simulated]") for each in told["findings"])
    lines = call("track", "check", "--db", slower, "--night", LATER).out.splitlines()
    assert lines[:-1] == [each["sentence"] for each in told["findings"]]


def test_what_was_known_then_is_what_is_said_of_then(call: Call, slower: Path) -> None:
    found = call("track", "check", "--db", slower, "--night", LAST)
    assert (found.code, found.out) == (0, "6 series: 6 ok\n")


def test_a_cell_that_failed_tonight_is_missing_data(call: Call, night: Make, steady: Path) -> None:
    def fail(cell: dict[str, Any]) -> None:
        if cell["engine"] == "gpu_only":
            cell.update(status="failed", error="OutOfMemory: 9.1 GiB wanted", metrics={})

    call("track", "add", night(NIGHTS, cells=fail), "--db", steady)
    found = call("track", "check", "--db", steady, "--night", day(NIGHTS))
    assert found.code == 3
    sentence = (
        f"gpu_only on batch of nightly: repeats 0, 1, 2 of {day(NIGHTS)} gave no figure: "
        "failed: OutOfMemory: 9.1 GiB wanted [simulated]"
    )
    assert found.out.splitlines().count(sentence) == 1


def test_nights_that_do_not_come_are_missing(call: Call, steady: Path) -> None:
    found = call("track", "check", "--db", steady, "--night", day(NIGHTS + 6))
    assert found.code == 3
    assert len([line for line in found.out.splitlines() if "no night for 7 days" in line]) == 2  # once for each engine


def test_a_night_that_was_not_run_because_the_machine_was_unfit(call: Call, steady: Path) -> None:
    with History.opened(steady) as history:
        history.skip(Skipped(day(NIGHTS), "", "81 °C before anything ran"))
    found = call("track", "check", "--db", steady, "--night", day(NIGHTS))
    assert found.code == 3
    assert found.out.count("is not judged: 81 °C before anything ran [simulated]") == 1


def test_a_changed_experiment_begins_anew_and_is_not_missed(call: Call, night: Make, steady: Path, made: Path) -> None:
    config = json.loads((made / "manifest.json").read_text())["config"]
    config["budget"]["max_batch"] = 4
    for number in range(NIGHTS, NIGHTS + 6):
        call("track", "add", night(number, manifest={"config": config}), "--db", steady)
    found = call("track", "check", "--db", steady, "--night", day(NIGHTS + 5))
    assert (found.code, found.out) == (0, "12 series: 6 ok, 6 learning\n")


def test_other_metrics(call: Call, steady: Path) -> None:
    found = call("track", "check", "--db", steady, "--night", LAST, "--metric", "e2e_s_mean")
    assert (found.code, found.out.splitlines()[-1].split(":")[0]) == (0, "2 series")
    unknown = call("track", "check", "--db", steady, "--metric", "speed")
    assert unknown.errors == ["error: --metric speed: there is no such metric; `harness list metrics` has them all"]
    neutral = call("track", "check", "--db", steady, "--metric", "steps")
    assert (neutral.code, len(neutral.errors)) == (2, 1)


def test_without_a_history(call: Call, db: Path) -> None:
    for words in (["check"], ["report"], ["export", "--format", "pytorch-benchmark"]):
        found = call("track", *words, "--db", db)
        assert (found.code, len(found.errors)) == (2, 1)
        assert "no such history" in found.errors[0]
    assert not db.exists()


# --- ack --------------------------------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_not_told_again(call: Call, slower: Path) -> None:
    found = json.loads(call("track", "check", "--db", slower, "--night", LATER, "--json").out)
    for name in {each["series"] for each in found["findings"] if each["state"] in ("alert", "open")}:
        answer = call(
            "track", "ack", name, "--night", day(NIGHTS), "--reason", "smaller  batches\non purpose", "--db", slower
        )
        assert answer.code == 0
        assert f"acknowledged from {day(NIGHTS)} on: smaller batches on purpose" in answer.out
    assert call("track", "check", "--db", slower, "--night", LATER).code == 0


def test_a_reason_is_asked_for(call: Call, slower: Path) -> None:
    name = name_of(call, slower)
    assert call("track", "ack", name, "--night", LATER, "--db", slower).code == 2
    empty = call("track", "ack", name, "--night", LATER, "--reason", "  ", "--db", slower)
    assert (empty.code, len(empty.errors)) == (2, 1)
    assert "--reason: say why" in empty.errors[0]
    early = call("track", "ack", name, "--night", "2000-01-01", "--reason", "r", "--db", slower)
    assert early.errors == [f"error: --night 2000-01-01: {name} begins on {day(0)}"]


def test_series_are_found_by_the_part_before_the_at(call: Call, steady: Path) -> None:
    short = f"gpu_only/batch/{RATE}"
    answer = call("track", "ack", short, "--night", LAST, "--reason", "r", "--db", steady)
    assert answer.code == 0
    assert re.match(rf"{short}@\w{{6}}: acknowledged", answer.out)
    wrong = call("track", "ack", f"gpu_onyl/batch/{RATE}", "--night", LAST, "--reason", "r", "--db", steady)
    assert (wrong.code, len(wrong.errors)) == (2, 1)
    assert f'did you mean "{short}@' in wrong.errors[0]


# --- controls ---------------------------------------------------------------------------------------------------------


def test_a_control_is_no_night_and_gives_ratios(call: Call, night: Make, db: Path) -> None:
    from harness.tracking.loading import load_tracked

    control = night(0, scaled={"gpu_only": 1.02}, name="control", manifest={"command": "again"})
    call("track", "add", night(0), "--db", db)
    call("track", "add", control, "--role", "control", "--db", db)
    with History.opened(db) as history:
        (found,) = [each for each in load_tracked(history, [RATE]) if each.key.engine == "gpu_only"]
    (only,) = found.series.nights
    assert len(only.values) == 3
    assert only.control == pytest.approx([1.02] * 3)


def test_a_copy_is_the_same_night(call: Call, night: Make, db: Path, tmp_path: Path) -> None:
    run = night(0)
    call("track", "add", run, "--db", db)
    assert "already there" in call("track", "add", copy(run, tmp_path / "copy"), "--db", db).out
