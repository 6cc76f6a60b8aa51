"""Datasets by name or by description: built or read once, then cached under their fingerprint for later runs.

The library contains no data. A program that does, such as the reproduction in `paper`, registers its builders here. A
cached dataset needs neither the network nor its source; a file or folder is read again if its bytes have changed.
Cached datasets are checked against their fingerprint each time they are read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from itertools import repeat
from pathlib import Path

from soi_lib import files
from soi_lib.data.dataset import Card, Corpus, Split, all_splits, fingerprint
from soi_lib.data.load import load_dataset
from soi_lib.data.places import DatasetSpec
from soi_lib.data.table_files import files_of
from soi_lib.errors import CorpusError, nearest

log = logging.getLogger("soi_lib")

COLUMNS = ("split", "id", "text", "text_pair", "label", "group")
_VERSION = 2  # part of the name of a cached dataset: raise it when the loader reads a spec differently
_builders: dict[str, Callable[[], Corpus]] = {}


def register(name: str, build: Callable[[], Corpus]) -> None:
    """Register the dataset `name`; `build` is called when it is loaded."""
    _builders[name] = build


def load(name: str, fingerprint: str | None = None) -> Corpus:
    """Return the dataset `name`; with a `fingerprint`, the version that has it.

    Raises CorpusError for an unknown name, or if no dataset of this name has this fingerprint.
    """
    if fingerprint is None and name not in _builders:
        raise CorpusError("unknown dataset", found=repr(name), hint=nearest(name, _builders))
    if name in _builders and not (fingerprint and _place(name, fingerprint).exists()):
        corpus = _builders[name]()
        if fingerprint in (None, corpus.fingerprint):
            return corpus
    return _kept(name, str(fingerprint))


def load_spec(name: str, spec: DatasetSpec) -> Corpus:
    """Return the dataset that a spec describes, from the cache if it was read before; a corpus file is read as it is.

    The environment variable SOI_DATA may name a folder with a subfolder `name` that contains the rows of a hub dataset.
    Raises CorpusError for a source that cannot be reached or read, and wherever `load_dataset` does.
    """
    copy = Path(os.environ.get("SOI_DATA") or os.devnull) / name
    if spec.hub is not None and copy.is_dir():
        spec = spec.model_copy(update={"hub": None, "revision": None, "config": None, "path": str(copy)})
    if spec.path is not None and is_corpus_file(Path(spec.path)):
        return keep(read(Path(spec.path)))
    index = _folder() / f"{name}-{_key(spec)}.txt"
    if index.exists():
        try:
            return _kept(name, index.read_text(encoding="utf-8"))
        except (CorpusError, OSError, ValueError) as error:
            log.warning("%s: %s; reading %s again", index, error, spec)
    loaded = load_dataset(name, spec)
    for sentence in loaded.decisions:
        warn = "left out" in sentence or sentence.startswith("caution")
        log.log(logging.WARNING if warn else logging.INFO, "%s: %s", name, sentence)
    files.write_text(index, keep(loaded.corpus).fingerprint)
    return loaded.corpus


def keep(corpus: Corpus) -> Corpus:
    """Cache `corpus` for `load`, unless an intact copy is already there; return it."""
    try:
        _kept(corpus.name, corpus.fingerprint)
    except CorpusError:
        write(_place(corpus.name, corpus.fingerprint), corpus)
    return corpus


def _kept(name: str, fingerprint: str) -> Corpus:
    """Return the corpus cached under this fingerprint. Raises CorpusError if it is missing or damaged."""
    path = _place(name, fingerprint)
    if not path.exists():
        hint = "plan the profile that defines it again"
        raise CorpusError("the corpus is not in the cache", where=name, found=f"no {path.name}", hint=hint)
    corpus = read(path)
    if corpus.fingerprint != fingerprint:
        what, found = "the file contains another corpus", corpus.fingerprint[:12]
        raise CorpusError(what, where=path, found=found, expected=fingerprint[:12])
    return corpus


def _folder() -> Path:
    return files.cache_dir() / "corpora" / "given"


def _place(name: str, fingerprint: str) -> Path:
    """Return the cache file of a corpus with this fingerprint."""
    return _folder() / f"{name}-{fingerprint[:32]}.parquet"


def _key(spec: DatasetSpec) -> str:
    """Return a hash of everything that decides which rows are read: the spec without its paths, and its files."""
    described = spec.model_dump_json(exclude={"path", "test", "ood", "note"})
    digest = hashlib.sha256(f"{_VERSION} {described}".encode())
    for file in files_of(spec):
        if file.is_file():  # the loader reports missing files
            digest.update(f"\n{file.name} {files.stamped_sha256(file)}".encode())
    return digest.hexdigest()[:20]


# --- corpus files ----------------------------------------------------------------------------------------------------


def is_corpus_file(path: Path) -> bool:
    """Return whether `write` made this file."""
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

    rows = [
        row
        for name, s in all_splits(corpus.splits, corpus.extra_ood).items()
        for row in zip(repeat(name), s.ids, s.text, s.text_pair or repeat(None), s.label.tolist(), s.group)
    ]
    about = {name: getattr(corpus, name) for name in ("name", "comparison", "labels", "fingerprint")}
    head = json.dumps(about | {"card": asdict(corpus.card)})
    metadata = {"soi_corpus": head, "soi_sha256": hashlib.sha256(head.encode()).hexdigest()}
    schema = pa.schema([(name, pa.int16() if name == "label" else pa.string()) for name in COLUMNS], metadata)
    table = pa.table(dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)), schema)
    with files.replacing(path) as tmp:
        pq.write_table(table, tmp, compression="zstd")


def read(path: Path) -> Corpus:
    """Read a file made by `write`. Raises CorpusError if anything in it has changed since."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorpusError("the file cannot be read as Parquet", where=path, found=error) from error
    metadata = table.schema.metadata or {}
    head = metadata.get(b"soi_corpus", b"")
    if hashlib.sha256(head).hexdigest().encode() != metadata.get(b"soi_sha256"):
        raise CorpusError("the description of the corpus is missing, or was changed after it was written", where=path)
    about = json.loads(head)
    labels = tuple(about["labels"])
    try:
        parts = {name: Split.from_frame(rows) for name, rows in table.to_pandas().groupby("split", sort=False)}
        extra = {name[4:]: parts.pop(name) for name in list(parts) if name.startswith("ood:")}
        found = fingerprint(labels, parts, extra, about["comparison"])
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CorpusError("a column is missing or damaged", where=path, found=error) from error
    if found != about["fingerprint"]:
        what, expected = "the rows were changed after they were written", about["fingerprint"][:12]
        raise CorpusError(what, where=path, found=f"fingerprint {found[:12]}", expected=expected)
    return Corpus(about["name"], about["comparison"], labels, parts, Card(**about["card"]), found, extra)
