"""The counts that the authors' earlier code prints, from dynamics whose histories are written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_runs import World, make

from paper import predecessor
from soi_lib.dynamics import TrainingDynamics

FILE = Path(__file__).parents[2] / "data" / "predecessor.csv"


def test_counts_of_written_out_histories():
    histories = ["000000", "111111", "010101", "101010", "000111", "110001", "101011"]
    correct = np.array([[c == "1" for c in h] for h in histories]).T
    p = np.where(correct, 0.9, 0.1).astype(np.float32)
    dynamics = TrainingDynamics(np.arange(7), np.zeros(7, np.int16), p, correct, {"classes": 2})
    assert predecessor.counts(dynamics) == {
        "n_train": 7, "flagged": 5, "never learned": 1, "1 event": 1, "2 events": 2, "3 events": 1, "4 events": 0,
        "5 or more": 0, "right at last": 3,
    }  # fmt: skip


def test_the_earlier_figures_add_up():
    table = predecessor.earlier(FILE)
    parts = ["never learned", "1 event", "2 events", "3 events", "4 events", "5 or more"]
    assert (table[parts].sum(axis=1) == table["flagged"]).all()
    assert len(table) == 9


def test_ours_stand_beside_theirs(tmp_path):
    results = make(tmp_path, World(n=50), seeds=(0,), comparisons=("task",))["task"]
    table = predecessor.beside(results, FILE)
    assert table["who"].tolist() == ["earlier code"] * 3 + ["ours, seed 0"] * 3
    assert table["share flagged"].iloc[0] == 0.105
    assert "10.5% by their BERT" in predecessor.told(table)
