"""What a number has to beat: the majority class, and a bag of words that knows no word before training.

A corpus on which counting words does as well as a pretrained model shows nothing about the model. The bag of words is
given its best chance: tf-idf of one- and two-word sequences, and for pairs also which words the two sides share, which
only one has, and how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib.data.dataset import Split, normalise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

TOKENS = r"(?u)[^\s.,;:!?\"()\[\]{}]+"  # digits, percent signs and one-letter words count in commands


def scores(gold: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float]:
    """n, accuracy and macro-F1 (mean of the per-class F1 over all classes that occur in either) of (N,) labels."""
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (gold, predicted), 1)
    hits, occurring = counts.diagonal(), counts.sum(0) + counts.sum(1)
    f1 = 2 * hits[occurring > 0] / occurring[occurring > 0]
    return {"n": len(gold), "accuracy": float(hits.sum() / len(gold)), "macro_f1": float(f1.mean())}


def majority(train: Split, other: Split, n_classes: int) -> dict[str, float]:
    """Scores on `other` of always answering the most frequent label of `train` (the smallest on a tie)."""
    label = int(np.bincount(train.label, minlength=n_classes).argmax())
    return scores(other.label, np.full(len(other), label), n_classes)


class BagOfWords:
    """Logistic regression on tf-idf features; deterministic, fitted on one split."""

    def __init__(self, train: Split) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKENS)
        self.vectorizer.fit(train.text + (train.text_pair or []))
        self.model = LogisticRegression(C=10.0, max_iter=1000)
        self.model.fit(self.features(train), train.label)

    def features(self, split: Split) -> csr_matrix:
        """(N, F) sparse: for pairs the sum of both sides, their product, their absolute difference, and overlap."""
        from scipy.sparse import csr_matrix, hstack

        left = self.vectorizer.transform(split.text)
        if split.text_pair is None:
            return left
        right = self.vectorizer.transform(split.text_pair)
        shared = [_overlap(a, b) for a, b in zip(split.text, split.text_pair, strict=True)]
        return hstack([left + right, left.multiply(right), abs(left - right), csr_matrix(np.array(shared))]).tocsr()

    def evaluate(self, split: Split, n_classes: int) -> dict[str, float]:
        """Scores on a split."""
        return scores(split.label, self.model.predict(self.features(split)), n_classes)


def _overlap(a: str, b: str) -> tuple[float, float, float]:
    """Shares of common words: of all words, of the words of each side."""
    x, y = set(normalise(a).split()), set(normalise(b).split())
    both = len(x & y)
    return both / len(x | y), both / len(x), both / len(y)


def baselines(labels: Sequence[str], splits: Mapping[str, Split]) -> dict[str, dict[str, Any]]:
    """`{"majority": {"test": {n, accuracy, macro_f1}, "ood": ...}, "bag_of_words": {...}}` of a corpus with `labels`.

    Both learn from the split `train` and are scored on all others but validation.
    """
    train, n = splits["train"], len(labels)
    held = {name: split for name, split in splits.items() if name not in ("train", "validation")}
    bag = BagOfWords(train)
    return {
        "majority": {name: majority(train, split, n) for name, split in held.items()},
        "bag_of_words": {name: bag.evaluate(split, n) for name, split in held.items()},
    }
