"""The pages of the book, and a window that keeps everything that goes wrong in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from playwright.sync_api import ConsoleMessage, Page, Request, Response

ROOT = Path(__file__).resolve().parents[2]
BOOK = Path(os.environ.get("SOI_BOOK", ROOT / "_build" / "html"))
WIDTHS = (1280, 390)


def toc_pages() -> list[str]:
    """Return the pages in the order of the table of contents, without suffix: `book/index`, `book/paper`, ..."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


@dataclass
class Visit:
    """An open page and everything that went wrong in it."""

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
