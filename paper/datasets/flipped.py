"""Corpora with some training labels flipped on purpose, which a second stage should not learn.

Test and out-of-distribution labels are unchanged. Labels are flipped in the whole training split, before a run selects
its examples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from paper.datasets.building import make
from soi_lib.data import cache
from soi_lib.data.dataset import Corpus

SUFFIX = "-flipped"
RATE = 0.1


def flip(gold: np.ndarray, classes: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Change a share `rate` of the labels to another class at random; return labels (N,) int64 and a mask (N,) bool.

    The labels flipped at a low rate are also flipped at every higher rate.
    """
    rng = np.random.default_rng(seed)
    order, shift = rng.permutation(len(gold)), rng.integers(1, classes, len(gold))
    wrong = np.zeros(len(gold), dtype=bool)
    wrong[order[: round(rate * len(gold))]] = True
    return np.where(wrong, (gold + shift) % classes, gold).astype(np.int64), wrong


def build(name: str) -> Corpus:
    """Return the corpus `name` with a tenth of its training labels flipped, under the name `{name}-flipped`."""
    corpus = cache.load(name)
    train = corpus.splits["train"]
    labels, _ = flip(train.label.astype(np.int64), len(corpus.labels), RATE, seed=0)
    splits = corpus.splits | {"train": replace(train, label=labels.astype(train.label.dtype))}
    caveat = f"{RATE:.0%} of the training labels were flipped at random, on purpose."
    card = replace(corpus.card, caveats=[*corpus.card.caveats, caveat])
    return make(f"{name}{SUFFIX}", corpus.comparison, corpus.labels, splits, card, corpus.extra_ood)
