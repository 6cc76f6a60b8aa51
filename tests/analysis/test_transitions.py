"""Transitions against counting by hand, alignment by id and the noise floor."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import learn

from soi_lib.analysis.soi import SOI, categorize
from soi_lib.analysis.transitions import common_codes, mean_transition, noise_floor, transition_matrix
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


def test_only_what_all_runs_share_counts() -> None:
    a, b, c = (learn(50, 6, seed=s) for s in range(3))
    codes = common_codes([a.subset(a.ids[::-1]), b.subset(b.ids[5:]), c.subset(c.ids[:40])])
    assert np.array_equal(codes, [categorize(run)[5:40] for run in (a, b, c)])
    p = np.full((2, 2), 0.5)
    three = [TrainingDynamics(ids, [0, 0], p, p > 0) for ids in ([1, 2], [2, 3], [1, 3])]  # type: ignore[arg-type]
    with pytest.raises(AlignmentError):
        common_codes(three)


def test_what_cannot_be_compared() -> None:
    a = learn(20, 6)
    with pytest.raises(AlignmentError):
        noise_floor([a])
    with pytest.raises(AlignmentError):
        mean_transition([])
    with pytest.raises(AlignmentError):
        transition_matrix(a, learn(20, 6, member="movie"))
    with pytest.raises(AlignmentError, match="gold"):
        transition_matrix(a, learn(20, 6, corpus=8))
