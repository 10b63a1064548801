"""For everybody: axe-core finds nothing serious, light or dark, wide or narrow, and a keyboard reaches all of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.opened import DESKTOP, PHONE, opened, widths

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SERIOUS = {"serious", "critical"}
CONTROLS = "a[href], button, input, summary, [tabindex='0']"
OUTLINED = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_axe_finds_nothing_serious(browser: Browser, report: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="`make browser` installs axe").Axe()
    with opened(browser, report.as_uri(), width, color_scheme=scheme, bypass_csp=True) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        found: list[dict[str, Any]] = axe.run(seen.page).response["violations"]
        serious = [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in SERIOUS]
        assert serious == []
        content, window = widths(seen.page)
        assert content <= window


def test_every_control_is_reached_by_the_tab_key_and_shows_it(browser: Browser, report: Path) -> None:
    with opened(browser, report.as_uri()) as seen:
        wanted = seen.page.locator(CONTROLS).evaluate_all(
            "all => all.filter(each => each.checkVisibility()).map((each, at) => each.dataset.stop = String(at))"
        )
        assert len(wanted) > 20
        reached = []
        for _ in range(2 * len(wanted)):
            seen.page.keyboard.press("Tab")
            stop = seen.page.evaluate("document.activeElement.dataset.stop")
            if stop is None:
                break
            assert seen.page.evaluate(OUTLINED), seen.page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
            reached.append(stop)
        assert set(reached) == set(wanted)


def test_requests_are_sorted_filtered_and_read_by_keyboard(browser: Browser, whole_report: Path) -> None:
    with opened(browser, whole_report.as_uri()) as seen:
        page = seen.page
        page.locator("table.sortable thead button").nth(4).focus()
        for direction, order in (("ascending", 1), ("descending", -1)):
            page.keyboard.press("Enter")
            assert page.locator("table.sortable thead th").nth(4).get_attribute("aria-sort") == direction
            values = [order * value for value in _column(page, 4)]
            assert len(set(values)) > 1
            assert values == sorted(values)
        page.locator(".filter input").focus()
        page.keyboard.type("APEX")
        shown = page.locator("table.sortable tbody tr:visible")
        assert 0 < shown.count() < page.locator("table.sortable tbody tr").count()
        assert all("apex" in text for text in shown.all_inner_texts())
        shown.first.focus()
        first = page.locator(".readout").inner_text()
        page.keyboard.press("ArrowDown")
        second = page.locator(".readout").inner_text()
        assert first != second
        assert f"Request {shown.nth(1).locator('td').nth(3).inner_text()}" in second


def _column(page: Page, place: int) -> list[float]:
    texts = page.locator(f"table.sortable tbody tr td:nth-child({place + 1})").all_inner_texts()
    return [float(text.replace(",", "")) for text in texts]
