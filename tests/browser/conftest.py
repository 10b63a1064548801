"""A real browser to open reports in. Without one tests are skipped; with HARNESS_BROWSER=required they fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.runs import simulated, troubled

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW = "`make browser` installs playwright; Chromium is a package of the system, or `playwright install chromium`"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _absent("playwright is not installed")
    with sync_playwright() as playwright:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None) or playwright.chromium.executable_path
        if not Path(program).exists():
            _absent("no Chromium was found")
        # Root, as in a container, has no sandbox; what is opened here is our own page.
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def _absent(what: str) -> None:
    if os.environ.get("HARNESS_BROWSER") == "required":
        pytest.fail(f"{what}: {HOW}")
    pytest.skip(f"{what}: {HOW}")


@pytest.fixture(scope="session")
def whole_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def troubled_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return troubled(tmp_path_factory.mktemp("troubled"))


@pytest.fixture(scope="session", params=["whole", "troubled"])
def report(request: pytest.FixtureRequest) -> Path:
    """Either of them."""
    found: Path = request.getfixturevalue(f"{request.param}_report")
    return found
