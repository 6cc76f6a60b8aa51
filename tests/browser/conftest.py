"""Debian's Chromium on the book in _build/html, read as a web site and as files on disk.

A request to another host fails the test that opened the page.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from fake_hub import serving
from playwright.sync_api import Browser, sync_playwright
from reading import BOOK, WIDTHS, Visit

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing: the browser side watches the requests."""


@pytest.fixture(scope="session")
def book() -> Path:
    """The built book; the tests fail without one."""
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
    with serving(partial(_Quiet, directory=str(book))) as address:
        yield address


@pytest.fixture(params=["http", "file"])
def base(request: pytest.FixtureRequest, book: Path, served: str) -> str:
    return served if request.param == "http" else book.as_uri()


@pytest.fixture
def visit(chromium: Browser, base: str, width: int) -> Iterator[Visit]:
    """A new window, `width` pixels wide, that keeps everything that goes wrong."""
    # without motion: while a button fades to another colour scheme its contrast is too low
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    yield Visit(context.new_page(), base)
    context.close()


@pytest.fixture
def width() -> int:
    return WIDTHS[0]
