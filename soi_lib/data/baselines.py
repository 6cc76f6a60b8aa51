"""Baselines that a score should beat: the majority class, and a bag of words without pretraining.

If counting words does as well as a pretrained model, the corpus shows nothing about the model. The bag of words is made
as strong as possible: tf-idf of unigrams and bigrams and, for pairs, which words the two sides share, which words only
one side has, and how large the overlap is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib.data.dataset import Split, normalise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

TOKENS = r"(?u)[^\s.,;:!?\"()\[\]{}]+"  # digits, percent signs and one-letter words matter in commands


def scores(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return n, accuracy and macro-F1 (mean F1 of the classes that occur in either array) for (N,) labels."""
    from sklearn.metrics import accuracy_score, f1_score

    accuracy, macro_f1 = accuracy_score(gold, predicted), f1_score(gold, predicted, average="macro")
    return {"n": len(gold), "accuracy": float(accuracy), "macro_f1": float(macro_f1)}


class BagOfWords:
    """Logistic regression on tf-idf features, fitted on one split; deterministic."""

    def __init__(self, train: Split) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKENS)
        self.vectorizer.fit(train.text + (train.text_pair or []))
        self.model = LogisticRegression(C=10.0, max_iter=1000)
        self.model.fit(self.features(train), train.label)

    def features(self, split: Split) -> csr_matrix:
        """Return (N, F) sparse features; for pairs, the sum, product, absolute difference and overlap of both sides."""
        from scipy.sparse import csr_matrix, hstack

        left = self.vectorizer.transform(split.text)
        if split.text_pair is None:
            return left
        right = self.vectorizer.transform(split.text_pair)
        shared = [_overlap(a, b) for a, b in zip(split.text, split.text_pair, strict=True)]
        return hstack([left + right, left.multiply(right), abs(left - right), csr_matrix(np.array(shared))]).tocsr()


def _overlap(a: str, b: str) -> tuple[float, float, float]:
    """Return the shared words as a fraction of all words and of the words on each side."""
    x, y = set(normalise(a).split()), set(normalise(b).split())
    both = len(x & y)
    return both / len(x | y), both / len(x), both / len(y)


def baselines(splits: Mapping[str, Split]) -> dict[str, dict[str, Any]]:
    """Return `{"majority": {"test": {n, accuracy, macro_f1}, "ood": ...}, "bag_of_words": {...}}`.

    Both are fitted on the split `train` and scored on all others except `validation`.
    """
    most = np.bincount(splits["train"].label).argmax()  # the smallest if tied
    bag = BagOfWords(splits["train"])
    held = {name: split for name, split in splits.items() if name not in ("train", "validation")}
    return {
        "majority": {name: scores(split.label, np.full(len(split), most)) for name, split in held.items()},
        "bag_of_words": {
            name: scores(split.label, bag.model.predict(bag.features(split))) for name, split in held.items()
        },
    }
