"""Disagreement of annotators, wrong labels, and similarity before training, on data with planted truth."""

import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from synthetic import learn

from paper import disagreement as measures
from paper import similarity
from paper.datasets.flipped import flip
from paper.disagreement import APART, FLIPPED_OVER_REST, OVER_REST, comparisons, contested, disagreement
from paper.recorded import CHECKSUMS, Results
from paper.similarity import open_similarity, task_similarity
from soi_lib.analysis.statistics import Effect, mean_effect
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import StoreError
from soi_lib.runs.config import Profile, Training


def partial_correlation(first: np.ndarray, second: np.ndarray, *controls: np.ndarray) -> Effect:
    return mean_effect(measures.partial_correlation(first, second, np.stack(controls)))


def test_disagreement_is_counted_per_example() -> None:
    ratings = [[2, 2, 2, 2], [3, 3, 3, -1], [-2, 2, 1, -1]]
    table = disagreement(pd.DataFrame({"id": ["a", "b", "c"], "ratings": ratings}))
    assert table["entropy"].tolist() == pytest.approx([0, 0.8113 + 0.1803, 2 + 0.5410], abs=1e-4)
    assert table["opposed"].tolist() == [0, 0.25, 0.5]
    assert table["distance"].tolist() == [2, 2, 0]


def test_ratings_that_disagree_alike_are_ties() -> None:
    """Sums of logarithms round differently on other processors; ties used to decide which examples are contested."""
    same = [[v for v, n in enumerate(counts) for _ in range(n)] for counts in permutations((1, 1, 3, 5))]
    assert disagreement(pd.DataFrame({"id": range(len(same)), "ratings": same}))["entropy"].nunique() == 1


def confounded(n: int = 2000, seeds: int = 5, own: float = 0.0, seed: int = 0):
    """Make data in which distance causes both entropy and loss; `own` is the effect of entropy itself on the loss."""
    rng = np.random.default_rng(seed)
    distance = rng.uniform(0.8, 4, size=n)
    entropy = -distance + rng.normal(size=n)
    loss = -distance + own * (entropy + distance) + rng.normal(size=n) + rng.normal(size=(seeds, n))
    return distance, entropy, loss


def test_an_effect_of_distance_is_not_one_of_disagreement() -> None:
    distance, entropy, loss = confounded()
    assert spearmanr(entropy, loss.mean(axis=0)).statistic > 0.3
    assert partial_correlation(entropy, loss, distance).value == pytest.approx(0, abs=0.05)
    distance, entropy, loss = confounded(own=1.0)
    found = partial_correlation(entropy, loss, distance).interval()
    assert found.low > 0.3


def test_several_controls_are_removed_at_once_and_a_constant_score_correlates_with_nothing() -> None:
    distance, entropy, loss = confounded()
    label = (np.random.default_rng(1).random(2000) < 0.3).astype(float)
    both = entropy + 3 * label, loss + 3 * label
    assert partial_correlation(*both, distance).value > 0.3
    assert partial_correlation(*both, distance, label).value == pytest.approx(0, abs=0.05)
    assert partial_correlation(entropy, np.zeros((5, 2000)), distance).value == pytest.approx(0, abs=1e-9)


def test_the_interval_of_a_partial_correlation_has_its_coverage() -> None:
    found = [partial_correlation(e, y, d).interval() for d, e, y in (confounded(300, seed=s) for s in range(200))]
    assert 0.9 <= np.mean([f.low <= 0 <= f.high for f in found]) <= 0.995


def test_contested_examples_match_the_others_in_distance_and_label() -> None:
    distance, entropy, _ = confounded()
    gold = (np.random.default_rng(1).random(2000) < 0.3).astype(int)
    table = pd.DataFrame({"distance": distance, "entropy": entropy + 3 * gold, "gold": gold})
    chosen = contested(table)
    assert chosen.mean() == pytest.approx(0.2, abs=0.01)
    assert entropy[chosen].mean() > entropy[~chosen].mean() + 1
    assert distance[chosen].mean() == pytest.approx(distance[~chosen].mean(), abs=0.1)
    assert gold[chosen].mean() == pytest.approx(gold.mean(), abs=0.01)


def flipped(run: TrainingDynamics, rows: np.ndarray) -> TrainingDynamics:
    """Return the run as if the labels of `rows` were wrong."""
    p = run.p_gold.copy()
    p[:, rows] = 1 - p[:, rows]
    return TrainingDynamics(run.ids, run.gold, p, p > 0.5, run.meta)


def test_planted_differences_between_flipped_and_contested_labels_are_found() -> None:
    runs = [learn(600, 8, seed=seed) for seed in range(5)]
    odd, even = np.arange(1, 600, 2), np.arange(0, 600, 2)
    for make, low, high in ((lambda run: run, 0.4, 0.6), (lambda run: flipped(run, odd), 0.8, 1.0)):
        scores = [measures.doubts(make(run)) for run in runs]
        for name in ("confidence", "AUM", "correctness", "category"):
            values = np.stack([score[name] for score in scores])
            found = mean_effect(measures.separation(values[:, odd], values[:, even])).interval()
            assert low <= found.value <= high, name
            assert (found.low > 0.5) == (low > 0.5), name


def test_a_contested_example_whose_label_was_flipped_counts_as_flipped() -> None:
    disputed, wrong = np.array([1, 1, 0, 0, 0, 0], dtype=bool), np.array([0, 1, 1, 0, 0, 0], dtype=bool)
    doubt = np.array([[2.0, 3, 3, 0, 0, 2]])
    found = {name: part.mean() for name, part in comparisons(doubt, disputed, wrong).items()}
    assert found == pytest.approx({OVER_REST: 2.5 / 3, FLIPPED_OVER_REST: 1.0, APART: 1.0})


@pytest.mark.parametrize("classes", [2, 8])
def test_the_requested_number_of_labels_is_flipped(classes, rng):
    gold = rng.integers(0, classes, 400)
    before = np.zeros(400, dtype=bool)
    for rate in (0.05, 0.1, 0.2):
        labels, wrong = flip(gold, classes, rate, seed=3)
        assert wrong.sum() == rate * 400
        np.testing.assert_array_equal(labels != gold, wrong)
        assert set(labels) <= set(range(classes))
        assert not (before & ~wrong).any()  # labels flipped at a low rate are flipped at a higher one
        before = wrong


@pytest.fixture(scope="module")
def sources(wheels):
    return task_similarity(("tweets", "amazon"), n=8, draws=2)


def test_the_table_has_one_row_per_measure_and_pair(sources):
    measures = ["gradient, initial heads", "gradient, aligned heads", "representation", "words"]
    pairs = [("tweets", "tweets"), ("tweets", "amazon"), ("amazon", "amazon")]
    assert list(zip(sources["first"], sources["second"], sources["measure"], strict=True)) == [
        (*pair, measure) for measure in measures for pair in pairs
    ]
    assert (sources["low"] <= sources["value"]).all()
    assert (sources["value"] <= sources["high"]).all()
    assert sources["value"].abs().max() <= 1
    own = sources[sources["first"] == sources["second"]].set_index(["measure", "first"])["value"]
    for row in sources.itertuples():
        sides = own[row.measure, row.first], own[row.measure, row.second]
        expected = np.prod(sides) ** 0.5 if min(sides) > 0 else np.nan
        assert row.ceiling == pytest.approx(expected, abs=1e-3, nan_ok=True)


def test_similarities_are_saved_next_to_the_runs(wheels, tmp_path, monkeypatch):
    source = {"source": {"encoder": "minilm", "members": ("tweets",)}}
    sizes = {"train": 24, "evaluate": 8}
    profile = Profile(name="t", seeds=(0,), data=sizes, training={"epochs": 1}, comparisons=source)
    results = Results("source", profile, ())
    first = open_similarity(results, tmp_path, n=4, draws=1)
    path = tmp_path / "similarity-source.json"
    assert json.loads(path.read_text(encoding="utf-8"))["rows"]
    calls = []
    monkeypatch.setattr(similarity, "task_similarity", lambda *a, **k: calls.append(k) or task_similarity(*a, **k))
    assert open_similarity(results, tmp_path, n=4, draws=1).equals(first)
    assert not calls
    longer = profile.model_copy(update={"training": Training(epochs=1, max_length=64)})
    open_similarity(replace(results, profile=longer), tmp_path, n=4, draws=1)
    assert calls == [{"max_length": 64, "pooling": "mean", "n": 4, "draws": 1}]
    (tmp_path / CHECKSUMS).write_text("", encoding="utf-8")
    assert set(open_similarity(results, tmp_path)["measure"]) == {"gradient, aligned heads", "representation", "words"}
    path.unlink()
    with pytest.raises(StoreError, match=r"similarity-source.json: no similarities were recorded"):
        open_similarity(results, tmp_path)
