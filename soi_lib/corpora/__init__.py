"""From packages to corpora with group splits: every text that the library trains or tests on.

A corpus is built once and kept as one Parquet file under a name that contains the hashes of its sources and of the
code that builds it. Its fingerprint is checked each time it is read; a damaged file is built again.
"""

from __future__ import annotations

from soi_lib.corpora.base import SPLITS, Card, Corpus, Split
from soi_lib.corpora.store import load

COMPARISONS = {
    "task": ("entailment", "paraphrase", "sentiment"),
    "source": ("tweets", "amazon", "movie"),
    "lingual": ("en", "fr", "fa"),
}

__all__ = ["COMPARISONS", "SPLITS", "Card", "Corpus", "Split", "load"]
