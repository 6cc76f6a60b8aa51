"""Debian's Chromium on the book in _build/html, read as a web site and as files on disk.

The browser has no network of its own here: anything a page asks of another host fails the test that opened it.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
BOOK = Path(os.environ.get("SOI_BOOK", ROOT / "_build" / "html"))
WIDTHS = (1280, 390)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def toc_pages() -> list[str]:
    """The pages of the table of contents in its order, without suffix: `book/index`, `book/paper`, ..."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


@dataclass
class Visit:
    """A page that was opened, and everything that went wrong while it was."""

    page: Page
    base: str
    trouble: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("request", self._on_request)
        self.page.on("requestfailed", lambda request: self.trouble.append(f"failed: {request.url[:200]}"))
        self.page.on("response", self._on_response)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.trouble.append(f"script error: {error}"))

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.trouble.append(f"outside request: {request.url[:200]}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.trouble.append(f"status {response.status}: {response.url[:200]}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.trouble.append(f"console: {message.text[:300]}")

    def open(self, name: str) -> Page:
        self.page.goto(f"{self.base}/{name}", wait_until="load")
        self.page.wait_for_load_state("networkidle")
        return self.page


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: the requests are watched from the browser's side."""


@pytest.fixture(scope="session")
def book() -> Path:
    """The built book; without one there is nothing to test, and that is a failure."""
    if not (BOOK / "index.html").is_file():
        pytest.fail(f"{BOOK}: no book. Next: make book", pytrace=False)
    return BOOK


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("Chromium is not installed. Next: apt-get install chromium", pytrace=False)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def served(book: Path) -> Iterator[str]:
    """The address of the book on this machine's own loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(book))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=["http", "file"])
def base(request: pytest.FixtureRequest, book: Path, served: str) -> str:
    return served if request.param == "http" else book.as_uri()


@pytest.fixture
def visit(chromium: Browser, base: str, width: int) -> Iterator[Visit]:
    """A fresh window, `width` pixels wide (1280 unless a test says otherwise), that keeps what goes wrong."""
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme="light")
    visit = Visit(context.new_page(), base)
    visit.watch()
    yield visit
    context.close()


@pytest.fixture
def width() -> int:
    return WIDTHS[0]
