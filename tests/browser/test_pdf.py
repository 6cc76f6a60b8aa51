"""`make pdf`, on a book of two pages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paper.build import STAGE
from paper.pdf import write_pdf
from soi_lib.errors import SoiError

pytestmark = pytest.mark.browser


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
