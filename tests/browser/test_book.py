"""Every page of the built book as a reader meets it: on a screen, on a phone, from a server and from a folder."""

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
def test_page_loads_whole_and_fits(visit: Visit, name: str, width: int) -> None:
    page = visit.open(f"{name}.html")
    assert page.locator("article h1").first.is_visible()
    assert page.evaluate("document.fonts.ready.then(() => true)")
    broken = page.evaluate(
        "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src.slice(0, 200))"
    )
    assert broken == []
    nameless = page.evaluate("[...document.querySelectorAll('article img')].filter(i => !i.alt.trim()).length")
    assert nameless == 0
    excess = "document.scrollingElement.scrollWidth - window.innerWidth"
    with suppress(TimeoutError):  # the side bars may still be sliding away
        page.wait_for_function(f"{excess} <= 0", timeout=2000)
    wide = page.evaluate(excess)
    assert wide <= 0, f"{name} scrolls sideways by {wide} pixels at {width}"
    if width == WIDTHS[0]:
        assert page.evaluate(CUT) == [], "tables and code are read without scrolling sideways"
    assert visit.trouble == []


@pytest.mark.parametrize("base", ["file"], indirect=True)
@pytest.mark.parametrize("name", toc_pages())
def test_page_violates_no_rule_of_wcag_2_a_and_aa(visit: Visit, name: str) -> None:
    """Checked by axe-core; on a dark screen only colours differ."""
    page = visit.open(f"{name}.html")
    for scheme, only in (("light", ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]), ("dark", ["color-contrast"])):
        page.emulate_media(color_scheme=scheme)
        page.reload(wait_until="load")
        page.add_script_tag(path=AXE)
        found = page.evaluate("only => axe.run({runOnly: only, resultTypes: ['violations']})", only)
        assert {v["id"]: [node["html"][:200] for node in v["nodes"][:3]] for v in found["violations"]} == {}, scheme


def test_the_site_is_small() -> None:
    sizes = {path: path.stat().st_size for path in BOOK.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 23e6  # half of what it was with MathJax and every figure twice
    assert max(size for path, size in sizes.items() if path.suffix == ".html") < 1e6


def test_search_finds_forgotten(visit: Visit) -> None:
    page = visit.open("search.html?q=forgotten")
    page.wait_for_selector("#search-results ul.search li a")
    found = page.locator("#search-results ul.search li a").all_inner_texts()
    assert "Glossary" in found, found


@pytest.mark.parametrize("base", ["http"], indirect=True)
def test_search_field_of_a_page_leads_to_results(visit: Visit) -> None:
    page = visit.open("book/glossary.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("forgotten")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results ul.search li a")
    assert visit.trouble == []


@pytest.mark.parametrize("base", ["http"], indirect=True)
def test_dark_theme_keeps_words_readable(visit: Visit) -> None:
    """Body text against its ground, by the contrast ratio of WCAG 2 (4.5 or more)."""
    page = visit.open("book/glossary.html")
    page.emulate_media(color_scheme="dark")
    page.reload(wait_until="load")
    ratio = page.evaluate(
        """() => {
          const level = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 };
          const light = s => { const [r, g, b] = s.match(/[0-9.]+/g).map(Number);
            return 0.2126 * level(r) + 0.7152 * level(g) + 0.0722 * level(b) };
          const ink = light(getComputedStyle(document.querySelector('article p')).color);
          const paper = light(getComputedStyle(document.body).backgroundColor);
          return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        }"""
    )
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert ratio >= 4.5
