"""The book as `jupyter-book build .` renders it from what is committed: strictly, offline, described, linked.

Reads HTML only; what a browser makes of it is tested in tests/browser.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import typer
import yaml
from bs4 import BeautifulSoup

from soi_lib.cli import app

ROOT = Path(__file__).resolve().parents[2]


def toc_pages() -> list[str]:
    """The pages of the table of contents in its order, without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


PAGES = [page for page in toc_pages() if not page.startswith("reproduced/")]  # `make book` makes those


def notebook_hashes() -> dict[str, str]:
    """The bytes of every committed notebook, to show that rendering writes none of them."""
    found = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/*.ipynb")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pages, built once, with warnings as errors; no committed notebook may change by it."""
    out = tmp_path_factory.mktemp("book")
    before = notebook_hashes()
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", out]
    done = subprocess.run([*command, "-n", "-W", "--keep-going", "--all"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert notebook_hashes() == before
    return out / "_build" / "html"


@pytest.fixture(scope="module")
def soups(html: Path) -> dict[str, BeautifulSoup]:
    return {name: BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser") for name in PAGES}


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


def test_every_source_page_is_in_the_contents() -> None:
    sources = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for folder in ("book", "notebooks")
        for path in (ROOT / folder).glob("*")
        if path.suffix in (".md", ".ipynb")
    }
    assert sources == set(PAGES)


def test_every_figure_and_table_of_a_run_offers_its_values(soups: dict[str, BeautifulSoup]) -> None:
    figures = [(name, figure) for name, soup in soups.items() for figure in soup.select("article figure")]
    computed = [(name, figure) for name, figure in figures if "soi" in " ".join(figure.get("class", []))]
    assert len(computed) > 100
    assert [str(one)[:200] for _, one in computed if not one.select(".soi-origin a[href$='.csv']")] == []


def test_every_link_inside_the_book_arrives(html: Path, soups: dict[str, BeautifulSoup]) -> None:
    anchors: dict[Path, set[str]] = {}

    def names(page: Path) -> set[str]:
        if page not in anchors:
            soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
            anchors[page] = {str(element["id"]) for element in soup.find_all(id=True)}
        return anchors[page]

    broken = []
    for name, soup in soups.items():
        here = html / f"{name}.html"
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


def test_command_line_page_explains_every_command_and_option(soups: dict[str, BeautifulSoup]) -> None:
    commands = {name: c for name, c in typer.main.get_command(app).commands.items() if not c.hidden}
    page = soups["book/cli"]
    assert len(commands) >= 9
    for name, command in commands.items():
        heading = [h2 for h2 in page.find_all("h2") if h2.get_text().startswith(f"soi {name}")]
        assert len(heading) == 1, name
        section = heading[0].find_parent("section").get_text()
        for option in (flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")):
            assert option in section, f"soi {name} {option}"
