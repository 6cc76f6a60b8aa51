"""What pages show besides results: origin and costs, the explorer, whether runs were reproduced, and the RO-Crate."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rocrate.rocrate import ROCrate

from paper import ROOT, looking, recorded, reproduced
from paper.crate import write_crate
from paper.grid_costs import cost_table
from paper.recorded import open_results, recorded_profile, recorded_runs
from paper.reproduced import as_json, reproduction
from soi_lib.analysis.soi import categorize, history_string
from soi_lib.errors import SoiError
from soi_lib.files import sha256_file, write_text
from soi_lib.runs.config import load_profile
from soi_lib.runs.store import StoredRun

RECORDED = ROOT / "data" / "recorded" / "quick"


def test_every_run_is_counted_and_costs_follow_the_sizes():
    table = cost_table(*map(load_profile, ("quick", "standard", "paper")))
    assert table.groupby("profile", sort=False)["runs"].sum().to_dict() == {"quick": 15, "standard": 160, "paper": 75}
    quick = load_profile("quick")
    longer = quick.model_copy(update={"training": quick.training.model_copy(update={"epochs": 10})})
    twice = quick.model_copy(update={"seeds": (0, 1)})
    one, two, three = (cost_table(p).set_index("comparison") for p in (quick, longer, twice))
    assert two.loc["source", "updates"] == pytest.approx(2 * one.loc["source", "updates"], rel=0.01)
    assert one.loc["source", "PFLOP"] < two.loc["source", "PFLOP"] < 2 * one.loc["source", "PFLOP"]
    assert three.loc["source", "core-hours"] == pytest.approx(2 * one.loc["source", "core-hours"])
    assert (table["GPU-hours"] < table["core-hours"]).all()


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


@pytest.fixture(scope="module")
def runs() -> list[StoredRun]:
    return [run for run in recorded.recorded_runs(RECORDED) if run.comparison == "source"]


def of_seed(runs, seed: int) -> list[StoredRun]:
    return [run for run in runs if run.seed == seed]


def test_a_run_of_the_same_seed_has_the_same_bits_and_numbers_of_another_seed_are_inside(runs, monkeypatch):
    same = reproduction("quick", of_seed(runs, 0), RECORDED)
    assert (same.same, same.twins, same.differing) == (5, 5, ())
    assert same.sentence.startswith("Reproduced: ")
    monkeypatch.setattr(reproduced, "recorded_runs", lambda folder: [run for run in runs if run.seed < 4])
    other = reproduction("quick", of_seed(runs, 4), RECORDED)
    assert other.twins == 0
    assert other.table["inside"].mean() > 0.85  # 95 % are expected, of numbers that are not independent
    assert {"gain, OOD", "share of ACE", "AUC, test"} <= set(other.table["number"])


def test_numbers_that_differ_are_named(runs, tmp_path):
    def worse(run: StoredRun) -> StoredRun:
        copy = shutil.copytree(run.folder, tmp_path / run.key)
        frame = run.predictions("movie")
        frame.assign(p_gold=1 - frame["p_gold"]).to_parquet(copy / "predictions" / "movie.parquet")
        return StoredRun(copy, run.manifest)

    found = reproduction("quick", [worse(run) if len(run.setting) > 1 else run for run in of_seed(runs, 0)], RECORDED)
    outside = found.table[~found.table["inside"]]
    assert set(outside.loc[outside["kind"] == "gain", "dataset"]) == {"movie"}
    assert len(found.differing) == 2  # all three together, and at equal budget
    assert "seed 0" in found.differing[0]
    assert as_json(found)["outside"]


def test_a_comparison_that_is_impossible_is_explained(runs, tmp_path):
    assert "made no runs" in reproduction("quick", [], RECORDED).sentence
    assert "profile quick, these runs use mine" in reproduction("mine", runs, RECORDED).sentence
    other = recorded.recorded_runs(RECORDED.with_name("mrpc"))
    assert "other settings" in reproduction("quick", other, RECORDED).sentence
    copy = shutil.copytree(RECORDED, tmp_path / "quick")
    file = next(copy.glob("*/predictions/tweets.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert str(file) in reproduction("quick", runs, copy).sentence


def test_the_crate_lists_every_file_with_size_and_hash(tmp_path: Path) -> None:
    with pytest.raises(SoiError, match="no book here"):
        write_crate(tmp_path)
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    for name in ("html/index.html", "html/book/index.html", "results.json"):
        write_text(tmp_path / "_build" / name, name)
    one = next((ROOT / "data" / "recorded" / "quick").glob("*/manifest.json")).parent
    shutil.copytree(one, tmp_path / "data" / "recorded" / "quick" / one.name)
    for _ in range(2):  # written again over itself
        build = write_crate(tmp_path).parent
    crate = ROCrate(build)
    files = {e.id: e for e in crate.data_entities if e.type == "File"}
    assert {"html/book/index.html", "results.json", f"recorded/quick/{one.name}/manifest.json"} <= set(files)
    assert len(files) == 3 + sum(path.is_file() for path in one.rglob("*"))
    for name, entity in files.items():
        assert int(entity["contentSize"]) == (build / name).stat().st_size
        assert entity["sha256"] == sha256_file(build / name)
    assert "Vassef" in crate.root_dataset["isBasedOn"]["author"]
    assert crate.license == "https://spdx.org/licenses/MIT"
