"""The file: read as it was written, refused in one line where it is none, another version's, or another model's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.model.config import load_config
from harness.errors import ConfigError
from harness.profile_file import SCHEMA_VERSION, digest_of, load_profile, mismatches, save_profile
from tests.profile import laws


def test_read_as_written(profile_file: Path) -> None:
    assert load_profile(profile_file) == laws.made_profile()
    raw = json.loads(profile_file.read_text())
    assert (raw["schema_version"], raw["label"], raw["setting"]["backend"]) == (SCHEMA_VERSION, "measured", "cpu")
    assert [path.name for path in profile_file.parent.iterdir()] == [profile_file.name], "nothing half-written is left"


def test_two_tables_of_one_file_are_two_objects(profile_file: Path) -> None:
    profile = load_profile(profile_file)
    assert profile.table() is not profile.table()
    assert profile.table().linear_s(17) == profile.table().linear_s(17) > 0


def test_the_digest_follows_the_contents(profile_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(profile_file.read_bytes())
    assert digest_of(other) == digest_of(profile_file)
    save_profile(other, laws.made_profile(accel_cores=2))
    assert digest_of(other) != digest_of(profile_file)


def change_point(raw: dict[str, Any]) -> None:
    raw["points"]["between"][3]["median_s"] = -1.0


def twice(raw: dict[str, Any]) -> None:
    raw["points"]["decode_attention"].append(raw["points"]["decode_attention"][0])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: raw.update(schema_version=1), "version 1, this harness reads 2; profile again"),
        (lambda raw: raw.pop("schema_version"), "version None"),
        (lambda raw: raw.update(kind="a diary"), "no profile"),
        (lambda raw: raw.pop("overhead"), "overhead"),
        (lambda raw: raw["points"].update(between=[]), "points.between"),
        (lambda raw: raw["points"].update(surprise=1), "surprise"),
        (lambda raw: raw["setting"].update(dtype="float8"), "setting.dtype"),
        (change_point, "points.between.3.median_s"),
        (twice, "decode_attention holds a point twice"),
    ],
)
def test_refused_in_one_line(profile_file: Path, spoil: Callable[[dict[str, Any]], object], said: str) -> None:
    raw = json.loads(profile_file.read_text())
    spoil(raw)
    profile_file.write_text(json.dumps(raw))
    with pytest.raises(ConfigError) as refused:
        load_profile(profile_file)
    [line] = refused.value.problems
    assert str(profile_file) in line
    assert said in line


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\x00\xff"])
def test_what_is_no_profile_at_all(profile_file: Path, text: str) -> None:
    profile_file.write_text(text)
    with pytest.raises(ConfigError, match=r"profile\.json"):
        load_profile(profile_file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_profile(tmp_path / "nothing.json")


def test_other_models_dtypes_and_pages() -> None:
    profile = laws.made_profile()
    assert [*mismatches(profile, load_config("tiny-1m"), "float32", 16)] == []
    [model] = mismatches(profile, load_config("tiny-30m"), "float32", 16)
    assert "tiny-1m" in model
    assert "hidden_size" in model
    [dtype] = mismatches(profile, load_config("tiny-1m"), "bfloat16", 16)
    assert "--dtype bfloat16" in dtype
    [pages] = mismatches(profile, load_config("tiny-1m"), "float32", 32)
    assert "--page-tokens 32" in pages
