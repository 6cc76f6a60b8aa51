"""Scores against scikit-learn; intervals and p-values on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, kstest, ttest_1samp
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from soi_lib.analysis.statistics import benjamini_hochberg, contributions, mean_effect
from soi_lib.errors import FormatError


def test_benjamini_hochberg_ignores_nan(rng: np.random.Generator) -> None:
    p = rng.random((6, 6)) ** 3
    p[0] = np.nan
    found = benjamini_hochberg(p)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:].ravel(), false_discovery_control(p[1:].ravel()))
    assert np.isnan(benjamini_hochberg([np.nan])).all()


THEIRS = {
    "auc": roc_auc_score,
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "macro_f1": lambda gold, predicted: f1_score(gold, predicted, average="macro"),
}


def sample(score: str, n: int = 400):
    """Gold labels and three runs' predictions: unequal classes, and for AUC scores with ties."""
    rng = np.random.default_rng(1)
    if score == "auc":
        gold = (rng.random(n) < 0.3).astype(int)
        return gold, (rng.normal(size=(3, n)) + gold).round(1)
    gold = rng.choice(4, size=n, p=[0.4, 0.3, 0.2, 0.1])
    return gold, np.where(rng.random((3, n)) < 0.6, gold, rng.integers(4, size=(3, n)))


@pytest.mark.parametrize("score", THEIRS)
def test_contributions_average_to_the_score_of_scikit_learn(score) -> None:
    gold, given = sample(score)
    np.testing.assert_allclose(contributions(score, gold, given).mean(axis=1), [THEIRS[score](gold, x) for x in given])


@pytest.mark.parametrize("score", ["auc", "macro_f1"])
def test_the_spread_of_contributions_is_that_of_a_bootstrap(score) -> None:
    gold, given = sample(score)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(gold), size=(400, len(gold)))
    bootstrap = np.std([THEIRS[score](gold[i], given[0][i]) for i in draws])
    one = mean_effect(contributions(score, gold, given[:1]))
    assert one.by_examples**0.5 == pytest.approx(bootstrap, rel=0.1)


def planted(rng, seeds: int, n: int, seed_spread: float):
    """Draw a table of seeds by examples with mean zero."""
    return rng.normal(size=(seeds, 1)) * seed_spread + rng.normal(size=n) * 0.3 + rng.normal(size=(seeds, n)) * 0.3


@pytest.mark.parametrize(("seeds", "seed_spread"), [(1, 0.0), (3, 0.1), (5, 0.02), (10, 0.0)])
def test_intervals_contain_the_truth_as_often_as_they_say(seeds, seed_spread) -> None:
    rng = np.random.default_rng(seeds)
    effects = [mean_effect(planted(rng, seeds, 300, seed_spread)) for _ in range(800)]
    for level in (0.9, 0.95):
        inside = np.mean([e.interval(level).low <= 0 <= e.interval(level).high for e in effects])
        assert level - 0.025 <= inside <= level + 0.045


def test_tables_of_different_datasets_count_equally() -> None:
    rng = np.random.default_rng(3)
    effects = [mean_effect([planted(rng, 5, 100, 0.03), planted(rng, 5, 400, 0.03)]) for _ in range(800)]
    inside = np.mean([e.interval().low <= 0 <= e.interval().high for e in effects])
    assert 0.92 <= inside <= 0.99
    assert mean_effect([np.zeros((5, 10)), np.ones((5, 40))]).value == pytest.approx(0.5)


def test_p_is_the_level_at_which_the_interval_reaches_zero() -> None:
    found = mean_effect(planted(np.random.default_rng(0), 5, 300, 0.02) + 0.05)
    assert found.interval(1 - found.p).low == pytest.approx(0, abs=1e-6)
    only_seeds = np.repeat(np.random.default_rng(1).normal(0.1, 0.1, size=(5, 1)), 50, axis=1)
    assert mean_effect(only_seeds).p == pytest.approx(ttest_1samp(only_seeds[:, 0], 0).pvalue, rel=1e-4)
    rng = np.random.default_rng(2)
    assert kstest([mean_effect(planted(rng, 5, 200, 0.1)).p for _ in range(400)], "uniform").pvalue > 0.001


def test_wrong_input_is_an_error() -> None:
    for gold, given in (([0, 1], [0]), ([], [])):
        with pytest.raises(FormatError):
            contributions("accuracy", gold, given)
    with pytest.raises(FormatError, match="AUC"):
        contributions("auc", [1, 1], [[0.2, 0.3]])
    with pytest.raises(FormatError, match="acuracy"):
        contributions("acuracy", [1, 1], [[0, 1]])  # type: ignore[arg-type]
    for values in ([np.zeros((2, 3)), np.zeros((3, 3))], np.array([[0.1, np.nan]])):
        with pytest.raises(FormatError):
            mean_effect(values)
