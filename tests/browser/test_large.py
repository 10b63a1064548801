"""A hundred thousand requests: the page has the slowest of them, stays small, and opens. How fast is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reports.page import write_report
from tests.browser.opened import opened
from tests.browser.shown import numbers
from tests.results.run_folders import Shape, build

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REQUESTS = 50_000  # of each of two engines
LARGEST_BYTES = 8_000_000

OPENED = """
new Promise(resolve => {
  const told = () => {
    const [loading] = performance.getEntriesByType("navigation");
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    if (loading.loadEventEnd && paint) resolve([loading.loadEventEnd, paint.startTime]);
    else requestAnimationFrame(told);
  };
  told();
})
"""


def test_it_stays_small_opens_and_lists_the_slowest(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = Shape(engines=("gpu_only", "apex"), workloads=("chat",), repeats=1, requests=REQUESTS, tokens=4, steps=2000)
    report = write_report(build(tmp_path, shape))
    size = report.stat().st_size
    assert size < LARGEST_BYTES
    with opened(browser, report.as_uri()) as seen:
        loaded_ms, painted_ms = seen.page.evaluate(OPENED)
        said = f"{size / 1e6:.2f} MB, load event after {loaded_ms:.0f} ms, first paint after {painted_ms:.0f} ms"
        with capsys.disabled():
            print(f"\n{2 * REQUESTS:,} requests: {said}")
        rows = seen.page.locator("table.sortable tbody tr")
        told = seen.page.locator("#requests > .aside").inner_text()
        assert f"{rows.count()} of {2 * REQUESTS:,} requests" in told
        shown = [numbers(row.split("\t")[9], "ms")[0] for row in rows.all_inner_texts() if "finished" in row]
        assert any(each.is_rounded_from(_slowest_s(report)) for each in shown)


def _slowest_s(report: Path) -> float:
    tables = [pq.read_table(path) for path in report.parent.glob("cells/*/requests.parquet")]
    return max(float(pc.max(pc.subtract(table["last_token_s"], table["arrival_s"])).as_py()) for table in tables)
