"""The baselines on the packaged corpora: scores as scikit-learn has them, and words help where they should."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from paper.datasets import load
from soi_lib.data.baselines import baselines, scores
from soi_lib.data.dataset import all_splits

pytestmark = pytest.mark.usefixtures("wheels")

# Least gain of 400 training examples' words over the majority class on test; paraphrases give little away.
GAIN = {"entailment": 0.05, "sentiment": 0.04, "tweets": 0.04, "amazon": 0.04, "movie": 0.08,
        "opinions": 0.1, "questions": 0.3}  # fmt: skip


def sampled(name: str):
    """The baselines of a corpus from 400 examples, on 500 of each other split."""
    corpus = load(name)
    splits = all_splits(corpus.splits, corpus.extra_ood).items()
    return baselines(corpus.labels, {s: split.take(400 if s == "train" else 500) for s, split in splits})


def test_scores_are_those_of_scikit_learn(rng):
    for classes in (2, 3, 8):
        gold, predicted = rng.integers(0, classes, 200), rng.integers(0, max(1, classes - 1), 200)
        ours = scores(gold, predicted, classes)
        assert ours["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
        assert ours["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
        assert ours["n"] == 200


@pytest.mark.parametrize("name", GAIN)
def test_words_beat_the_majority_where_they_should(name):
    found, corpus = sampled(name), load(name)
    assert found["bag_of_words"]["test"]["n"] == found["majority"]["test"]["n"] == 500
    assert found["bag_of_words"]["test"]["accuracy"] > found["majority"]["test"]["accuracy"] + GAIN[name]
    most = np.bincount(corpus.splits["train"].take(400).label).argmax()
    share = np.mean(corpus.splits["test"].take(500).label == most)
    assert found["majority"]["test"]["accuracy"] == pytest.approx(share)


def test_words_alone_do_not_solve_paraphrase_and_numbers_repeat():
    found = sampled("paraphrase")
    assert 0.45 < found["bag_of_words"]["test"]["accuracy"] < 0.7
    assert set(found["majority"]) == {"test", "ood", "ood:domains"}
    assert sampled("paraphrase") == found
