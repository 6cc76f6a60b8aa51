"""Every page of the built book: on a screen, on a phone, from a server and from a folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import TimeoutError
from reading import BOOK, WIDTHS, Visit, toc_pages

pytestmark = pytest.mark.browser
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
CUT = """[...document.querySelectorAll('article table, article pre')].map(e => e.closest('figure') || e.parentElement)
  .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.trim().slice(0, 60))"""


@pytest.mark.parametrize("name", toc_pages())
@pytest.mark.parametrize("width", WIDTHS)
def test_page_loads_completely_and_fits(visit: Visit, name: str, width: int) -> None:
    page = visit.open(f"{name}.html")
    assert page.locator("article h1").first.is_visible()
    assert page.evaluate("document.fonts.ready.then(() => true)")
    broken = page.evaluate(
        "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src.slice(0, 200))"
    )
    assert broken == []
    excess = "document.scrollingElement.scrollWidth - window.innerWidth"
    with suppress(TimeoutError):  # the side bars may still be sliding away
        page.wait_for_function(f"{excess} <= 0", timeout=2000)
    wide = page.evaluate(excess)
    assert wide <= 0, f"{name} scrolls sideways by {wide} pixels at {width}"
    if width == WIDTHS[0]:
        assert page.evaluate(CUT) == [], "tables or code need scrolling sideways"
    assert visit.trouble == []


@pytest.mark.parametrize("base", ["file"], indirect=True)
@pytest.mark.parametrize("name", toc_pages())
def test_page_meets_wcag_2_a_and_aa(visit: Visit, name: str) -> None:
    """Checked by axe-core; in dark mode only colours differ."""
    page = visit.open(f"{name}.html")
    for scheme, only in (("light", ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]), ("dark", ["color-contrast"])):
        page.emulate_media(color_scheme=scheme)
        page.reload(wait_until="load")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        page.add_script_tag(path=AXE)
        found = page.evaluate("only => axe.run({runOnly: only, resultTypes: ['violations']})", only)
        assert {v["id"]: [node["html"][:200] for node in v["nodes"][:3]] for v in found["violations"]} == {}, scheme


def test_the_site_is_small() -> None:
    sizes = {path: path.stat().st_size for path in BOOK.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 23e6
    assert max(size for path, size in sizes.items() if path.suffix == ".html") < 1e6


def test_search_finds_forgotten(visit: Visit) -> None:
    page = visit.open("search.html?q=forgotten")
    page.wait_for_selector("#search-results ul.search li a")
    found = page.locator("#search-results ul.search li a").all_inner_texts()
    assert "Glossary" in found, found


@pytest.mark.parametrize("base", ["http"], indirect=True)
def test_search_field_of_a_page_shows_results(visit: Visit) -> None:
    page = visit.open("book/glossary.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("forgotten")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results ul.search li a")
    assert visit.trouble == []
