"""Building of packaged corpora: broken guarantees are named, subsets are nested, groups stay in one split."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper.datasets.building import deduplicate, make
from soi_lib.data.dataset import Card, Split, assign, fingerprint, id_order
from soi_lib.errors import CorpusError

CARD = Card("title", "question", "origin", "licence", "en", "construction", "group", "ood")


def split_of(rows: list[tuple[str, str, int, str]]) -> Split:
    """Make a split of single texts from (id, text, label, group)."""
    ids, text, label, group = (list(c) for c in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Split(
        np.array(ids, dtype=object), text, None, np.array(label, dtype=np.int16), np.array(group, dtype=object)
    )


@pytest.fixture
def parts() -> dict[str, Split]:
    return {
        name: split_of([(f"{name}/{i}", f"text {i} of {name}", i % 2, f"{name}:{i}") for i in range(8)])
        for name in ("train", "validation", "test", "ood")
    }


def changed(split: Split, position: int, **values: object) -> Split:
    columns = {name: getattr(split, name).copy() for name in values}
    for name, value in values.items():
        columns[name][position] = value
    return dataclasses.replace(split, **columns)


@given(st.integers(1, 40), st.integers(1, 40))
def test_subsets_are_nested_sorted_and_independent_of_row_order(small, large):
    small, large = sorted((small, large))
    rows = [(f"id/{i:03d}", f"text {i}", i % 2, f"g{i}") for i in range(40)]
    split, reverse = split_of(rows), split_of(rows[::-1])
    few, many = split.take(small), split.take(large)
    assert set(few.ids) <= set(many.ids)
    assert len(few) == small
    assert list(few.ids) == sorted(few.ids)
    assert list(reverse.take(small).ids) == list(few.ids)
    assert all(t == f"text {int(i[3:])}" for i, t in zip(few.ids, few.text, strict=True))


def test_the_order_is_that_of_sha256():
    # sha256("a") = ca97..., sha256("b") = 3e23..., sha256("c") = 2e7d...
    assert id_order(["a", "b", "c"]).tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("test", lambda s: changed(s, 3, text="TEXT  5 of\ttrain"), "small/test: the text of 'test/3' .*'train/5'"),
        ("validation", lambda s: changed(s, 2, group="train:4"), "the group of 'validation/2' .*'train/4' in train"),
        ("train", lambda s: changed(s, 5, ids="train/0"), "small/train: the id of 'train/0'"),
        ("test", lambda s: split_of([]), "small/test: the split is empty"),
        ("train", lambda s: dataclasses.replace(s, label=np.ones(8, dtype=np.int16)), "only one class"),
        ("test", lambda s: changed(s, 1, label=2), "small/test: the label of 'test/1' .*found 2"),
    ],
)
def test_a_broken_guarantee_is_named(parts, split, change, message):
    with pytest.raises(CorpusError, match=message):
        make("small", "user", ("no", "yes"), parts | {split: change(parts[split])}, CARD)


@pytest.mark.parametrize("change", [{"text": "another"}, {"label": 1}, {"group": "another"}, {"ids": "another"}])
def test_the_fingerprint_depends_on_every_field_but_not_on_the_order(parts, change):
    before = fingerprint(("no", "yes"), parts, {})
    train = parts["train"]
    assert fingerprint(("no", "yes"), parts | {"train": train.rows(np.arange(8)[::-1])}, {}) == before
    assert fingerprint(("no", "yes"), parts | {"train": changed(train, 4, **change)}, {}) != before
    assert fingerprint(("yes", "no"), parts, {}) != before


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_groups_stay_whole_and_shares_and_class_balance_hold(seed, largest):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest + 1, size=200)
    groups = np.repeat([f"g{i}" for i in range(200)], sizes).astype(object)
    label = (rng.random(len(groups)) < 0.3).astype(np.int64)
    shares = {"train": 0.6, "validation": 0.1, "test": 0.3}
    home = assign(groups, label, shares, "salt")
    assert all(len(set(home[groups == g])) == 1 for g in np.unique(groups.astype(str)))
    for name, share in shares.items():
        assert abs((home == name).mean() - share) < 0.03
        assert abs(label[home == name].mean() - label.mean()) < 0.05


def test_deduplicate_keeps_the_first_and_drops_contradictions():
    rows = [("4", "Good  day", 1), ("3", "good day", 1), ("2", "bad", 0), ("1", "Bad", 1), ("0", "fine", 1)]
    kept, counts = deduplicate(pd.DataFrame(rows, columns=["id", "text", "label"]))
    assert kept["id"].tolist() == ["0", "3"]
    assert counts == {"repeated": 1, "contradictory": 2}
