"""Names and messages that are meant to break a page: shown as text, kept within its width, and never run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reports.page import write_report
from results.schema import Status
from results.store import RunFolder
from tests.browser.opened import PHONE, opened, served, widths
from tests.results.run_folders import Shape, build

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SCRIPT = "<script>alert(1)</script>"
QUOTES = "\"'`><img src=x onerror=alert(2)><svg/onload=alert(3)>"
TURNED = "apex\u202ednuor yaw gnorw eht\u2066"
LONG = "x" * 10_240


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = Shape(
        engines=(SCRIPT, QUOTES, TURNED, LONG),
        workloads=(f"{SCRIPT}{TURNED}", f"{LONG}y"),
        repeats=2,
        name=f"{SCRIPT}{QUOTES}{TURNED}{LONG}",
        bad={"e0-w1-r0": Status.FAILED, "e3-w0-r0": Status.INVALID, "e3-w0-r1": Status.INVALID},
    )
    path = build(tmp_path_factory.mktemp("hostile"), shape)
    folder = RunFolder.open(path)
    for cell_id, text in (("e0-w1-r0", f"{SCRIPT}{LONG}"), ("e3-w0-r0", f"{QUOTES}{TURNED}\n{LONG}")):
        cell = folder.read_cell_summary(cell_id)
        folder.write_cell_summary(dataclasses.replace(cell, error=text, notes=(text,), unfair=(QUOTES, LONG)))
    return write_report(path)


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_nothing_runs_and_the_page_keeps_its_width(browser: Browser, hostile: Path, width: int) -> None:
    with served(hostile) as address, opened(browser, address, width) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        seen.page.wait_for_load_state("networkidle")
        content, window = widths(seen.page)
        assert content <= window
        assert (seen.dialogs, seen.complaints, seen.requests) == ([], [], [address])
        assert seen.page.locator("script").count() == 1
        assert seen.page.locator("img").count() == 0


def test_names_are_read_as_they_are_written(browser: Browser, hostile: Path) -> None:
    with opened(browser, hostile.as_uri(), PHONE) as seen:
        engines = seen.page.locator("table.figures tbody th").all_text_contents()
        assert any(SCRIPT in name for name in engines)
        assert any(QUOTES in name for name in engines)
        assert SCRIPT in seen.page.locator("h1").inner_text()
        assert max(map(len, engines)) < 200
        assert SCRIPT in seen.page.locator("#problems").inner_text()


def test_no_name_turns_the_text_around_it(browser: Browser, hostile: Path) -> None:
    with opened(browser, hostile.as_uri()) as seen:
        text = seen.page.locator("body").inner_text()
        assert "apex⟨U+202E⟩dnuor yaw gnorw eht⟨U+2066⟩" in text
        assert not set(text) & set("\u202e\u2066")
