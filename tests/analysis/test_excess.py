"""Which moves are more than noise: exact where it can be counted, silent where nothing happened."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from synthetic import learn

from soi_lib.analysis.excess import _shuffled, common_codes, excess_transition
from soi_lib.analysis.transitions import mean_transition, noise_floor
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError


def test_transition_and_floor_are_the_means_over_pairs() -> None:
    single = [learn(300, 8, seed=s) for s in range(3)]
    multi = [learn(300, 8, seed=s + 9, gain=2.2) for s in range(2)]
    found = excess_transition(single, multi, resamples=200)
    np.testing.assert_allclose(found.transition, mean_transition([(a, b) for a in single for b in multi]), atol=1e-3)
    np.testing.assert_allclose(found.floor, noise_floor(single), atol=1e-3)
    np.testing.assert_allclose(found.difference, found.transition - found.floor)
    assert (found.n, found.seeds) == (300, (3, 2))


def test_a_real_change_is_found_and_is_where_it_was_put() -> None:
    single = [learn(600, 8, seed=s) for s in range(3)]
    multi = [learn(600, 8, seed=s + 9, gain=2.4) for s in range(3)]
    found = excess_transition(single, multi)
    assert bool(found.significant.loc["FRGE_1", "ELE"])
    assert found.residual.loc["FRGE_1", "ELE"] > 3
    marked = found.significant.to_numpy()
    assert (found.q.to_numpy()[marked] <= 0.05).all()


def test_the_setting_that_changes_nothing_rarely_alarms() -> None:
    alarms = []
    for k in range(40):
        runs = [learn(200, 6, seed=10 * k + s) for s in range(6)]
        alarms.append(excess_transition(runs[:3], runs[3:], resamples=300).significant.to_numpy().any())
    assert np.mean(alarms) <= 0.05


def test_the_same_runs_show_no_excess() -> None:
    run = learn(100, 6)
    found = excess_transition([run, run], [run])
    assert found.difference.to_numpy().any() == np.False_
    assert found.p.isna().to_numpy().all()
    assert not found.significant.to_numpy().any()


def test_shuffles_have_the_moments_of_all_arrangements() -> None:
    """Mean and variance of a shuffle of three examples over three runs, against all 6**3 arrangements."""
    codes = np.array([[0, 1, 1], [1, 1, 4], [5, 1, 0]], dtype=np.int8)  # (runs, examples)
    every = []
    for p in permutations(range(3)):
        for q in permutations(range(3)):
            for r in permutations(range(3)):
                c = np.stack([codes[list(o), i] for i, o in enumerate((p, q, r))], axis=1)
                t, f = np.zeros((6, 6)), np.zeros((6, 6))
                for i in range(3):
                    for s in (0, 1):
                        t[c[s, i], c[2, i]] += 1 / 2
                        f[c[s, i], c[1 - s, i]] += 1 / 2
                every.append(t - f)
    drawn = _shuffled(codes, 2, 40_000, 0)
    np.testing.assert_allclose(drawn.mean(0), np.mean(every, axis=0), atol=0.02)
    np.testing.assert_allclose(drawn.std(0), np.std(every, axis=0), atol=0.02)
    np.testing.assert_allclose(np.mean(every, axis=0), 0, atol=1e-12)


def test_the_same_seed_gives_the_same() -> None:
    runs = [learn(100, 6, seed=s) for s in range(4)]
    a, b = (excess_transition(runs[:2], runs[2:], resamples=100, seed=3) for _ in range(2))
    assert a.p.equals(b.p)


def test_only_what_all_runs_share_counts() -> None:
    a, b, c = (learn(50, 6, seed=s) for s in range(3))
    codes = common_codes([a.subset(a.ids[::-1]), b.subset(b.ids[5:]), c.subset(c.ids[:40])])
    assert codes.shape == (3, 35)
    found = common_codes([a, b])
    assert np.array_equal(found[0], common_codes([a.subset(a.ids[::-1]), b])[0])


def test_too_few_runs_and_strangers() -> None:
    a = learn(20, 6)
    with pytest.raises(AlignmentError, match="1 single and 1 multi"):
        excess_transition([a], [a])
    with pytest.raises(AlignmentError, match="in common"):
        excess_transition([a, a], [learn(20, 6, member="movie")])
    p = np.full((2, 2), 0.5)
    three = [TrainingDynamics(ids, [0, 0], p, p > 0) for ids in ([1, 2], [2, 3], [1, 3])]  # type: ignore[arg-type]
    with pytest.raises(AlignmentError, match="all the runs"):
        common_codes(three)
