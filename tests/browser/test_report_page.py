"""The page of `soi report`, opened from a disk: it draws, hovers, filters, fits, and asks nobody for anything."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from reading import WIDTHS, Visit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from own_data import made_folder

    from soi_lib.report.report import write_report

    return write_report(made_folder(tmp_path_factory.mktemp("page") / "made"))


@pytest.fixture
def page(chromium: Browser, made: Path, width: int) -> Iterator[Visit]:
    context = chromium.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(120_000)  # a page of five megabytes, on a machine that may be busy
    visit = Visit(context.new_page(), made.as_uri())
    visit.watch()
    visit.page.on("dialog", lambda dialog: visit.trouble.append(f"dialog: {dialog.message}"))
    visit.page.goto(made.as_uri(), wait_until="load")
    visit.page.wait_for_selector("#soi-figure-1 .main-svg")
    yield visit
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_it_draws_everything_and_fits(page: Visit, width: int) -> None:
    page.page.wait_for_timeout(300)
    figures = page.page.locator(".js-plotly-plot")
    assert figures.count() == 4  # a map and a flow for each of two members
    assert page.page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    wide = page.page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"the page scrolls sideways by {wide} pixels at {width}"
    assert page.trouble == []


def test_hovering_shows_the_text_its_label_and_its_history(page: Visit) -> None:
    plot = page.page.locator("#soi-figure-1")
    plot.scroll_into_view_if_needed()
    row = page.page.evaluate(
        """() => { const p = document.getElementById('soi-figure-1'); const d = p.data[0];
            const i = d.customdata.findIndex(c => c[0].includes('window.owned'));
            Plotly.Fx.hover(p, [{curveNumber: 0, pointNumber: i}]);
            return d.customdata[i]; }"""
    )
    hover = plot.locator(".hovertext").text_content() or ""
    assert "<img src=x" in hover
    assert 'onerror="window.owned=1">' in hover
    assert row[2] in hover
    assert len(row[2]) == 10
    assert set(row[2]) <= {"■", "□"}
    assert page.page.evaluate("window.owned") is None
    assert page.trouble == []


def test_filters_change_the_count_and_examples_unfold(page: Visit) -> None:
    controls = page.page.locator("#soi-figure-1-controls")
    every = controls.locator("output").inner_text()
    controls.locator("select").nth(1).select_option(label="ACE")
    page.page.wait_for_function(
        "before => document.querySelector('#soi-figure-1-controls output').textContent !== before", arg=every
    )
    assert controls.locator("output").inner_text().endswith("of 240 examples")
    every = page.page.locator("#member-tweets details")
    folded = every.nth(every.count() - 1)
    assert folded.get_attribute("open") is None
    folded.locator("summary").click()
    assert folded.locator("table").is_visible()
    assert page.page.evaluate("window.owned") is None
    assert page.trouble == []
