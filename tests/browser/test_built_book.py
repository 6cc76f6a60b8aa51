"""The HTML of the built book: no errors, described pictures, downloadable values, valid links."""

from __future__ import annotations

import functools
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from bs4 import BeautifulSoup
from reading import toc_pages

pytestmark = pytest.mark.browser


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
