"""What the explorer is given: the right text beside the right history, made once, no more than a page can bear."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_runs import World, make

from paper import build as publish
from paper import looking
from paper.datasets.building import make as make_corpus
from paper.recorded import PROFILE_COPY, Results, open_results
from soi_lib.analysis.soi import SOI, categorize, history_string
from soi_lib.data.dataset import Card, Corpus, Split
from soi_lib.plots import caption
from soi_lib.runs.config import load_profile
from soi_lib.runs.store import open_run

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "data" / "recorded" / "quick"


def recorded():
    runs = [open_run(path.parent) for path in sorted(RECORDED.glob("*/manifest.json"))]
    return load_profile(RECORDED / PROFILE_COPY), runs


def read(path: Path) -> dict:
    name, _, body = path.read_text(encoding="utf-8").removeprefix("soiLook.put(").partition(",")
    assert json.loads(name) == path.stem
    return json.loads(body.removesuffix(");\n"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheels) -> Path:
    root = tmp_path_factory.mktemp("look")
    assert looking.write_look(root, *recorded(), quiet=True)
    return root


@pytest.mark.parametrize(("comparison", "member"), [("task", "entailment"), ("source", "tweets"), ("lingual", "fa")])
def test_every_example_has_its_own_text_label_history_and_categories(made: Path, comparison: str, member: str) -> None:
    value = read(made / looking.LOOK / f"{comparison}-{member}.js")
    results = open_results(comparison, runs=RECORDED)
    corpus = results.corpus(member)
    train = corpus.splits["train"]
    alone, together = (results.run(s).dynamics(member) for s in ((member,), results.settings[-1]))
    order = np.argsort(alone.ids)
    assert len(value["text"]) == value["of"] == len(alone)
    assert value["labels"] == list(corpus.labels)
    names = [run["name"] for run in value["runs"]]
    assert names[value["first"]] == "alone, seed 0"
    assert names[value["second"]] == "all three, seed 0"
    for i in (0, 17, 349):
        row = list(train.ids).index(alone.ids[order][i])
        assert value["text"][i].rstrip("…") in train.text[row]
        assert (value["pair"] is None) == (train.text_pair is None)
        assert value["pair"] is None or value["pair"][i].rstrip("…") in train.text_pair[row]
        assert value["gold"][i] == train.label[row] == alone.gold[order][i]
    for which, dynamics in (("first", alone), ("second", together)):
        run, order = value["runs"][value[which]], np.argsort(dynamics.ids)
        histories = [run["history"][k : k + run["epochs"]] for k in range(0, len(run["history"]), run["epochs"])]
        assert histories == [history_string(h, dynamics.epochs, "1", "0") for h in dynamics.history[order]]
        assert [int(c) for c in run["soi"]] == categorize(dynamics)[order].tolist()
        np.testing.assert_allclose(np.array(run["confidence"]) / 1000, dynamics.p_gold.mean(0)[order], atol=6e-4)
        np.testing.assert_allclose(np.array(run["variability"]) / 1000, dynamics.p_gold.std(0)[order], atol=6e-4)


def test_every_member_is_there_and_light(made: Path) -> None:
    files = {file.name: file.stat().st_size for file in (made / looking.LOOK).iterdir()}
    members = {f"{c}-{m}.js" for c, plan in recorded()[0].comparisons.items() for m in plan.members}
    assert set(files) == members | {"index.js", "plotly.min.js", "explorer.js", "explorer.css"}
    assert len(members) == 9
    assert max(files[name] for name in members) < 1_000_000
    index = (made / looking.LOOK / "index.js").read_text(encoding="utf-8")
    assert all(json.dumps(soi.name) in index for soi in SOI)
    assert set(looking.look_files(made)) == {f"book/_static/look/{name}" for name in files}


def test_made_once_and_again_when_runs_or_files_change(made: Path) -> None:
    sizes, runs = recorded()
    folder = made / looking.LOOK
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert not looking.write_look(made, sizes, runs, quiet=True)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before

    page = folder / "source-tweets.js"
    good = page.read_bytes()
    page.write_bytes(good[:-9])
    (folder / "source-yelp.js").write_text("left over", encoding="utf-8")
    assert looking.write_look(made, sizes, runs, quiet=True)
    assert page.read_bytes() == good
    assert not (folder / "source-yelp.js").exists()

    fewer = [run for run in runs if run.comparison == "source"]
    assert looking.write_look(made, sizes, fewer, quiet=True)
    assert {file.name for file in folder.glob("*-*.js")} == {"source-amazon.js", "source-movie.js", "source-tweets.js"}
    assert looking.write_look(made, sizes, runs, quiet=True)


def test_staged_with_the_book(made: Path, tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.md").write_text("# Start\n", encoding="utf-8")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n", encoding="utf-8")
    looked = tmp_path / looking.LOOK
    looked.mkdir(parents=True)
    (looked / "index.js").write_text("1", encoding="utf-8")
    assert publish.stage(tmp_path, tmp_path / "stamps")
    assert (tmp_path / publish.STAGE / looking.PLACE / "index.js").read_text(encoding="utf-8") == "1"
    assert not publish.stage(tmp_path, tmp_path / "stamps")


@dataclass(frozen=True)
class Told(Results):
    """Results whose members' texts are given here."""

    def corpus(self, member: str) -> Corpus:
        dynamics = self.run((member,)).dynamics(member)
        ids = dynamics.ids.astype(object)
        train = Split(ids, [f"{i} text" for i in range(len(ids))], None, dynamics.gold.astype(np.int16), ids)
        card = Card(*["made"] * 8)
        return make_corpus(member, "source", ("no", "yes"), {"train": train}, card)


def told(results: Results) -> Told:
    return Told(results.comparison, results.profile, results.runs)


def test_several_seeds_can_be_compared(tmp_path: Path) -> None:
    results = make(tmp_path, World(n=60, evaluate=50))["source"]
    value = looking.examples(told(results), "movie")
    names = [f"{setting}, seed {seed}" for setting in ("alone", "all three") for seed in (0, 1, 2)]
    assert [run["name"] for run in value["runs"]] == names
    assert (value["first"], value["second"]) == (0, 3)
    assert value["text"][7].endswith(" text")


def test_pictures_say_which_seed_they_show(tmp_path: Path) -> None:
    results = make(tmp_path, World(n=60))["source"]
    maps, flow = looking.pictures(results, "amazon")
    for figure in (maps, flow):
        assert "seed 0 is shown" in caption(figure)
        assert "amazon" in caption(figure)
    assert "Of 60 examples" in caption(flow)


class Page:
    """What the extension sees of Sphinx."""

    def __init__(self, srcdir: Path) -> None:
        self.srcdir, self.added = srcdir, []
        self.add_css_file = self.add_js_file = self.added.append


def test_the_page_loads_the_explorer_only_where_texts_are(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("soi_sphinx_here", ROOT / "book" / "_ext" / "soi_sphinx.py")
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    assert (ROOT / f"{extension.LOOK}.ipynb").exists()
    app = Page(tmp_path)
    extension.explore(app, extension.LOOK, "", {}, None)
    assert app.added == []
    (tmp_path / looking.PLACE).mkdir(parents=True)
    (tmp_path / looking.PLACE / "index.js").write_text("", encoding="utf-8")
    extension.explore(app, "book/index", "", {}, None)
    assert app.added == []
    extension.explore(app, extension.LOOK, "", {}, None)
    assert app.added == ["look/explorer.css", "look/index.js", "look/explorer.js"]
