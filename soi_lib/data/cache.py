"""Datasets that were read or built once, kept under their fingerprint, so that a run finds them again without a source.

A file is checked against the fingerprint written with it each time it is read.
"""

from __future__ import annotations

import hashlib
import json
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from soi_lib import files
from soi_lib.data.dataset import Card, Corpus, Split, all_splits, card_dict, fingerprint
from soi_lib.errors import CorpusError
from soi_lib.files import cache_dir

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("split", "id", "text", "text_pair", "label", "group")


def keep(corpus: Corpus) -> Corpus:
    """Keep `corpus` for `kept`, unless it is there already and whole; return it."""
    if not is_intact(corpus.name, corpus.fingerprint):
        write(place(corpus.name, corpus.fingerprint), corpus)
    return corpus


def kept(name: str, fingerprint: str) -> Corpus:
    """The corpus that was kept under this fingerprint. Raises CorpusError when it is not there, or damaged."""
    path = place(name, fingerprint)
    if not path.exists():
        raise CorpusError(
            "the corpus is not in the cache",
            where=name,
            found=f"no {path.name}",
            hint="`python -m paper plan` with the profile that names its source brings it",
        )
    corpus = read(path)
    if corpus.fingerprint != fingerprint:
        raise CorpusError(
            "the file holds another corpus", where=path, found=corpus.fingerprint[:12], expected=fingerprint[:12]
        )
    return corpus


def is_kept(name: str, fingerprint: str) -> bool:
    """Whether `kept` has it."""
    return place(name, fingerprint).exists()


def is_intact(name: str, fingerprint: str) -> bool:
    """Whether `kept` has it, and it can be read."""
    try:
        return is_kept(name, fingerprint) and bool(kept(name, fingerprint))
    except CorpusError:
        return False


def place(name: str, fingerprint: str) -> Path:
    """The file under which a corpus with this fingerprint is kept."""
    return cache_dir() / "corpora" / "given" / f"{name}-{fingerprint[:32]}.parquet"


def is_corpus_file(path: Path) -> bool:
    """Whether `write` made this file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return path.suffix == ".parquet" and b"soi_corpus" in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


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
    with files.replacing(path) as tmp:
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
        found = fingerprint(labels, splits, extra, about["comparison"])
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
