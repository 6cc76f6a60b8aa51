"""Screenshots of every page at two widths (`make screenshots`); a plain test run does not collect them."""

import pytest
from reading import ROOT, WIDTHS, Visit, toc_pages

pytestmark = pytest.mark.browser
FOLDER = ROOT / "_build" / "screenshots"


@pytest.mark.parametrize("base", ["file"], indirect=True)
def test_picture_for_the_readme(visit: Visit) -> None:
    visit.open(f"{toc_pages()[0]}.html").screenshot(path=FOLDER / "readme.png")


@pytest.mark.parametrize("base", ["file"], indirect=True)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", toc_pages())
def test_screenshot(visit: Visit, name: str, width: int) -> None:
    visit.open(f"{name}.html").screenshot(path=FOLDER / f"{name.replace('/', '-')}-{width}.png", full_page=True)
