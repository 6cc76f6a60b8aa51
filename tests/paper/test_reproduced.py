"""Whether runs reproduce the recorded ones: on the recorded quick runs of the sources, whole and changed."""

from __future__ import annotations

import shutil

import pytest

from paper import ROOT, recorded, reproduced
from paper.reproduced import as_json, reproduction
from soi_lib.runs.store import StoredRun

QUICK = ROOT / "data" / "recorded" / "quick"


@pytest.fixture(scope="module")
def runs() -> list[StoredRun]:
    return [run for run in recorded.recorded_runs(QUICK) if run.comparison == "source"]


def of_seed(runs, seed: int) -> list[StoredRun]:
    return [run for run in runs if run.seed == seed]


def test_a_run_of_the_same_seed_has_the_same_bits_and_numbers_of_another_seed_are_inside(runs, monkeypatch):
    same = reproduction("quick", of_seed(runs, 0), QUICK)
    assert (same.same, same.twins, same.differing) == (5, 5, ())
    assert same.sentence.startswith("Reproduced: ")
    monkeypatch.setattr(reproduced, "recorded_runs", lambda folder: [run for run in runs if run.seed < 4])
    other = reproduction("quick", of_seed(runs, 4), QUICK)
    assert other.twins == 0
    assert other.table["inside"].mean() > 0.85  # 95 % are expected, of numbers that are not independent
    assert {"gain, OOD", "share of ACE", "AUC, test"} <= set(other.table["number"])


def test_numbers_that_differ_are_named(runs, tmp_path):
    def worse(run: StoredRun) -> StoredRun:
        copy = shutil.copytree(run.folder, tmp_path / run.key)
        frame = run.predictions("movie")
        frame.assign(p_gold=1 - frame["p_gold"]).to_parquet(copy / "predictions" / "movie.parquet")
        return StoredRun(copy, run.manifest)

    found = reproduction("quick", [worse(run) if len(run.setting) > 1 else run for run in of_seed(runs, 0)], QUICK)
    outside = found.table[~found.table["inside"]]
    assert set(outside.loc[outside["kind"] == "gain", "dataset"]) == {"movie"}
    assert len(found.differing) == 2  # all three together, and at equal budget
    assert "seed 0" in found.differing[0]
    assert as_json(found)["outside"]


def test_a_comparison_that_is_impossible_is_explained(runs, tmp_path):
    assert "made no runs" in reproduction("quick", [], QUICK).sentence
    assert "profile quick, these runs use mine" in reproduction("mine", runs, QUICK).sentence
    other = recorded.recorded_runs(QUICK.with_name("mrpc"))
    assert "other settings" in reproduction("quick", other, QUICK).sentence
    copy = shutil.copytree(QUICK, tmp_path / "quick")
    file = next(copy.glob("*/predictions/tweets.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert str(file) in reproduction("quick", runs, copy).sentence
