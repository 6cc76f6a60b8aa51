"""Subsets: which examples they contain, that every draw can be repeated, and their matched controls."""

import numpy as np
import pytest
from synthetic import learn

from soi_lib.analysis.selection import select
from soi_lib.analysis.soi import SOI, categorize
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import RangeError, SelectionError


@pytest.fixture
def dyn() -> TrainingDynamics:
    return learn(600, 8, classes=3)


def golds(dyn: TrainingDynamics, ids: np.ndarray) -> list[int]:
    return np.bincount(dyn.subset(ids).gold, minlength=3).tolist()


def test_a_union_of_categories_has_all_their_examples(dyn: TrainingDynamics) -> None:
    codes = categorize(dyn)
    expected = sorted(dyn.ids[(codes == SOI.UNE) | (codes == SOI.FRGE_1)].tolist())
    assert select(dyn, [SOI.UNE, SOI.FRGE_1]).tolist() == expected
    assert select(dyn, ["UNE", "FRGE_1"]).tolist() == expected
    assert select(dyn, SOI.ACE).tolist() == select(dyn, [1]).tolist() == sorted(dyn.ids[codes == SOI.ACE].tolist())


def test_draws_depend_on_seed_and_ids_not_on_order(dyn: TrainingDynamics, rng: np.random.Generator) -> None:
    shuffled = dyn.subset(dyn.ids[rng.permutation(600)])
    for control in (None, "random"):
        first = select(dyn, "ACE", 50, seed=4, control=control)
        assert len(first) == len(set(first)) == 50
        assert first.tolist() == sorted(first.tolist())
        assert np.array_equal(first, select(shuffled, "ACE", 50, seed=4, control=control))
        assert not np.array_equal(first, select(dyn, "ACE", 50, seed=5, control=control))


def test_balance_takes_equally_many_of_every_class(dyn: TrainingDynamics) -> None:
    assert golds(dyn, select(dyn, "ACE", 30, balance=True)) == [10, 10, 10]
    assert golds(dyn, select(dyn, "ACE", 32, balance=True)) == [11, 11, 10]
    rarest = min(golds(dyn, select(dyn, "FRGE_1")))
    assert golds(dyn, select(dyn, "FRGE_1", balance=True)) == [rarest] * 3


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("n", [None, 45])
def test_the_control_matches_size_and_balance(dyn: TrainingDynamics, n: int | None, balance: bool) -> None:
    subset = select(dyn, ["ACE", "ELE"], n, balance, seed=2)
    control = select(dyn, ["ACE", "ELE"], n, balance, seed=2, control="random")
    assert golds(dyn, control) == golds(dyn, subset)
    assert len(set(control)) == len(control)
    assert set(categorize(dyn.subset(control))) >= {SOI.ACE, SOI.ELE, SOI.LLE}  # drawn from all examples


def test_the_control_is_uniform_within_a_class(dyn: TrainingDynamics) -> None:
    hits = dict.fromkeys(dyn.ids.tolist(), 0)
    subset = select(dyn, "FRGE_1")
    for seed in range(300):
        for key in select(dyn, "FRGE_1", control="random", seed=seed):
            hits[key] += 1
    for label, taken in enumerate(golds(dyn, subset)):
        member = dyn.ids[dyn.gold == label]
        rate = taken / len(member)
        counts = np.array([hits[k] for k in member])
        assert abs(counts.mean() - 300 * rate) < 1e-9
        assert abs(counts.std() / np.sqrt(300 * rate * (1 - rate)) - 1) < 0.15


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"which": []}, ""),
        ({"which": "FRGE1"}, "FRGE_1"),
        ({"which": [9]}, "9"),
        ({"which": "ACE", "n": 0}, "0"),
        ({"which": "ACE", "n": 601}, "601"),
        ({"which": "ACE", "control": "same"}, "'same'"),
        ({"which": "UNE", "n": 16, "balance": True}, ""),
    ],
)
def test_subsets_that_cannot_be_drawn_are_an_error(dyn: TrainingDynamics, arguments: dict, words: str) -> None:
    with pytest.raises(SelectionError, match=words or None):
        select(dyn, **arguments)


def test_an_empty_category_and_a_missing_class() -> None:
    p = np.full((4, 6), 0.9)
    dyn = TrainingDynamics(range(6), [0, 0, 0, 1, 1, 1], p, p > 0.5)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="UNE"):
        select(dyn, "UNE")
    some = np.tile(dyn.gold == 0, (4, 1))
    with pytest.raises(SelectionError, match=r"class 0.*UNE"):
        select(TrainingDynamics(range(6), dyn.gold, p, some), "UNE", balance=True)
    with pytest.raises(RangeError):
        select(dyn, "hard", fraction=2)
