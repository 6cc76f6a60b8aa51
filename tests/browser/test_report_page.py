"""The page of `soi report`, opened from disk: it draws, filters and fits, and makes no requests."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_data import made_folder
from playwright.sync_api import Browser, expect
from reading import WIDTHS, Visit

from soi_lib.report.report import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(made_folder(tmp_path_factory.mktemp("page") / "made"))


@pytest.fixture
def page(chromium: Browser, made: Path, width: int) -> Iterator[Visit]:
    context = chromium.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(120_000)  # five megabytes, perhaps on a busy machine
    visit = Visit(context.new_page(), made.as_uri())
    visit.page.on("dialog", lambda dialog: visit.trouble.append(f"dialog: {dialog.message}"))
    visit.page.goto(made.as_uri(), wait_until="load")
    visit.page.locator(".soi-look").first.scroll_into_view_if_needed()
    visit.page.wait_for_selector(".look-flow .main-svg")
    yield visit
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_it_draws_everything_and_fits(page: Visit, width: int) -> None:
    places = page.page.locator(".soi-look")
    for k in range(places.count()):
        places.nth(k).scroll_into_view_if_needed()
        expect(places.nth(k).locator(".look-flow figcaption")).to_contain_text("Flow of the 240 examples")
    assert page.page.locator(".js-plotly-plot").count() == 4  # a map and a flow for each of two members
    assert page.page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    wide = page.page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"the page scrolls sideways by {wide} pixels at {width}"
    assert page.trouble == []


def test_an_example_shows_its_text_its_label_and_its_history(page: Visit) -> None:
    place = page.page.locator(".soi-look").first
    place.get_by_role("searchbox").fill("window.owned")
    card = place.locator(".look-words")
    expect(card.locator("blockquote")).to_contain_text('<img src=x onerror="window.owned=1">')
    assert card.locator("blockquote *").count() == 0
    expect(card.locator(".look-gold b")).to_have_text(re.compile("negative|<b>positive</b>"))
    history = card.locator(".look-history").first.get_attribute("data-history")
    assert len(history) == 10
    assert set(history) <= {"■", "□"}
    assert page.page.evaluate("window.owned") is None
    assert page.trouble == []


def test_examples_unfold(page: Visit) -> None:
    every = page.page.locator("#dataset-tweets details")
    folded = every.nth(every.count() - 1)
    assert folded.get_attribute("open") is None
    folded.locator("summary").click()
    assert folded.locator("table").is_visible()
    assert page.page.evaluate("window.owned") is None
    assert page.trouble == []


def test_a_single_run_has_a_map_only(chromium: Browser, tmp_path: Path) -> None:
    report = write_report(made_folder(tmp_path / "one", members=("tweets",), seeds=(0,)))
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    place = page.locator(".soi-look")
    place.scroll_into_view_if_needed()
    expect(place.locator("output")).to_have_text("240 of 240 examples shown")
    for part in (".look-runs", "[data-row='1'] button", ".look-flow", ".look-sides", ".look-members"):
        expect(place.locator(part).first).to_be_hidden()
    page.close()
