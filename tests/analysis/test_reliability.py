"""Agreement between runs: planted ones are found, and categories give Cohen's kappa."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score
from synthetic import learn

from soi_lib.analysis.reliability import change_rates, reliability, repeat_kappa, runs_needed, spearman_brown
from soi_lib.analysis.soi import SOI, categorize
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError, RangeError


def planted(truth: float, *, runs: int = 6, n: int = 400, epochs: int = 4, seed: int = 0) -> list[TrainingDynamics]:
    """Runs whose confidence is a common part with a share `truth` of the variance, plus the luck of each run.

    What happens in the second half of the epochs is luck alone.
    """
    rng = np.random.default_rng(seed)
    common = rng.normal(size=n) * truth**0.5
    out = []
    for _ in range(runs):
        own = common + rng.normal(size=n) * (1 - truth) ** 0.5
        late = rng.normal(size=n) * 0.01
        p = 0.5 + 0.1 * np.stack([own] * (epochs // 2) + [late] * (epochs - epochs // 2))
        p = p.clip(0, 1).astype(np.float32)
        out.append(TrainingDynamics(np.arange(n), np.zeros(n, np.int16), p, p > 0.5, {"classes": 2}))
    return out


def rank_correlation(correlation: float) -> float:
    """Spearman's for two normal variables with this correlation."""
    return 6 / np.pi * np.arcsin(correlation / 2)


@pytest.mark.parametrize("truth", [0.3, 0.6, 0.9])
def test_agreement_is_the_planted_one(truth) -> None:
    found = reliability(planted(truth, n=2000)).table.set_index("score").loc["confidence"]
    assert found["agreement"] == pytest.approx(rank_correlation(truth), abs=0.03)
    assert found["low"] < found["agreement"] < found["high"]
    assert found["runs_low"] <= runs_needed(rank_correlation(truth), 0.8) <= found["runs_high"]
    assert found["early"] == pytest.approx(rank_correlation(truth), abs=0.03)
    assert found["late"] == pytest.approx(0, abs=0.05)


def test_agreement_of_averages_is_as_predicted_and_as_planted() -> None:
    found = reliability(planted(0.4, runs=8, n=2000))
    curve = found.curve[found.curve["score"] == "confidence"].set_index("k")
    assert curve.index.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(curve["measured"], curve["predicted"], atol=0.03)
    expected = [rank_correlation(spearman_brown(0.4, k)) for k in curve.index]
    np.testing.assert_allclose(curve["measured"], expected, atol=0.03)


@pytest.mark.parametrize("runs", [2, 3])
def test_intervals_contain_the_truth_as_often_as_they_say(runs) -> None:
    inside = []
    for seed in range(80):
        row = reliability(planted(0.5, runs=runs, n=100, seed=seed)).table.set_index("score").loc["confidence"]
        inside.append(row["low"] <= rank_correlation(0.5) <= row["high"])
    assert np.mean(inside) >= 0.9


def test_numbers_are_spearmans_and_categories_kappa() -> None:
    runs = [learn(300, 6, seed=seed) for seed in range(3)]
    table = reliability(runs).table.set_index("score")
    pairs = [(0, 1), (0, 2), (1, 2)]
    confidence = [run.p_gold.mean(axis=0) for run in runs]
    expected = np.mean([spearmanr(confidence[a], confidence[b]).statistic for a, b in pairs])
    assert table.loc["confidence", "agreement"] == pytest.approx(expected, abs=1e-9)
    kappa = repeat_kappa(np.stack([categorize(run) for run in runs])).value
    assert table.loc["category", "agreement"] == pytest.approx(kappa, abs=0.01)


def test_what_never_varies_has_no_agreement() -> None:
    runs = [TrainingDynamics(r.ids, r.gold, r.p_gold, np.ones_like(r.correct)) for r in planted(0.5)]
    table = reliability(runs).table.set_index("score")
    assert table.loc[["category", "correctness", "forgetfulness"], "agreement"].isna().all()
    assert table.loc["confidence", "agreement"] > 0.3


def test_what_cannot_be_compared_is_refused() -> None:
    a, b = planted(0.5, runs=2)
    for runs in (
        [a],
        [a, a],
        [a, planted(0.5, runs=1, epochs=3)[0]],
        [a, TrainingDynamics(b.ids, b.gold, b.p_gold, b.correct, {"record": "eval"})],
        [a, TrainingDynamics(b.ids + 1000, b.gold, b.p_gold, b.correct)],
    ):
        with pytest.raises(AlignmentError):
            reliability(runs)
    with pytest.raises(RangeError, match="target"):
        reliability([a, b], target=1.0)


# --- kappa and rates of change of categories -------------------------------------------------------------------------


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


def test_datasets_with_different_shares_are_no_agreement(rng: np.random.Generator) -> None:
    """Pooled, two members of different shares look repeatable; compared each by itself they are not."""
    first = rng.choice([1, 2], (2, 500), p=[0.9, 0.1])
    second = rng.choice([1, 2], (2, 500), p=[0.1, 0.9])
    assert repeat_kappa(np.hstack([first, second])).low > 0.4
    found = repeat_kappa([first, second])
    assert found.low < 0 < found.high
    assert found.n == 1000


def test_the_interval_of_kappa_covers(rng: np.random.Generator) -> None:
    hits = [f.low <= 0.5 <= f.high for f in (repeat_kappa(codes_of(rng), resamples=400) for _ in range(200))]
    assert 0.9 <= np.mean(hits) <= 0.99


def test_change_rates_are_means_over_pairs_of_runs(rng: np.random.Generator) -> None:
    codes = codes_of(rng, seeds=5)
    across, floors = change_rates(codes, 3)
    assert np.allclose(across, np.mean([codes[i] != codes[j] for i in range(3) for j in (3, 4)], axis=0))
    assert np.allclose(floors[0], np.mean([codes[i] != codes[j] for i, j in combinations(range(3), 2)], axis=0))
    assert np.allclose(floors[1], codes[3] != codes[4])
    across, floors = change_rates(codes[:2], 1)
    assert np.allclose(across, codes[0] != codes[1])
    assert np.isnan(floors).all()  # one run has no floor
