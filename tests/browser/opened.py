"""A report opened as a reader would open it, and all that the browser had to say about it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

# What a careful host sends with a page of others: nothing from anywhere, but what is in the page.
STRICT = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
PHONE, DESKTOP = 390, 1280
# How long a page may take is not what is tested; a machine may be busy.
PATIENCE_MS = 500_000


@dataclass(slots=True)
class Opened:
    """The page, what it asked the network for, and what it complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@contextmanager
def opened(browser: Browser, address: str, width: int = DESKTOP, **context: Any) -> Iterator[Opened]:
    """At `address`; violations of a policy are console errors, and are told as events besides."""
    with browser.new_context(viewport={"width": width, "height": 900}, **context) as reader:
        seen = Opened(reader.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("console", lambda said: seen.complaints.append(f"{said.type}: {said.text}"))
        seen.page.on("dialog", lambda dialog: seen.dismiss(dialog))  # a bound method would have to take attributes
        seen.page.set_default_timeout(PATIENCE_MS)
        seen.page.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            "  event => console.error(`violates ${event.violatedDirective}: ${event.blockedURI}`))"
        )
        seen.page.goto(address, wait_until="load")
        yield seen


@contextmanager
def served(report: Path, policy: str = STRICT) -> Iterator[str]:
    """The report at a loopback address, with this content policy; everything else is not found."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = report.read_bytes() if self.path == "/report.html" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", policy)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/report.html"
        finally:
            server.shutdown()
            thread.join()


def widths(page: Page) -> tuple[int, int]:
    """Of the page's content and of the window: where the first is larger, the page scrolls sideways."""
    content, window = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return content, window
