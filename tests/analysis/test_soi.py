"""The six categories against a plain loop, on every possible history of up to 12 epochs."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from synthetic import learn

from soi_lib.analysis.soi import SOI, categorize, soi_counts, soi_shares, soi_table
from soi_lib.errors import FormatError, RangeError


def by_hand(history: tuple[int, ...], early: Fraction) -> SOI:
    """Apply the rule as the method page states it, in exact arithmetic."""
    if not any(history):
        return SOI.UNE
    if all(history):
        return SOI.ACE
    forgotten = sum(now > then for now, then in pairwise(history))
    if forgotten >= 2:
        return SOI.FRGE_2
    if forgotten == 1:
        return SOI.FRGE_1
    k = history.index(1)
    return SOI.ELE if k < early * len(history) else SOI.LLE


@pytest.mark.parametrize("epochs", range(1, 13))
def test_all_histories_agree_with_the_rule(epochs: int) -> None:
    histories = list(product((0, 1), repeat=epochs))
    correct = np.array([*histories, histories[-1]], dtype=bool).T  # more examples than histories: looked up in a table
    for early in ("0.5", "0.3", "0.7", "1", "0.01", "0.07"):
        expected = [by_hand(h, Fraction(early)) for h in [*histories, histories[-1]]]
        found = categorize(correct, float(early))
        assert found.dtype == np.int8
        assert found.tolist() == [int(e) for e in expected]


@pytest.mark.parametrize("epochs", [17, 40, 64])
def test_long_histories(epochs: int, rng: np.random.Generator) -> None:
    correct = np.sort(rng.random((epochs, 300)), axis=0) > rng.random(300)
    correct ^= rng.random(correct.shape) < rng.choice([0, 0.01, 0.3], 300)
    expected = [int(by_hand(tuple(int(c) for c in column), Fraction(1, 2))) for column in correct.T]
    assert set(expected) == {0, 1, 2, 3, 4, 5}
    assert categorize(correct).tolist() == expected


@pytest.mark.parametrize("early", ["0.14", "0.28", "0.58"])
def test_a_bound_that_floating_point_misses(early: str) -> None:
    """0.28 * 25 is slightly more than 7 in floating point; a first correct epoch at the bound is late."""
    for epochs in range(2, 65):
        bound = math.ceil(Fraction(early) * epochs)
        for k in {max(1, bound - 1), min(epochs - 1, max(1, bound))}:
            history = tuple(int(e >= k) for e in range(epochs))
            assert categorize(np.array([history], bool).T, float(early))[0] == by_hand(history, Fraction(early))


def test_counts_and_shares_cover_everything() -> None:
    a, b = learn(300, 6), learn(300, 6, seed=1)
    codes = categorize(a)
    counts = soi_counts(codes)
    assert counts == {soi.name: int((codes == soi).sum()) for soi in SOI}
    assert soi_shares(codes) == {name: count / 300 for name, count in counts.items()}
    assert soi_shares([]) == dict.fromkeys(counts, 0.0)
    table = soi_table({"alone": a, "together": b}, shares=False)
    assert table.loc["together"].to_dict() == soi_counts(categorize(b.correct))
    assert soi_table({"alone": a}).loc["alone"].to_dict() == soi_shares(codes)


def test_wrong_input_is_an_error() -> None:
    for early in (0, 1.01, float("nan")):
        with pytest.raises(RangeError, match="early"):
            categorize(np.ones((3, 2), bool), early)
    for wrong in (np.ones((3, 2)), np.ones(3, bool)):
        with pytest.raises(FormatError):
            categorize(wrong)
    with pytest.raises(RangeError, match="65"):
        categorize(np.ones((65, 2), bool))
