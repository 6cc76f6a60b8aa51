"""Agreement between runs: Cohen's kappa where that is defined, nothing where nothing repeats."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from soi_lib.analysis.agreement import change_rates, repeat_kappa
from soi_lib.analysis.soi import SOI
from soi_lib.errors import FormatError


def codes_of(rng: np.random.Generator, n: int = 300, seeds: int = 2, repeat: float = 0.5) -> np.ndarray:
    """Categories that are an example's own with probability `repeat`, drawn anew otherwise."""
    own = rng.choice(6, n, p=[0.05, 0.4, 0.3, 0.1, 0.1, 0.05])
    other = rng.choice(6, (seeds, n), p=[0.05, 0.4, 0.3, 0.1, 0.1, 0.05])
    return np.where(rng.random((seeds, n)) < repeat**0.5, own, other)


def test_two_runs_give_cohens_kappa(rng: np.random.Generator) -> None:
    codes = codes_of(rng)
    assert repeat_kappa(codes).value == pytest.approx(cohen_kappa_score(*codes))
    for soi in SOI:
        assert repeat_kappa(codes, soi).value == pytest.approx(cohen_kappa_score(*(codes == soi)))


def test_more_runs_give_a_mean_over_pairs(rng: np.random.Generator) -> None:
    codes = codes_of(rng, seeds=4, n=2000)
    found = repeat_kappa(codes)
    pairs = [cohen_kappa_score(a, b) for a, b in combinations(codes, 2)]
    assert found.value == pytest.approx(np.mean(pairs), abs=2e-3)
    assert (found.n, found.seeds) == (2000, 4)
    assert found.low < 0.5 < found.high  # what it was made with


def test_perfect_repetition_and_none(rng: np.random.Generator) -> None:
    codes = codes_of(rng, seeds=1).repeat(3, axis=0)
    found = repeat_kappa(codes)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    apart = repeat_kappa(codes_of(rng, n=3000, seeds=3, repeat=0.0))
    assert apart.low < 0 < apart.high


def test_members_with_different_shares_are_no_agreement(rng: np.random.Generator) -> None:
    """Pooled, two members of different shares look repeatable; compared each by itself they are not."""
    first = rng.choice([1, 2], (2, 500), p=[0.9, 0.1])
    second = rng.choice([1, 2], (2, 500), p=[0.1, 0.9])
    assert repeat_kappa(np.hstack([first, second])).low > 0.4
    found = repeat_kappa([first, second])
    assert found.low < 0 < found.high
    assert found.n == 1000


def test_the_interval_covers(rng: np.random.Generator) -> None:
    hits = [f.low <= 0.5 <= f.high for f in (repeat_kappa(codes_of(rng), resamples=400) for _ in range(200))]
    assert 0.9 <= np.mean(hits) <= 0.99


def test_where_nothing_can_repeat() -> None:
    for codes in (np.ones((1, 5), np.int8), np.ones((3, 5), np.int8)):
        assert np.isnan(repeat_kappa(codes).value)
    assert np.isnan(repeat_kappa(np.array([[1, 2], [2, 1]]), SOI.UNE).value)


def test_what_are_no_categories() -> None:
    with pytest.raises(FormatError, match="no categories"):
        repeat_kappa(np.array([[0, 6]]))
    with pytest.raises(FormatError, match="no categories"):
        repeat_kappa(np.array([[0.5, 1.0]]))
    with pytest.raises(FormatError, match="different numbers of runs"):
        repeat_kappa([np.ones((2, 3), int), np.ones((3, 3), int)])


def test_change_rates_are_means_over_pairs_of_runs(rng: np.random.Generator) -> None:
    codes = codes_of(rng, seeds=5)
    across, floors = change_rates(codes, 3)
    assert np.allclose(across, np.mean([codes[i] != codes[j] for i in range(3) for j in (3, 4)], axis=0))
    assert np.allclose(floors[0], np.mean([codes[i] != codes[j] for i, j in combinations(range(3), 2)], axis=0))
    assert np.allclose(floors[1], codes[3] != codes[4])


def test_one_run_has_no_floor(rng: np.random.Generator) -> None:
    codes = codes_of(rng, seeds=2)
    across, floors = change_rates(codes, 1)
    assert np.allclose(across, codes[0] != codes[1])
    assert np.isnan(floors).all()
