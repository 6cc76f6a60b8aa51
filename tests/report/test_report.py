"""The report of a training: one file that loads nothing, contains everything, and no markup from the data."""

import re
import shutil

import pytest
from bs4 import BeautifulSoup
from own_data import made_folder, snapshot

from soi_lib import SOI, categorize
from soi_lib.errors import OutputExistsError, SoiError
from soi_lib.report.report import subject, write_report
from soi_lib.runs.own_stage import case, gains


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_folder(tmp_path_factory.mktemp("report") / "made")


@pytest.fixture(scope="module")
def html(folder):
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def soup(html):
    return BeautifulSoup(html, "html.parser")


def test_the_page_is_one_file(html, soup):
    for tag in soup.find_all(True):
        for name in ("src", "href", "action", "data", "poster"):
            value = str(tag.get(name, "#"))
            assert value.startswith(("#", "data:image/png;base64,")), (tag.name, value[:80])
    assert soup.find_all(["link", "iframe", "object", "embed", "form", "base"]) == []
    assert "default-src 'none'" in soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert html.count("plotly.js v") == 1
    assert "url(http" not in html


def test_every_section_is_there_and_explains_itself(folder, soup):
    assert [h.text for h in soup.find_all("h2")] == [
        "Scores", "Second stage", "Categories", "tweets", "reviews", "Glossary", "How this report was made",
    ]  # fmt: skip
    for member in ("tweets", "reviews"):
        part = soup.find(id=f"dataset-{member}")
        assert [h.text for h in part.find_all("h3")] == ["Data map", "From alone to together", "Examples to look at"]
        assert "noise floor" in part.find_all("img")[0]["alt"]
        assert "takes 3 seeds per setting" in part.text
        assert part.find(class_="soi-look")["data-comparison"] == member
    for image in soup.find_all("img"):
        assert len(image["alt"]) > 40
    scores = soup.find(id="scores").find_all("table")
    assert len(scores[0].find_all("tr")) == 1 + 4  # two members, alone and together
    assert len(scores[1].find_all("tr")) == 1 + 8  # and two seeds, one row per member and run


def test_a_second_stage_shows_what_was_left_the_gains_and_the_advice(folder, soup):
    part = soup.find(id="second-stage")
    left, advice = part.find_all("ul")
    assert len(left.find_all("li")) == len(advice.find_all("li")) == 4  # two datasets, alone and together
    assert "tweets alone: 40 examples. 60% of these examples are misclassified" in left.text
    expected = [f"{row['subset']}, {case(row)}: {row['advice']}" for _, row in gains(folder).iterrows()]
    assert [li.text for li in advice.find_all("li")] == expected
    assert "Points with 95 % intervals" in part.img["alt"]
    assert len(part.table.find_all("tr")) == 1 + 4


def test_examples_are_listed_under_their_category(folder, soup):
    dynamics = subject(folder).datasets["tweets"]["alone"][0]
    codes = dict(zip(dynamics.ids.tolist(), categorize(dynamics).tolist(), strict=True))
    history = dict(zip(dynamics.ids.tolist(), dynamics.correct.T.tolist(), strict=True))
    seen = 0
    for part in soup.find(id="dataset-tweets").find_all("details"):
        label, count = re.match(r"(\S+), [^:]+: ([\d,]+) examples", part.summary.text).groups()
        soi = next(s for s in SOI if s.name == label)
        assert int(count.replace(",", "")) == sum(code == soi for code in codes.values())
        for row in part.tbody.find_all("tr"):
            key = row.find(class_="id").text
            squares = row.find(class_="squares").text.split()[-1]
            assert codes[key] == soi
            assert squares == "".join("■" if right else "□" for right in history[key])
            assert row.find_all("td")[1].text in ("negative", "<b>positive</b>")
            seen += 1
    assert seen > 15


def test_no_text_becomes_markup(html, soup):
    assert "window.owned" in html  # the hostile texts are on the page
    for tag in soup.find_all(True):
        assert not any(name.startswith("on") for name in tag.attrs), str(tag)[:100]
    for script in soup.find_all("script"):
        assert "<script" not in script.text[:200]
    scripts = "".join(script.text for script in soup.find_all("script") if "plotly.js v" not in script.text[:3000])
    assert "<img" not in scripts
    assert "</" not in scripts.replace("<\\/", "")
    assert soup.find("b", string="positive") is None
    assert max(len(td.text) for td in soup.find_all("td")) < 500


def test_an_output_is_not_replaced_and_runs_are_not_changed(folder, html):
    before = snapshot(folder)
    with pytest.raises(OutputExistsError, match="--force"):
        write_report(folder)
    with pytest.raises(SoiError, match="runs must not be changed"):
        write_report(folder, folder / "runs" / f"{0:020d}" / "page.html")
    assert snapshot(folder) == before
    assert write_report(folder, force=True).read_text(encoding="utf-8") == html  # the same bytes every time


def test_with_one_seed_or_dataset_nothing_is_compared(tmp_path):
    one = write_report(made_folder(tmp_path / "one", seeds=(0,))).read_text(encoding="utf-8")
    assert "One seed cannot show which of these moves go beyond chance" in one
    text = write_report(made_folder(tmp_path / "alone", members=("tweets",))).read_text(encoding="utf-8")
    assert "Moves between seeds" in text
    assert "From alone to together" not in text


def test_reports_of_a_run_and_of_a_dynamics_file(soi, folder, tmp_path):
    run = folder / "runs" / f"{4:020d}"  # tweets and reviews, seed 0
    out, err = soi("report", run)
    assert out.strip() == f"{4:020d}-report.html"
    assert "open it in a browser: file:///" in err
    assert "dataset-reviews" in (tmp_path / out.strip()).read_text(encoding="utf-8")
    assert soi("report", run / "dynamics" / "tweets.parquet", "--out", "x.html", "-q") == ("x.html\n", "")


def test_mistakes_and_damage_are_named(refused, folder, tmp_path):
    refused("no such file or folder", "report", tmp_path / "absent")
    refused("there is nothing here to report on", "report", tmp_path)
    refused("dynamics file", "report", folder / "README.md")
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "runs" / f"{2:020d}" / "metrics.json").write_text("{}", encoding="utf-8")
    refused(r"metrics\.json", "report", damaged, "--force")
