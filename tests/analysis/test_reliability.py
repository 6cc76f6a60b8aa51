"""Agreement between runs: planted agreement is found, and that of categories is Cohen's kappa."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score
from synthetic import learn

from soi_lib.analysis.reliability import reliability, runs_needed, spearman_brown
from soi_lib.analysis.soi import categorize
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError, RangeError


def planted(truth: float, *, runs: int = 6, n: int = 400, epochs: int = 4, seed: int = 0) -> list[TrainingDynamics]:
    """Make runs that share `truth` of the variance of confidence in their first half of epochs, and nothing later."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=n) * truth**0.5
    out = []
    for _ in range(runs):
        own = common + rng.normal(size=n) * (1 - truth) ** 0.5
        late = rng.normal(size=n) * 0.01
        p = 0.5 + 0.1 * np.stack([own] * (epochs // 2) + [late] * (epochs - epochs // 2), dtype=np.float32)
        p = p.clip(0, 1)
        out.append(TrainingDynamics(np.arange(n), np.zeros(n, np.int16), p, p > 0.5, {"classes": 2}))
    return out


def rank_correlation(correlation: float) -> float:
    """Return Spearman's coefficient of two normal variables with this correlation."""
    return 6 / np.pi * np.arcsin(correlation / 2)


@pytest.mark.parametrize("truth", [0.3, 0.6, 0.9])
def test_planted_agreement_is_found(truth) -> None:
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
    tables = [reliability(planted(0.5, runs=runs, n=100, seed=seed)).table for seed in range(80)]
    rows = [table.set_index("score").loc["confidence"] for table in tables]
    assert np.mean([row["low"] <= rank_correlation(0.5) <= row["high"] for row in rows]) >= 0.9


def test_numbers_are_spearmans_and_categories_kappa() -> None:
    runs = [learn(300, 6, seed=seed) for seed in range(3)]
    table = reliability(runs).table.set_index("score")
    pairs = [(0, 1), (0, 2), (1, 2)]
    confidence = [run.p_gold.mean(axis=0) for run in runs]
    expected = np.mean([spearmanr(confidence[a], confidence[b]).statistic for a, b in pairs])
    assert table.loc["confidence", "agreement"] == pytest.approx(expected, abs=1e-9)
    kappa = np.mean([cohen_kappa_score(categorize(runs[a]), categorize(runs[b])) for a, b in pairs])
    assert table.loc["category", "agreement"] == pytest.approx(kappa, abs=0.01)


def test_a_constant_score_has_no_agreement() -> None:
    runs = [TrainingDynamics(r.ids, r.gold, r.p_gold, np.ones_like(r.correct)) for r in planted(0.5)]
    table = reliability(runs).table.set_index("score")
    assert table.loc[["category", "correctness", "forgetfulness"], "agreement"].isna().all()
    assert table.loc["confidence", "agreement"] > 0.3


def test_runs_that_cannot_be_compared_are_an_error() -> None:
    a, b = planted(0.5, runs=2)
    for runs in (
        [a],
        [a, a],
        [a, planted(0.5, runs=1, epochs=3)[0]],
        [a, TrainingDynamics(b.ids, b.gold, b.p_gold, b.correct, {"record": "eval"})],
        [a, TrainingDynamics(b.ids + 1000, b.gold, b.p_gold, b.correct)],
        [TrainingDynamics(r.ids, r.gold, r.p_gold, r.correct, {"seed": 0}) for r in (a, b)],  # one seed, twice
    ):
        with pytest.raises(AlignmentError):
            reliability(runs)
    with pytest.raises(RangeError, match="target"):
        reliability([a, b], target=1.0)
