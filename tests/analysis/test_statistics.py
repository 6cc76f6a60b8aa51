"""Scores against scikit-learn, intervals by their coverage, tests by what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from sklearn.metrics import accuracy_score, f1_score

from soi_lib.analysis import statistics
from soi_lib.analysis.statistics import (
    Interval,
    accuracy,
    benjamini_hochberg,
    difference_interval,
    macro_f1,
    mean_interval,
    metric_interval,
    share_intervals,
)
from soi_lib.errors import FormatError, RangeError


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_agree_with_scikit_learn(classes: int, rng: np.random.Generator) -> None:
    gold, said = rng.integers(0, classes, 200), rng.integers(0, classes + 1, 200)
    assert accuracy(gold, said) == pytest.approx(accuracy_score(gold, said))
    assert macro_f1(gold, said) == pytest.approx(f1_score(gold, said, average="macro"))
    assert macro_f1([1, 1], [1, 1]) == 1
    assert macro_f1([0, 0], [1, 1]) == 0


def test_interval_values_are_the_scores(rng: np.random.Generator) -> None:
    gold = rng.integers(0, 3, 300)
    said = np.where(rng.random((4, 300)) < 0.8, gold, rng.integers(0, 3, (4, 300)))
    for metric, score in (("accuracy", accuracy), ("macro_f1", macro_f1)):
        found = metric_interval(gold, said, metric)  # type: ignore[arg-type]
        assert found.value == pytest.approx(np.mean([score(gold, row) for row in said]))
        assert 0 < found.low < found.value < found.high < 1
        assert (found.n, found.seeds, found.level) == (300, 4, 0.95)
        change = difference_interval(gold, said[:2], said[2:], metric)  # type: ignore[arg-type]
        scores = [score(gold, row) for row in said]
        assert change.value == pytest.approx(np.mean(scores[2:]) - np.mean(scores[:2]))
    assert str(found).count(",") == 1


def test_resampling_kinds_equals_resampling_examples(rng: np.random.Generator) -> None:
    """One seed: the interval is the percentile bootstrap over examples, done here the long way."""
    gold = rng.integers(0, 2, 150)
    said = np.where(rng.random(150) < 0.7, gold, 1 - gold)
    rows = rng.integers(0, 150, (20_000, 150))
    low, high = np.quantile((gold[rows] == said[rows]).mean(1), [0.025, 0.975])
    found = metric_interval(gold, said)
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_pairing_makes_intervals_of_differences_shorter(rng: np.random.Generator) -> None:
    gold = rng.integers(0, 2, 400)
    first = np.where(rng.random(400) < 0.7, gold, 1 - gold)
    second = np.where(rng.random(400) < 0.05, gold, first)
    paired = difference_interval(gold, first, second)
    alone = metric_interval(gold, first)
    assert paired.high - paired.low < (alone.high - alone.low) / 2
    assert paired.excludes_zero == (paired.low > 0)
    assert not Interval(0.1, -0.1, 0.3, 0.95, 10, 1).excludes_zero
    assert Interval(-0.2, -0.3, -0.1, 0.95, 10, 1).excludes_zero


def test_equal_sides_differ_by_exactly_nothing() -> None:
    gold = np.arange(10) % 2
    found = difference_interval(gold, np.stack([gold, 1 - gold]), np.stack([gold, 1 - gold]))
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_seeds_that_disagree_make_intervals_longer_even_without_doubt_about_examples() -> None:
    values = np.repeat([[0.5], [0.6], [0.7]], 50, axis=1)  # every example says the same within a seed
    found = mean_interval(values)
    assert found.value == pytest.approx(0.6)
    assert found.high - found.value == pytest.approx(4.3027 * 0.1 / np.sqrt(3), rel=1e-3)  # Student's t, 2 degrees


def test_share_intervals_and_their_differences(rng: np.random.Generator) -> None:
    codes = rng.integers(0, 6, (3, 500))
    found = share_intervals(codes)
    assert list(found.index) == ["UNE", "ACE", "ELE", "LLE", "FRGE_1", "FRGE_2"]
    assert found["value"].sum() == pytest.approx(1)
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()
    change = share_intervals(codes, baseline=np.where(codes == 1, 2, codes))
    assert change.loc["ACE", "value"] == pytest.approx((codes == 1).mean())
    assert change.loc["ELE", "value"] == pytest.approx(-(codes == 1).mean())
    assert change.loc["UNE"].tolist() == [0, 0, 0]
    with pytest.raises(FormatError):
        share_intervals(codes, baseline=codes[:2])


def test_the_same_seed_gives_the_same_interval(rng: np.random.Generator) -> None:
    values = rng.random((3, 100))
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)
    wide, narrow = mean_interval(values, level=0.99), mean_interval(values, level=0.5)
    assert wide.high - wide.low > narrow.high - narrow.low


class World:
    """Two systems on crossed seeds and examples: both differ in ease, and the seeds differ in luck."""

    def __init__(self, seeds: int, n: int, luck: float, shift: float) -> None:
        self.seeds, self.n, self.luck, self.shift = seeds, n, luck, shift

    def draw(self, rng: np.random.Generator, seeds: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        gold = rng.integers(0, 2, n)
        ease, change = rng.normal(1, 1.5, n), rng.normal(self.shift, 0.5, n)
        a = ease + rng.normal(0, self.luck, (seeds, 1))
        b = a + change + rng.normal(0, self.luck, (seeds, 1))
        first, second = (np.where(rng.random((seeds, n)) < 1 / (1 + np.exp(-z)), gold, 1 - gold) for z in (a, b))
        return gold, first, second

    def truth(self) -> float:
        rng = np.random.default_rng(99)
        draws = [self.draw(rng, 200, 500) for _ in range(100)]
        return float(np.mean([(b == g).mean() - (a == g).mean() for g, a, b in draws]))


@pytest.mark.parametrize(
    "world", [World(1, 400, 0.0, 0.3), World(3, 300, 0.3, 0.3), World(3, 2000, 0.25, 0.0), World(5, 300, 0.4, 0.5)]
)
def test_intervals_cover_the_truth_93_to_97_times_in_100(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 800)
    truth, rng, trials = world.truth(), np.random.default_rng(1), 700
    hits = 0
    for _ in range(trials):
        found = difference_interval(*world.draw(rng, world.seeds, world.n))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / trials <= 0.97


def test_intervals_are_not_too_short_where_seeds_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 800)
    world, rng, trials = World(3, 300, 0.0, 0.3), np.random.default_rng(5), 400
    truth, hits = world.truth(), 0
    for _ in range(trials):
        found = difference_interval(*world.draw(rng, world.seeds, world.n))
        hits += found.low <= truth <= found.high
    assert 0.95 <= hits / trials < 1


def test_intervals_of_shares_cover_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 800)
    rng, trials, hits = np.random.default_rng(2), 700, 0
    wide = np.random.default_rng(3)
    p = 1 / (1 + np.exp(-(-2 + wide.normal(0, 1.5, (400_000, 1)) + wide.normal(0, 0.4, (400_000, 1)))))
    truth = float(p.mean())
    for _ in range(trials):
        z = -2 + rng.normal(0, 1.5, 400) + rng.normal(0, 0.4, (3, 1))
        found = mean_interval(rng.random((3, 400)) < 1 / (1 + np.exp(-z)))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / trials <= 0.97


def test_benjamini_hochberg_leaves_out_what_is_not_a_number(rng: np.random.Generator) -> None:
    p = rng.random((6, 6)) ** 3
    p[0] = np.nan
    found = benjamini_hochberg(p)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:].ravel(), false_discovery_control(p[1:].ravel()))
    assert np.isnan(benjamini_hochberg([np.nan])).all()


def test_wrong_input_is_refused() -> None:
    with pytest.raises(FormatError, match="fit"):
        accuracy([0, 1], [0])
    with pytest.raises(FormatError, match="fit"):
        accuracy([], [])
    with pytest.raises(FormatError, match="shapes"):
        difference_interval([0, 1], [0, 1], [[0, 1], [1, 1]])
    with pytest.raises(FormatError, match="accuracy"):
        metric_interval([0, 1], [0, 1], "acuracy")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="finite"):
        mean_interval([0.1, np.nan])
    with pytest.raises(RangeError, match="level"):
        mean_interval([0.1, 0.2], level=95)
