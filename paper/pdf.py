"""Print the whole book as one PDF: Chromium prints all pages from one HTML file with the book's print style."""

from __future__ import annotations

import shutil
from pathlib import Path

from paper.build import STAGE, run_jupyter_book, toc_files
from paper.page import FIGURES
from soi_lib.errors import SoiError
from soi_lib.files import replacing, write_text

_FOOTER = """<div style="font: 8px sans-serif; width: 100%; text-align: center; color: #5f6368">
<span class="pageNumber"></span></div>"""


def write_pdf(root: Path, *, quiet: bool) -> Path:
    """Print the staged book to `_build/book.pdf`, with an outline and page numbers; return its path.

    Raises SoiError if the book has not been made or Chromium is not installed.
    """
    if not (root / STAGE / "_toc.yml").is_file():
        raise SoiError("there is no book here to print", where=root / STAGE, hint="run `make book` first")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SoiError("Chromium, which prints the book, is not installed", hint="apt-get install chromium")
    from playwright.sync_api import sync_playwright

    folder, first = run_jupyter_book(root, "singlehtml", quiet=quiet), f"{toc_files(root / STAGE)[0]}.html"
    markup = (folder / first).read_text(encoding="utf-8")
    # Sphinx writes the file into a subfolder, with links relative to its parent; links within the book become anchors.
    markup = markup.replace(f'href="{first}#', 'href="#').replace(f'"../{FIGURES}', f'"{FIGURES}')
    write_text(folder / "book.html", markup)
    target = root / "_build" / "book.pdf"
    with sync_playwright() as driver, replacing(target) as made:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(color_scheme="light")
        page.goto((folder / "book.html").as_uri(), wait_until="load", timeout=300_000)
        page.pdf(
            path=made,
            format="A4",
            margin={"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=_FOOTER,
            print_background=True,
            outline=True,
            tagged=True,
        )
        browser.close()
    return target
