"""Without script, and on paper: the same tables and figures, and nothing cut off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.opened import opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

A4_PX = 718  # between margins of 10 mm, at 96 to the inch


def test_without_script_all_is_there(browser: Browser, report: Path) -> None:
    with (
        opened(browser, report.as_uri()) as scripted,
        opened(browser, report.as_uri(), java_script_enabled=False) as plain,
    ):
        assert plain.page.locator("table.sortable thead button").count() == 0
        for what in ("table", "tbody tr", "svg[role=img]", "section", "details"):
            assert plain.page.locator(what).count() == scripted.page.locator(what).count() > 0
        for drawing in plain.page.locator("svg[role=img]").all():
            box = drawing.bounding_box()
            assert box is not None
            assert box["height"] > 10
        details = plain.page.locator("details summary").first
        details.click()
        assert plain.page.locator("details[open]").count() == 1


def test_on_paper_nothing_is_cut_off(browser: Browser, report: Path) -> None:
    with opened(browser, report.as_uri(), A4_PX) as seen:
        seen.page.emulate_media(media="print")
        wide = seen.page.locator("main table").evaluate_all(
            "all => all.filter(each => each.checkVisibility())"
            ".filter(each => each.getBoundingClientRect().right > document.body.getBoundingClientRect().right + 1)"
            ".map(each => each.className)"
        )
        assert wide == []
        low = seen.page.locator(".scroll.tall").evaluate_all(
            "all => all.filter(e => e.scrollHeight > e.clientHeight + 1).length"
        )
        assert low == 0
        assert seen.page.locator(".filter").is_hidden()
        assert seen.page.pdf(format="A4").startswith(b"%PDF")
