"""The data of the explorer: texts belong to their histories, files are written once, seeds are limited."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from paper import ROOT, looking
from paper.recorded import open_results, recorded_profile, recorded_runs
from soi_lib.analysis.soi import categorize, history_string

RECORDED = ROOT / "data" / "recorded" / "quick"


def read(path: Path) -> dict:
    name, _, body = path.read_text(encoding="utf-8").removeprefix("soiLook.put(").partition(",")
    assert json.loads(name) == path.stem
    return json.loads(body.removesuffix(");\n"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheels) -> Path:
    root = tmp_path_factory.mktemp("look")
    looking.write_look(root, recorded_profile(RECORDED), recorded_runs(RECORDED), quiet=True)
    return root


def test_every_example_has_its_text_label_history_and_categories(made: Path) -> None:
    member = "paraphrase"
    value = read(made / looking.LOOK / f"task-{member}.js")
    results = open_results("task", runs=RECORDED)
    corpus = results.corpus(member)
    train = corpus.splits["train"]
    alone, together = (results.run(s).dynamics(member) for s in ((member,), results.settings[-1]))
    order = np.argsort(alone.ids)
    assert len(value["text"]) == value["of"] == len(alone)
    assert value["labels"] == list(corpus.labels)
    names = [run["name"] for run in value["runs"]]
    assert len(names) == 2 * looking.SEEDS  # alone and together only, and a limited number of seeds
    assert names[value["first"]] == "alone, seed 0"
    assert names[value["second"]] == "all three, seed 0"
    for i in (0, 17, 159):
        row = list(train.ids).index(alone.ids[order][i])
        assert value["text"][i].rstrip("…") in train.text[row]
        assert value["pair"][i].rstrip("…") in train.text_pair[row]
        assert value["gold"][i] == train.label[row] == alone.gold[order][i]
    for which, dynamics in (("first", alone), ("second", together)):
        run, order = value["runs"][value[which]], np.argsort(dynamics.ids)
        histories = [run["history"][k : k + run["epochs"]] for k in range(0, len(run["history"]), run["epochs"])]
        assert histories == [history_string(h, dynamics.epochs, "1", "0") for h in dynamics.history[order]]
        assert [int(c) for c in run["soi"]] == categorize(dynamics)[order].tolist()
        np.testing.assert_allclose(np.array(run["confidence"]) / 1000, dynamics.p_gold.mean(0)[order], atol=6e-4)
        np.testing.assert_allclose(np.array(run["variability"]) / 1000, dynamics.p_gold.std(0)[order], atol=6e-4)


def test_files_are_written_again_only_if_the_runs_change(made: Path) -> None:
    sizes, runs = recorded_profile(RECORDED), recorded_runs(RECORDED)
    folder = made / looking.LOOK
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    looking.write_look(made, sizes, runs, quiet=True)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    looking.write_look(made, sizes, [run for run in runs if run.comparison == "source"], quiet=True)
    assert {file.name for file in folder.glob("*-*.js")} == {"source-amazon.js", "source-movie.js", "source-tweets.js"}
