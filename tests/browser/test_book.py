"""The built book: every page at two widths, from a server and from a folder; its HTML, its links and the PDF."""

import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urldefrag

import axe_playwright_python
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import TimeoutError
from reading import BOOK, WIDTHS, Visit, toc_pages

from paper.build import STAGE
from paper.pdf import write_pdf
from soi_lib.errors import SoiError

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


@pytest.fixture(scope="module")
def soups(book: Path) -> dict[str, BeautifulSoup]:
    return {
        name: BeautifulSoup((book / f"{name}.html").read_text(encoding="utf-8"), "html.parser") for name in toc_pages()
    }


def test_every_page_has_text_no_errors_and_described_pictures(soups: dict[str, BeautifulSoup]) -> None:
    for name, soup in soups.items():
        article = soup.find("article")
        assert article is not None, name
        assert len(article.find_all("h1")) == 1, name
        assert len(article.get_text()) > 200, f"{name} is nearly empty"
        assert soup.select("div.output.traceback, div.output.stderr, .system-message") == [], name
        for image in article.find_all("img"):
            alt = (image.get("alt") or "").strip()
            assert len(alt) > 10, f"{name}: a picture without a description: {str(image)[:120]}"
            assert not alt.startswith(("../", "_images/")), f"{name}: a file name as description: {alt}"
        for figure in article.select("figure.soi-figure"):
            assert len(figure.find("figcaption").get_text(strip=True)) > 20, name


def test_every_computed_figure_offers_its_values(soups: dict[str, BeautifulSoup]) -> None:
    computed = [figure for soup in soups.values() for figure in soup.select("article figure[class*=soi]")]
    assert len(computed) > 100
    assert [str(one)[:200] for one in computed if not one.select(".soi-origin a[href$='.csv']")] == []


def test_every_link_inside_the_book_is_valid(book: Path, soups: dict[str, BeautifulSoup]) -> None:
    @functools.cache
    def anchors(page: Path) -> set[str]:
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        return {str(element["id"]) for element in soup.find_all(id=True)}

    broken = []
    for name, soup in soups.items():
        here = book / f"{name}.html"
        for link in soup.select("article a[href]"):
            path, fragment = urldefrag(str(link["href"]))
            if path.startswith(("http:", "https:", "mailto:", "data:")):
                continue
            target = (here.parent / unquote(path)).resolve() if path else here
            found = target.is_file()
            if found and fragment and target.suffix == ".html":
                found = unquote(fragment) in anchors(target)
            if not found:
                broken.append(f"{name} -> {link['href']}")
    assert broken == []


def test_a_book_is_printed_whole(tmp_path: Path) -> None:
    with pytest.raises(SoiError, match="no book here to print"):
        write_pdf(tmp_path, quiet=True)
    staged = tmp_path / STAGE
    (staged / "book").mkdir(parents=True)
    (staged / "_config.yml").write_text("title: t\nexecute: {execute_notebooks: 'off'}\nonly_build_toc_files: true\n")
    (staged / "_toc.yml").write_text("format: jb-book\nroot: book/one\nchapters:\n- file: book/two\n")
    (staged / "book" / "one.md").write_text("# First page\n\n[on](two)\n")
    (staged / "book" / "two.md").write_text("# Second page\n")
    with ThreadPoolExecutor(1) as own:  # the other tests' browser has its event loop in this thread
        body = own.submit(write_pdf, tmp_path, quiet=True).result().read_bytes()
    assert body.startswith(b"%PDF")
    assert b"/Outlines" in body
    assert b"file://" not in body  # links between pages stay in the file
