"""Which moves are more than noise: means over pairs, silent where nothing happened, planted moves found."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from synthetic import learn

from soi_lib.analysis.soi import SOI
from soi_lib.analysis.statistics import benjamini_hochberg
from soi_lib.analysis.transition_test import paired_transition_test, transition_test
from soi_lib.analysis.transitions import common_codes, mean_transition, noise_floor
from soi_lib.errors import AlignmentError


def test_transition_and_floor_are_the_means_over_pairs_of_runs() -> None:
    single = [learn(300, 8, seed=s) for s in range(3)]
    multi = [learn(300, 8, seed=s + 9, gain=2.2) for s in range(2)]
    found = transition_test(single, multi, resamples=200)
    np.testing.assert_allclose(found.transition, mean_transition([(a, b) for a in single for b in multi]), atol=1e-3)
    np.testing.assert_allclose(found.floor, noise_floor(single), atol=1e-3)
    np.testing.assert_allclose(found.difference, found.transition - found.floor)
    assert (found.n, found.seeds) == (300, (3, 2))


def test_a_real_change_is_found_where_it_was_put() -> None:
    single = [learn(600, 8, seed=s) for s in range(3)]
    multi = [learn(600, 8, seed=s + 9, gain=2.4) for s in range(3)]
    found = transition_test(single, multi)
    assert bool(found.significant.loc["FRGE_1", "ELE"])
    assert found.residual.loc["FRGE_1", "ELE"] > 3
    marked = found.significant.to_numpy()
    assert (found.q.to_numpy()[marked] <= 0.05).all()


def test_the_setting_that_changes_nothing_rarely_alarms() -> None:
    alarms = []
    for k in range(40):
        runs = [learn(200, 6, seed=10 * k + s) for s in range(6)]
        alarms.append(transition_test(runs[:3], runs[3:], resamples=300).significant.to_numpy().any())
    assert np.mean(alarms) <= 0.05


def test_residuals_are_in_standard_deviations_of_all_arrangements() -> None:
    """Three examples over two runs and one, against all 6**3 arrangements of their categories."""
    runs = [learn(3, 6, seed=s, noise=3.0) for s in range(3)]
    codes = common_codes(runs)
    every = []
    for orders in product(permutations(range(3)), repeat=3):
        c = np.stack([codes[list(order), i] for i, order in enumerate(orders)], axis=1)
        difference = np.zeros((6, 6))
        for s in (0, 1):
            np.add.at(difference, (c[s], c[2]), 1 / 2)
            np.add.at(difference, (c[s], c[1 - s]), -1 / 2)
        every.append(difference)
    found = transition_test(runs[:2], runs[2:], resamples=40_000)
    moved = np.std(every, axis=0) > 0
    assert moved.any()
    expected = found.difference.to_numpy()[moved] / np.std(every, axis=0)[moved]
    np.testing.assert_allclose(found.residual.to_numpy()[moved], expected, atol=0.05)


def test_too_few_runs_and_strangers_are_refused() -> None:
    a = learn(20, 6)
    with pytest.raises(AlignmentError):
        transition_test([a], [a])
    with pytest.raises(AlignmentError):
        transition_test([a, a], [learn(20, 6, member="movie")])


# --- runs of the same seeds ------------------------------------------------------------------------------------------


def planted(rng, seeds: int = 5, n: int = 400, *, moved: float = 0.0, shared: float = 0.0):
    """Codes alone and together: the examples of `moved` go from ELE to ACE; `shared` of them repeat within a seed."""
    tendency = rng.dirichlet([0.3] * 6, size=n)
    cumulated = tendency.cumsum(axis=1)

    def draw() -> np.ndarray:
        return (rng.random((seeds, n, 1)) > cumulated).sum(axis=2).clip(max=5)

    single, multi = draw(), draw()
    multi = np.where(rng.random((seeds, n)) < shared, single, multi)
    goes = (rng.random(n) < moved) & (tendency.argmax(axis=1) == SOI.ELE)
    multi[:, goes] = np.where(multi[:, goes] == SOI.ELE, SOI.ACE, multi[:, goes])
    return single, multi


def count(a, b) -> np.ndarray:
    out = np.zeros((6, 6))
    np.add.at(out, (a, b), 1)
    return out / len(a)


def test_transition_and_floor_are_means_over_pairs_of_different_seeds() -> None:
    single, multi = planted(np.random.default_rng(0), seeds=4)
    found = paired_transition_test(single, multi)
    pairs = list(permutations(range(4), 2))
    np.testing.assert_allclose(
        found.transition, np.mean([count(single[i], multi[j]) for i, j in pairs], axis=0), atol=1e-6
    )
    np.testing.assert_allclose(found.floor, np.mean([count(single[i], single[j]) for i, j in pairs], axis=0), atol=1e-6)
    values = [[effect.value for effect in row] for row in found.effects]
    np.testing.assert_allclose(values, found.difference, atol=1e-6)


def test_swaps_within_seeds_are_all_counted() -> None:
    single, multi = planted(np.random.default_rng(1), seeds=3, moved=1.0)
    found = paired_transition_test(single, multi)
    larger = np.zeros((6, 6))
    swaps = [np.array(s)[:, None] for s in product((0, 1), repeat=3) if sum(s) < 3]
    for swap in swaps:
        other = paired_transition_test(np.where(swap, multi, single), np.where(swap, single, multi))
        larger += np.abs(other.difference) >= np.abs(found.difference) - 1e-6
    np.testing.assert_allclose(found.swap_p, larger / len(swaps))


def test_what_the_runs_of_a_seed_share_is_no_move() -> None:
    """Runs of one seed that agree more than runs of different seeds made a transition smaller than its floor."""
    rng = np.random.default_rng(2)
    z = [paired_transition_test(*planted(rng, n=200, shared=0.3)).effects[1][1] for _ in range(150)]
    values = [e.value for e in z]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


def test_false_moves_are_rare_and_planted_ones_found() -> None:
    rng = np.random.default_rng(3)
    false, seen = [], []
    for _ in range(60):
        tests = [paired_transition_test(*planted(rng)), paired_transition_test(*planted(rng, moved=0.6))]
        adjusted = benjamini_hochberg([test.p for test in tests])
        hits = [(q <= 0.05) & (test.swap_p <= 0.05) for q, test in zip(adjusted, tests, strict=True)]
        false.append(hits[0].any())
        seen.append(hits[1][SOI.ELE, SOI.ACE])
    assert np.mean(false) <= 0.1
    assert np.mean(seen) >= 0.9


def test_runs_that_do_not_fit_are_refused() -> None:
    single, multi = planted(np.random.default_rng(0))
    for a, b in ((single[:2], multi[:2]), (single, multi[:, :10])):
        with pytest.raises(AlignmentError):
            paired_transition_test(a, b)
