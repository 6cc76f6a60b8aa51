"""Scores against scikit-learn; intervals, p-values and agreement of runs on data whose truth is known."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, kstest, spearmanr, ttest_1samp
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, f1_score, roc_auc_score
from synthetic import learn

from soi_lib.analysis.reliability import reliability, runs_needed, spearman_brown
from soi_lib.analysis.soi import categorize
from soi_lib.analysis.statistics import benjamini_hochberg, contributions, mean_effect
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError, FormatError, RangeError


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


def alike(truth: float, *, runs: int = 6, n: int = 400, epochs: int = 4, seed: int = 0) -> list[TrainingDynamics]:
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
    found = reliability(alike(truth, n=2000)).table.set_index("score").loc["confidence"]
    assert found["agreement"] == pytest.approx(rank_correlation(truth), abs=0.03)
    assert found["low"] < found["agreement"] < found["high"]
    assert found["runs_low"] <= runs_needed(rank_correlation(truth), 0.8) <= found["runs_high"]
    assert found["early"] == pytest.approx(rank_correlation(truth), abs=0.03)
    assert found["late"] == pytest.approx(0, abs=0.05)


def test_agreement_of_averages_is_as_predicted_and_as_planted() -> None:
    found = reliability(alike(0.4, runs=8, n=2000))
    curve = found.curve[found.curve["score"] == "confidence"].set_index("k")
    assert curve.index.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(curve["measured"], curve["predicted"], atol=0.03)
    expected = [rank_correlation(spearman_brown(0.4, k)) for k in curve.index]
    np.testing.assert_allclose(curve["measured"], expected, atol=0.03)


@pytest.mark.parametrize("runs", [2, 3])
def test_intervals_of_agreement_contain_the_truth_as_often_as_they_say(runs) -> None:
    tables = [reliability(alike(0.5, runs=runs, n=100, seed=seed)).table for seed in range(80)]
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
    runs = [TrainingDynamics(r.ids, r.gold, r.p_gold, np.ones_like(r.correct)) for r in alike(0.5)]
    table = reliability(runs).table.set_index("score")
    assert table.loc[["category", "correctness", "forgetfulness"], "agreement"].isna().all()
    assert table.loc["confidence", "agreement"] > 0.3


def test_runs_that_cannot_be_compared_are_an_error() -> None:
    a, b = alike(0.5, runs=2)
    for runs in (
        [a],
        [a, a],
        [a, alike(0.5, runs=1, epochs=3)[0]],
        [a, TrainingDynamics(b.ids, b.gold, b.p_gold, b.correct, {"record": "eval"})],
        [a, TrainingDynamics(b.ids + 1000, b.gold, b.p_gold, b.correct)],
        [TrainingDynamics(r.ids, r.gold, r.p_gold, r.correct, {"seed": 0}) for r in (a, b)],  # one seed, twice
    ):
        with pytest.raises(AlignmentError):
            reliability(runs)
    with pytest.raises(RangeError, match="target"):
        reliability([a, b], target=1.0)
