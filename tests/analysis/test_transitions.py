"""Transitions counted by hand; and moves beyond noise: rare where nothing was planted, found where something was."""

from itertools import permutations, product

import numpy as np
import pytest
from synthetic import learn

from soi_lib.analysis.soi import SOI, categorize
from soi_lib.analysis.transitions import (
    common_codes,
    mean_move,
    mean_transition,
    noise_floor,
    transition_matrix,
    transition_test,
)
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError


def test_counts_agree_with_counting_by_id(rng: np.random.Generator) -> None:
    a, b = learn(400, 8), learn(400, 8, seed=5, gain=2.2)
    part_a, part_b = a.subset(a.ids[rng.permutation(400)[:300]]), b.subset(b.ids[rng.permutation(400)[:350]])
    codes_a = dict(zip(part_a.ids, categorize(part_a, 0.3), strict=True))
    codes_b = dict(zip(part_b.ids, categorize(part_b, 0.3), strict=True))
    expected = np.zeros((6, 6), int)
    for key in set(codes_a) & set(codes_b):
        expected[codes_a[key], codes_b[key]] += 1
    table = transition_matrix(part_a, part_b, early=0.3)
    assert np.array_equal(table.to_numpy(), expected)
    assert table.to_numpy().dtype.kind == "i"


def test_normalisation() -> None:
    a, b = learn(400, 8), learn(400, 8, seed=5, gain=2.2)
    counts = transition_matrix(a, b).to_numpy()
    rows = transition_matrix(a, b, "row").to_numpy()
    full = counts.sum(1) > 0
    np.testing.assert_allclose(rows[full].sum(1), 1)
    np.testing.assert_allclose(rows[full], counts[full] / counts[full].sum(1, keepdims=True))
    np.testing.assert_allclose(transition_matrix(a, b, "all").to_numpy(), counts / 400)
    only = a.subset(categorize(a) == SOI.ACE)
    assert np.isnan(transition_matrix(only, b, "row").loc["UNE"]).all()


def test_mean_over_pairs_and_noise_floor() -> None:
    runs = [learn(200, 8, seed=s) for s in range(3)]
    floor = noise_floor(runs)
    ordered = [transition_matrix(x, y).to_numpy() for x in runs for y in runs if x is not y]
    np.testing.assert_allclose(floor, np.mean(ordered, axis=0))
    np.testing.assert_allclose(floor, floor.T)
    mean = mean_transition([(runs[0], runs[1]), (runs[0], runs[2])])
    assert mean.to_numpy().sum() == pytest.approx(200)
    np.testing.assert_allclose(noise_floor(runs, "all").to_numpy().sum(), 1)


def test_only_common_examples_are_compared() -> None:
    a, b, c = (learn(50, 6, seed=s) for s in range(3))
    codes = common_codes([a.subset(a.ids[::-1]), b.subset(b.ids[5:]), c.subset(c.ids[:40])])
    assert np.array_equal(codes, [categorize(run)[5:40] for run in (a, b, c)])
    p = np.full((2, 2), 0.5)
    three = [TrainingDynamics(ids, [0, 0], p, p > 0) for ids in ([1, 2], [2, 3], [1, 3])]  # type: ignore[arg-type]
    with pytest.raises(AlignmentError):
        common_codes(three)


def test_runs_that_cannot_be_compared_are_an_error() -> None:
    a = learn(20, 6)
    single, multi = planted(np.random.default_rng(0))
    for function, arguments in (
        (noise_floor, [[a]]),
        (mean_transition, [[]]),
        (transition_matrix, [a, learn(20, 6, member="movie")]),
        (transition_matrix, [a, learn(20, 6, corpus=8)]),  # other gold labels
        (transition_test, [single[:2], multi[:2]]),
        (transition_test, [single, multi[:, :10]]),
    ):
        with pytest.raises(AlignmentError):
            function(*arguments)


def planted(rng, seeds: int = 5, n: int = 400, *, moved: float = 0.0, shared: float = 0.0):
    """Draw categories alone and together; a share `moved` goes from ELE to ACE, a share `shared` repeats in a seed."""
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
    for table, second in ((found.transition, multi), (found.floor, single)):
        expected = np.mean([count(single[i], second[j]) for i, j in pairs], axis=0)
        np.testing.assert_allclose(table, expected, atol=1e-6)
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


def test_agreement_of_runs_of_one_seed_is_not_a_move() -> None:
    """Runs of one seed that agree more than runs of different seeds made a transition smaller than its floor."""
    rng = np.random.default_rng(2)
    values = [transition_test(*planted(rng, n=200, shared=0.3)).effects[1][1].value for _ in range(150)]
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


def test_mean_of_weighted_moves_has_an_interval_that_holds() -> None:
    """Without a change of setting, as many examples become easier as harder, and the interval rarely says otherwise."""
    rng = np.random.default_rng(4)
    weights = np.sign(np.arange(6)[:, None] - np.arange(6))  # codes as the order of difficulty
    single, multi = planted(rng, seeds=8, moved=1.0)
    found = mean_move(single, multi, weights)
    np.testing.assert_allclose(found.value, (transition_test(single, multi).difference * weights).sum(), atol=1e-6)
    assert found.interval(0.95).low > 0
    false = []
    for _ in range(100):
        interval = mean_move(*planted(rng), weights).interval(0.95)
        false.append(interval.low > 0 or interval.high < 0)
    assert np.mean(false) <= 0.1
