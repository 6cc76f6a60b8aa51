"""Whether this machine's runs are those of the recorded seeds: on runs of known truth."""

from __future__ import annotations

import pytest
from made_runs import World, make

from paper import recorded
from paper.reproduced import Reproduction, as_json, reproduction

SIZES = {"n": 60, "evaluate": 200}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recorded folder with five seeds of the sources."""
    root = tmp_path_factory.mktemp("recorded")
    found = make(root / "store", World(**SIZES), seeds=range(5))["source"]
    return recorded.record(found.profile, found.runs, root / "made")


def held(folder, root, world: World, seed: int = 0) -> Reproduction:
    own = make(root, world, seeds=[seed])["source"]
    return reproduction("made", own.runs, folder)


def test_the_same_seed_has_the_same_bits_and_another_seed_lies_inside(folder, tmp_path):
    same = held(folder, tmp_path / "same", World(**SIZES))
    assert (same.same, same.twins, same.differing) == (4, 4, ())
    assert same.sentence.startswith("Reproduced: ")
    other = held(folder, tmp_path / "other", World(**SIZES), seed=7)
    assert other.twins == 0
    assert other.table["inside"].mean() > 0.85  # 95 % are expected, of numbers that are not independent
    assert {"gain, OOD", "share of ACE", "AUC, test"} <= set(other.table["number"])


def test_numbers_that_differ_are_named(folder, tmp_path):
    found = held(folder, tmp_path, World(gain=lambda member, setting, split: 0.2 * (member == "movie"), **SIZES))
    outside = found.table[~found.table["inside"]]
    assert set(outside.loc[outside["kind"] == "gain", "dataset"]) == {"movie"}
    assert len(found.differing) == 1  # the run of all three together
    assert "seed 0" in found.differing[0]
    assert as_json(found)["outside"]


def test_what_cannot_be_compared_says_why(folder, tmp_path):
    own = make(tmp_path / "own", World(**SIZES), seeds=[0])["source"].runs
    assert "made no runs" in reproduction("made", [], folder).sentence
    assert "profile made, these runs use mine" in reproduction("mine", own, folder).sentence
    shorter = make(tmp_path / "shorter", World(epochs=5, record="eval", **SIZES), seeds=[0])["source"].runs
    assert "other settings" in reproduction("made", shorter, folder).sentence
    file = next(folder.glob("*/predictions/tweets.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert str(file) in reproduction("made", own, folder).sentence
