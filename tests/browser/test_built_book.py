"""What every page of the built book holds, read as HTML: whole, described, offline, linked.

`make book` rendered it with warnings as errors. What a browser makes of it is tested beside this.
"""

from __future__ import annotations

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


def test_every_page_is_whole_described_and_offline(soups: dict[str, BeautifulSoup]) -> None:
    """A title and text, no error, words for every picture, a caption for every figure, nothing from another host."""
    loads = [("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")]
    for name, soup in soups.items():
        article = soup.find("article")
        assert article is not None, name
        assert len(article.find_all("h1")) == 1, name
        assert len(article.get_text()) > 200, f"{name} is nearly empty"
        assert soup.select("div.output.traceback, div.output.stderr, .system-message") == [], name
        for image in article.find_all("img"):
            alt = (image.get("alt") or "").strip()
            assert len(alt) > 10, f"{name}: a picture without a description: {str(image)[:120]}"
            assert not alt.startswith(("../", "_images/")), f"{name}: a file name is no description: {alt}"
        for figure in article.select("figure.soi-figure"):
            assert len(figure.find("figcaption").get_text(strip=True)) > 20, name
        for tag, attribute in loads:
            for element in soup.find_all(tag, attrs={attribute: True}):
                url = element[attribute]
                assert not url.startswith(("http:", "https:", "//")), f"{name} loads {url}"


def test_every_figure_and_table_of_a_run_offers_its_values(soups: dict[str, BeautifulSoup]) -> None:
    figures = [(name, figure) for name, soup in soups.items() for figure in soup.select("article figure")]
    computed = [(name, figure) for name, figure in figures if "soi" in " ".join(figure.get("class", []))]
    assert len(computed) > 100
    assert [str(one)[:200] for _, one in computed if not one.select(".soi-origin a[href$='.csv']")] == []


def test_every_link_inside_the_book_arrives(book: Path, soups: dict[str, BeautifulSoup]) -> None:
    anchors: dict[Path, set[str]] = {}

    def names(page: Path) -> set[str]:
        if page not in anchors:
            soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
            anchors[page] = {str(element["id"]) for element in soup.find_all(id=True)}
        return anchors[page]

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
                found = unquote(fragment) in names(target)
            if not found:
                broken.append(f"{name} -> {link['href']}")
    assert broken == []
