"""Which moves are more than noise: means over pairs, silent where nothing happened, planted moves found."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from soi_lib.analysis.soi import SOI
from soi_lib.analysis.transition_test import transition_test
from soi_lib.errors import AlignmentError


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
    found = transition_test(single, multi)
    pairs = list(permutations(range(4), 2))
    np.testing.assert_allclose(
        found.transition, np.mean([count(single[i], multi[j]) for i, j in pairs], axis=0), atol=1e-6
    )
    np.testing.assert_allclose(found.floor, np.mean([count(single[i], single[j]) for i, j in pairs], axis=0), atol=1e-6)
    values = [[effect.value for effect in row] for row in found.effects]
    np.testing.assert_allclose(values, found.difference, atol=1e-6)


def test_swaps_within_seeds_are_all_counted() -> None:
    single, multi = planted(np.random.default_rng(1), seeds=3, moved=1.0)
    found = transition_test(single, multi)
    larger = np.zeros((6, 6))
    swaps = [np.array(s)[:, None] for s in product((0, 1), repeat=3) if sum(s) < 3]
    for swap in swaps:
        other = transition_test(np.where(swap, multi, single), np.where(swap, single, multi))
        larger += np.abs(other.difference) >= np.abs(found.difference) - 1e-6
    np.testing.assert_allclose(found.swap_p, larger / len(swaps))


def test_what_the_runs_of_a_seed_share_is_no_move() -> None:
    """Runs of one seed that agree more than runs of different seeds made a transition smaller than its floor."""
    rng = np.random.default_rng(2)
    z = [transition_test(*planted(rng, n=200, shared=0.3)).effects[1][1] for _ in range(150)]
    values = [e.value for e in z]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


@pytest.mark.parametrize("seeds", [3, 5])
def test_false_moves_are_rare_and_planted_ones_found(seeds) -> None:
    rng = np.random.default_rng(3)
    false, seen = [], []
    for _ in range(60):
        false.append(transition_test(*planted(rng, seeds)).beyond_chance().any())
        seen.append(transition_test(*planted(rng, seeds, moved=0.6)).beyond_chance()[SOI.ELE, SOI.ACE])
    assert np.mean(false) <= 0.1
    assert np.mean(seen) >= 0.9


def test_runs_that_do_not_fit_are_refused() -> None:
    single, multi = planted(np.random.default_rng(0))
    for a, b in ((single[:2], multi[:2]), (single, multi[:, :10])):
        with pytest.raises(AlignmentError):
            transition_test(a, b)
