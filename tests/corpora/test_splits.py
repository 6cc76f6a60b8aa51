from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper.datasets.building import cap, deduplicate
from soi_lib.data.splits import assign
from soi_lib.errors import CorpusError

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_groups_stay_whole_and_shares_and_classes_hold(seed, largest):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest + 1, size=200)
    groups = np.repeat([f"g{i}" for i in range(200)], sizes).astype(object)
    label = (rng.random(len(groups)) < 0.3).astype(np.int64)
    home = assign(groups, label, SHARES, "salt")
    assert all(len(set(home[groups == g])) == 1 for g in np.unique(groups.astype(str)))
    for name, share in SHARES.items():
        assert abs((home == name).mean() - share) < 0.03
        assert abs(label[home == name].mean() - label.mean()) < 0.05


def test_the_order_of_rows_does_not_matter_and_the_salt_does(rng):
    groups = np.array([f"g{i}" for i in range(300)], dtype=object)
    label = np.arange(300) % 2
    home = dict(zip(groups, assign(groups, label, SHARES, "salt"), strict=True))
    order = rng.permutation(300)
    assert dict(zip(groups[order], assign(groups[order], label[order], SHARES, "salt"), strict=True)) == home
    assert dict(zip(groups, assign(groups, label, SHARES, "pepper"), strict=True)) != home


def test_fewer_groups_than_splits_are_refused():
    with pytest.raises(CorpusError, match="too few groups"):
        assign(np.array(["a", "a", "b"], dtype=object), np.array([0, 1, 0]), SHARES, "salt")


def test_deduplicate_keeps_the_first_and_drops_contradictions():
    frame = pd.DataFrame(
        {
            "id": ["4", "3", "2", "1", "0"],
            "text": ["Good  day", "good day", "bad", "Bad", "fine"],
            "label": [1, 1, 0, 1, 1],
        }
    )
    kept, counts = deduplicate(frame)
    assert kept["id"].tolist() == ["0", "3"]
    assert counts == {"repeated": 1, "contradictory": 2}


def test_pairs_repeat_only_when_both_sides_do():
    frame = pd.DataFrame({"id": ["0", "1"], "text": ["a", "a"], "text_pair": ["x", "y"], "label": [0, 1]})
    assert len(deduplicate(frame)[0]) == 2


def test_cap_depends_on_ids_only():
    frame = pd.DataFrame({"id": [f"i{k}" for k in range(50)], "text": "t"})
    assert set(cap(frame, 10)["id"]) == set(cap(frame[::-1], 10)["id"]) < set(cap(frame, 20)["id"])
