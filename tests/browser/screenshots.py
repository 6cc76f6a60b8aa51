"""Pictures of every page at two widths, for looking at (`make screenshots`); not collected by a plain test run."""

from __future__ import annotations

import pytest
from reading import ROOT, WIDTHS, Visit, toc_pages

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("base", ["file"], indirect=True)
def test_picture_for_the_readme(visit: Visit) -> None:
    page = visit.open(f"{toc_pages()[0]}.html")
    folder = ROOT / "_build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / "readme.png")


@pytest.mark.parametrize("base", ["file"], indirect=True)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", toc_pages())
def test_screenshot(visit: Visit, name: str, width: int) -> None:
    page = visit.open(f"{name}.html")
    folder = ROOT / "_build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name.replace('/', '-')}-{width}.png"
    page.screenshot(path=target, full_page=True)
    assert target.stat().st_size > 0
