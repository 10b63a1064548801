"""Opened where nothing may be fetched and nothing foreign may run: the page asks for nothing and complains not once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.opened import opened, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SCRIPT_RAN = "document.querySelectorAll('table.sortable thead button').length"


def test_under_a_strict_policy_the_page_is_whole_and_silent(browser: Browser, report: Path) -> None:
    with served(report) as address, opened(browser, address) as seen:
        seen.page.wait_for_load_state("networkidle")
        assert seen.requests == [address]
        assert seen.complaints == []
        assert seen.page.evaluate(SCRIPT_RAN) > 0
        paper = seen.page.evaluate("getComputedStyle(document.querySelector('table.sortable')).borderCollapse")
        assert paper == "collapse", "the style sheet did not apply"


def test_from_a_file_it_is_as_silent(browser: Browser, report: Path) -> None:
    with opened(browser, report.as_uri()) as seen:
        assert (seen.requests, seen.complaints) == ([report.as_uri()], [])
        assert seen.page.evaluate(SCRIPT_RAN) > 0


def test_a_complaint_would_be_heard(browser: Browser, report: Path, tmp_path: Path) -> None:
    """The page's own policy refuses what slipped through the escaping, and the ears of these tests hear of it."""
    page = report.read_text(encoding="utf-8").replace("</main>", "<img src='/x.png'><script>alert(1)</script></main>")
    altered = tmp_path / "altered.html"
    altered.write_text(page, encoding="utf-8")
    with served(altered) as address, opened(browser, address) as seen:
        assert any("script-src" in complaint for complaint in seen.complaints)
        assert any("img-src" in complaint for complaint in seen.complaints)
        assert seen.dialogs == []
