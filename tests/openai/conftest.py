"""The command line and the experiment to spoil, as the tests of the harness have them; a tokenizer, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.conftest import call, write
from tests.openai.tokenizer_folder import make_tokenizer

__all__ = ["call", "write"]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def _no_key_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
