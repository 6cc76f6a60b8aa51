"""From packages to corpora with group splits: every text that the library trains or tests on.

A corpus is built once and kept as one Parquet file under a name that contains the hashes of its sources and of the
code that builds it. Its fingerprint is checked each time it is read; a damaged file is built again.
"""

from __future__ import annotations

from soi_lib.corpora.base import SPLITS, Card, Corpus, Split
from soi_lib.corpora.store import load as _load

COMPARISONS = {
    "task": ("entailment", "paraphrase", "sentiment", "opinions", "questions", "questions_fine"),
    "source": ("tweets", "amazon", "movie"),
    "lingual": ("en", "fr", "fa"),
}


def load(name: str, fingerprint: str | None = None) -> Corpus:
    """A member by name; with a `fingerprint`, the very corpus that has it, also one that a profile brought.

    Raises CorpusError for an unknown name, and when there is no corpus of this name with this fingerprint.
    """
    from soi_lib.corpora import hub, store

    if fingerprint is None:
        return _load(name)
    if name in store.PACKAGES and not hub.is_kept(name, fingerprint):
        for protocol in (2, 1):
            corpus = _load(name, protocol)
            if corpus.fingerprint == fingerprint:
                return corpus
    return hub.kept(name, fingerprint)


__all__ = ["COMPARISONS", "SPLITS", "Card", "Corpus", "Split", "load"]
