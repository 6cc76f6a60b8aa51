"""A corpus with some of its training labels flipped on purpose: what a second stage should not learn.

Test and out-of-distribution labels stay as they are. Labels are flipped in the whole training split, before a run takes
its part of it.
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
    """Labels with a share `rate` of them changed to another class at random, and which were: (N,) int64, (N,) bool.

    The labels that are flipped at a low rate are among those of a higher one.
    """
    rng = np.random.default_rng(seed)
    order, shift = rng.permutation(len(gold)), rng.integers(1, classes, len(gold))
    wrong = np.zeros(len(gold), dtype=bool)
    wrong[order[: round(rate * len(gold))]] = True
    return np.where(wrong, (gold + shift) % classes, gold).astype(np.int64), wrong


def build(name: str) -> Corpus:
    """The corpus `name` with a tenth of its training labels flipped, under the name `{name}-flipped`."""
    corpus = cache.load(name)
    train = corpus.splits["train"]
    labels, _ = flip(train.label.astype(np.int64), len(corpus.labels), RATE, seed=0)
    splits = corpus.splits | {"train": replace(train, label=labels.astype(train.label.dtype))}
    caveat = f"{RATE:.0%} of the training labels were flipped at random, on purpose."
    card = replace(corpus.card, caveats=[*corpus.card.caveats, caveat])
    return make(f"{name}{SUFFIX}", corpus.comparison, corpus.labels, splits, card, corpus.extra_ood)
