"""The command line and the experiment to spoil, as the tests of the harness have them; and a profile by formula."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.profile_file import save_profile
from tests.harness.conftest import call, write
from tests.profile import laws

__all__ = ["call", "write"]


@pytest.fixture
def profile_file(tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    save_profile(path, laws.made_profile())
    return path
