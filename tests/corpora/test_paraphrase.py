from __future__ import annotations

import numpy as np
import pytest

from paper.datasets import load
from paper.datasets.paraphrase import overlap
from soi_lib.data.dataset import Split, all_splits, normalise

pytestmark = pytest.mark.usefixtures("wheels")


@pytest.fixture(scope="module")
def commands() -> dict[str, Split]:
    """The splits with commands (all but the news)."""
    corpus = load("paraphrase")
    parts = all_splits(corpus.splits, corpus.extra_ood)
    return {name: split for name, split in parts.items() if name != "ood"}


def test_no_sentence_is_in_two_splits(commands):
    home: dict[str, str] = {}
    for name, split in commands.items():
        for sentence in map(normalise, [*split.text, *split.text_pair]):
            assert home.setdefault(sentence, name) == name, sentence


def test_word_overlap_does_not_separate_the_classes(commands):
    for split in commands.values():
        shared = np.array([overlap(a, b) for a, b in zip(split.text, split.text_pair, strict=True)])
        same, different = shared[split.label == 1], shared[split.label == 0]
        assert abs(same.mean() - different.mean()) < 0.03
        ranks = np.searchsorted(np.sort(different), same) / len(different)
        assert 0.4 < ranks.mean() < 0.6  # AUC of the overlap
