from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from paper.datasets import load
from soi_lib.data.baselines import baselines, majority, scores

pytestmark = pytest.mark.usefixtures("wheels")


def test_scores_are_those_of_scikit_learn(rng):
    for classes in (2, 3, 8):
        gold, predicted = rng.integers(0, classes, 200), rng.integers(0, max(1, classes - 1), 200)
        ours = scores(gold, predicted, classes)
        assert ours["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
        assert ours["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
        assert ours["n"] == 200


def test_the_majority_is_that_of_training():
    corpus = load("tweets")
    share = np.mean(corpus.splits["ood"].label == 1)
    assert majority(corpus.splits["train"], corpus.splits["ood"], 2)["accuracy"] == pytest.approx(share)


# Least gain of 400 training examples' words over the majority class on test; paraphrases give little away.
GAIN = {"entailment": 0.05, "sentiment": 0.04, "tweets": 0.04, "amazon": 0.04, "movie": 0.08,
        "opinions": 0.1, "questions": 0.3}  # fmt: skip


@pytest.mark.parametrize("name", GAIN)
def test_words_beat_the_majority_where_they_should(name):
    found = baselines(load(name), 400, 500)
    assert found["bag_of_words"]["test"]["n"] == found["majority"]["test"]["n"] == 500
    assert found["bag_of_words"]["test"]["accuracy"] > found["majority"]["test"]["accuracy"] + GAIN[name]


def test_words_alone_do_not_solve_paraphrase():
    found = baselines(load("paraphrase"), 400, 500)
    assert 0.45 < found["bag_of_words"]["test"]["accuracy"] < 0.7
    assert set(found["majority"]) == {"test", "ood", "ood:domains"}


def test_the_same_numbers_twice():
    corpus = load("amazon")
    assert baselines(corpus, 200, 300) == baselines(corpus, 200, 300)
