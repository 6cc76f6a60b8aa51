"""The pages of the book, and a window that keeps everything that goes wrong in it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from playwright.sync_api import Page

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

    def __post_init__(self) -> None:
        note, on = self.trouble.append, self.page.on
        inside = (self.base, "data:", "blob:")
        on("request", lambda r: r.url.startswith(inside) or note(f"outside request: {r.url[:200]}"))
        on("requestfailed", lambda request: note(f"failed: {request.url[:200]}"))
        on("response", lambda r: r.status < 400 or note(f"status {r.status}: {r.url[:200]}"))
        on("console", lambda message: message.type != "error" or note(f"console: {message.text[:300]}"))
        on("pageerror", lambda error: note(f"script error: {error}"))

    def open(self, name: str) -> Page:
        self.page.goto(f"{self.base}/{name}", wait_until="load")
        self.page.wait_for_load_state("networkidle")
        return self.page
