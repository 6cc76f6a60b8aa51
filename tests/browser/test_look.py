"""The page with the explorer: opened from a folder, with a mouse, with keys only, and on a phone."""

import json

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect
from reading import BOOK, Visit

pytestmark = [pytest.mark.browser, pytest.mark.parametrize("base", ["file"], indirect=True)]

expect.set_options(timeout=30_000)  # megabytes of script, perhaps on a busy machine
PAGE = "notebooks/look"
FOUND = {"task": "paraphrase", "source": "movie", "lingual": "fa"}
DRAWN = """() => [...document.querySelectorAll(".soi-look")].every(
  (place) => !place.explorer || !place.classList.contains("look-ahead"))"""
POINT = """([place, i]) => {
  const {map, drawn} = place.explorer, {xaxis, yaxis, _size} = map._fullLayout, box = map.getBoundingClientRect();
  const at = drawn.indexOf(i);
  return {x: box.x + _size.l + xaxis.d2p(map.data[0].x[at]), y: box.y + _size.t + yaxis.d2p(map.data[0].y[at])};
}"""


def data(comparison: str, member: str) -> dict:
    body = (BOOK / "_static" / "look" / f"{comparison}-{member}.js").read_text(encoding="utf-8")
    return json.loads(body.partition(",")[2].removesuffix(");\n"))


def explorer(page: Page, comparison: str, member: str) -> Locator:
    """Open the explorer of a comparison on a member."""
    place = page.locator(f".soi-look[data-comparison={comparison}]")
    place.scroll_into_view_if_needed()
    expect(place.locator(".look-flow figcaption")).not_to_be_empty()
    page.wait_for_function(DRAWN)  # until then, buttons move under the mouse and a click can get lost
    place.locator(f"[data-member={member}]").click()
    expect(place.locator(".look-map figcaption")).to_contain_text(f"Data map of {member}")
    expect(place.locator(".look-flow figcaption")).to_contain_text(f"examples of {member}")
    return place


def settled(place: Locator) -> None:
    place.page.wait_for_function(
        "place => place.explorer.settled === place.explorer.round", arg=place.element_handle(), timeout=20_000
    )


def shown(place: Locator, n: int, of: int) -> None:
    expect(place.locator("output")).to_have_text(f"{n:,} of {of:,} examples shown")


@pytest.mark.parametrize("comparison", FOUND)
def test_pointing_at_an_example_shows_its_text_and_history(visit: Visit, comparison: str) -> None:
    place = explorer(visit.open(f"{PAGE}.html"), comparison, FOUND[comparison])
    settled(place)
    value = data(comparison, FOUND[comparison])
    alone, together = value["runs"][value["first"]], value["runs"][value["second"]]
    # the example furthest from all others, so that nothing covers it
    at = np.column_stack([2 * np.array(alone["variability"]), np.array(alone["confidence"])])
    apart = np.hypot(*(at[:, None] - at).transpose(2, 0, 1)) + 1e6 * np.eye(len(at))
    i = int(apart.min(axis=1).argmax())
    place.locator(".look-map .main-svg").first.scroll_into_view_if_needed()
    spot = place.evaluate(f"(place, i) => ({POINT})([place, i])", i)
    visit.page.mouse.move(spot["x"] - 40, spot["y"] - 40)
    visit.page.mouse.move(spot["x"], spot["y"], steps=4)
    tip = visit.page.locator(".look-tip:visible")
    expect(tip).to_have_count(1)
    expect(tip.locator("blockquote").first).to_have_text(value["text"][i][:200], use_inner_text=False)
    if value["pair"]:
        expect(tip.locator("blockquote")).to_have_count(2)
    expect(tip.locator(".look-gold b")).to_have_text(value["labels"][value["gold"][i]])
    for k, run in enumerate((alone, together)):
        history = run["history"][i * run["epochs"] : (i + 1) * run["epochs"]]
        squares = tip.locator(".look-history").nth(k)
        assert squares.get_attribute("data-history") == history.replace("1", "■").replace("0", "□")
        assert squares.locator("i").count() == run["epochs"]
        assert squares.locator("i.on").count() == history.count("1")
    visit.page.mouse.click(spot["x"], spot["y"])  # keeps the example in the card
    visit.page.mouse.move(5, 5)
    expect(tip).to_have_count(0)
    expect(place.locator(".look-words blockquote").first).to_have_text(value["text"][i])
    assert visit.trouble == []


@pytest.mark.parametrize("comparison", FOUND)
def test_filters_show_the_true_number(visit: Visit, comparison: str) -> None:
    place = explorer(visit.open(f"{PAGE}.html"), comparison, FOUND[comparison])
    value = data(comparison, FOUND[comparison])
    alone, together = (value["runs"][value[which]]["soi"] for which in ("first", "second"))
    n = len(alone)
    shown(place, n, n)
    one = max(set(alone), key=lambda code: (alone.count(code), code))
    place.locator(f"[data-row='0'] [data-soi='{one}']").click()
    shown(place, alone.count(one), n)
    settled(place)
    assert place.evaluate("p => p.explorer.map.querySelectorAll('.scatterlayer .point').length") == alone.count(one)
    both = sum(a == b == one for a, b in zip(alone, together, strict=True))
    place.locator(f"[data-row='1'] [data-soi='{one}']").click()
    shown(place, both, n)
    place.get_by_role("button", name="show all").click()
    shown(place, n, n)
    place.get_by_role("searchbox").fill(value["text"][3][:12])
    pairs = value["pair"] or [""] * n
    found = [f"{a}\n{b}".lower() for a, b in zip(value["text"], pairs, strict=True)]
    shown(place, sum(value["text"][3][:12].strip().lower() in text for text in found), n)
    assert visit.trouble == []


def test_a_band_of_the_flow_filters_the_map(visit: Visit) -> None:
    place = explorer(visit.open(f"{PAGE}.html"), "source", "tweets")
    value = data("source", "tweets")
    alone, together = (value["runs"][value[which]]["soi"] for which in ("first", "second"))
    band = place.locator(".look-flow .sankey-link").first
    band.scroll_into_view_if_needed()
    band.click()
    chosen = [place.locator(f"[data-row='{k}'] [aria-pressed=true]") for k in (0, 1)]
    expect(chosen[0]).to_have_count(1)
    a, b = (chip.get_attribute("data-soi") for chip in chosen)
    shown(place, sum(pair == (a, b) for pair in zip(alone, together, strict=True)), len(alone))
    assert visit.trouble == []


def test_the_map_switches_to_the_other_run_and_keys_step_through_it(visit: Visit) -> None:
    place = explorer(visit.open(f"{PAGE}.html"), "task", "sentiment")
    value = data("task", "sentiment")
    together = value["runs"][value["second"]]
    place.get_by_role("button", name=together["name"]).focus()
    visit.page.keyboard.press("Enter")
    expect(place.locator(".look-map figcaption")).to_contain_text(f"sentiment, {together['name']}")
    settled(place)
    places = place.evaluate("p => [p.explorer.drawn, p.explorer.map.data[0].y]")
    assert {i: round(y * 1000) for i, y in zip(*places, strict=True)} == dict(enumerate(together["confidence"]))
    order = sorted(range(len(value["text"])), key=lambda i: (together["confidence"][i], i))
    kept = value["runs"][value["first"]]["confidence"]
    start = order.index(min(range(len(kept)), key=lambda i: (kept[i], i)))  # the example in the card stays
    place.get_by_role("button", name="Next example").focus()
    for step in (1, 2):
        visit.page.keyboard.press("Enter")
        expect(place.locator(".look-words blockquote").first).to_have_text(
            value["text"][order[(start + step) % len(order)]]
        )
    assert visit.trouble == []


@pytest.mark.parametrize("width", [390])
def test_a_phone_scrolls_downwards_only(visit: Visit) -> None:
    page = visit.open(f"{PAGE}.html")
    for comparison, member in FOUND.items():
        settled(explorer(page, comparison, member))
    assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0
    outside = """[...document.querySelectorAll('.soi-look *')].filter(e => !e.closest('svg') && e.offsetWidth
      && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className)"""
    assert page.evaluate(outside) == []
    assert visit.trouble == []


def test_links_into_the_page_work(visit: Visit) -> None:
    page = visit.open(f"{PAGE}.html#several-languages")  # whatever unfolds above
    place = page.locator(".soi-look[data-comparison=lingual]")
    expect(place.locator("output")).to_contain_text("examples shown")
    expect(page.locator("h2", has_text="Several languages")).to_be_in_viewport()
