"""Datasets by name or by description: built or read once, and kept under their fingerprint for every later run.

The library brings no data. A program that does, such as the reproduction in `paper`, registers its builders here. A
dataset that is kept needs no network and no source; a file or a folder is read again when its bytes have changed. What
was kept is checked against its fingerprint each time it is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from itertools import repeat
from pathlib import Path

from soi_lib import files
from soi_lib.data.dataset import Card, Corpus, Split, all_splits, fingerprint
from soi_lib.data.load import load_dataset
from soi_lib.data.places import DatasetSpec, check_place, local
from soi_lib.data.table_files import files_of
from soi_lib.errors import CorpusError, nearest
from soi_lib.files import cache_dir

log = logging.getLogger("soi_lib")

COLUMNS = ("split", "id", "text", "text_pair", "label", "group")
Build = Callable[[], Corpus]
_VERSION = 2  # part of the name under which a dataset is kept: raise it when what the loader makes of a spec changes
_builders: dict[str, Build] = {}


def register(name: str, build: Build) -> None:
    """Make the dataset `name` known; `build` is called when it is asked for."""
    _builders[name] = build


def load(name: str, fingerprint: str | None = None) -> Corpus:
    """A dataset by name; with a `fingerprint`, the one that has it.

    Raises CorpusError for an unknown name, and when there is no dataset of this name with this fingerprint.
    """
    if fingerprint is not None and _place(name, fingerprint).exists():
        return _kept(name, fingerprint)
    if name in _builders:
        corpus = _builders[name]()
        if fingerprint in (None, corpus.fingerprint):
            return corpus
    if fingerprint is not None:
        return _kept(name, fingerprint)
    raise CorpusError("unknown dataset", found=repr(name), hint=nearest(name, _builders))


def load_spec(name: str, spec: DatasetSpec) -> Corpus:
    """The dataset that a spec describes, from the cache where the same was read before; a corpus file as it is.

    The environment variable SOI_DATA may name a folder that has a folder `name` with the rows of a hub dataset. Raises
    CorpusError for a source that cannot be reached or read, and for all that `load_dataset` refuses.
    """
    check_place(name, spec)
    spec = local(name, spec)
    if spec.path is not None and is_corpus_file(Path(spec.path)):
        return keep(read(Path(spec.path)))
    index = _folder() / f"{name}-{_key(spec)}.json"
    if index.exists():
        try:
            text = index.read_bytes().decode()
            known = json.loads(text)["fingerprint"]
            if text != files.json_text({"fingerprint": known}):
                raise ValueError("not what was written")
            return _kept(name, known)
        except (CorpusError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: %s; reading %s again", index, error, spec)
    loaded = load_dataset(name, spec)
    for sentence in loaded.decisions:
        warn = "left out" in sentence or sentence.startswith("caution")
        log.log(logging.WARNING if warn else logging.INFO, "%s: %s", name, sentence)
    keep(loaded.corpus)
    files.write_json(index, {"fingerprint": loaded.corpus.fingerprint})
    return loaded.corpus


def keep(corpus: Corpus) -> Corpus:
    """Keep `corpus` for `load`, unless it is there already and intact; return it."""
    try:
        _kept(corpus.name, corpus.fingerprint)
    except CorpusError:
        write(_place(corpus.name, corpus.fingerprint), corpus)
    return corpus


def _kept(name: str, fingerprint: str) -> Corpus:
    """The corpus that was kept under this fingerprint. Raises CorpusError when it is not there, or damaged."""
    path = _place(name, fingerprint)
    if not path.exists():
        hint = "plan the profile that names its source again"
        raise CorpusError("the corpus is not in the cache", where=name, found=f"no {path.name}", hint=hint)
    corpus = read(path)
    if corpus.fingerprint != fingerprint:
        what, found = "the file holds another corpus", corpus.fingerprint[:12]
        raise CorpusError(what, where=path, found=found, expected=fingerprint[:12])
    return corpus


def _folder() -> Path:
    return cache_dir() / "corpora" / "given"


def _place(name: str, fingerprint: str) -> Path:
    """The file under which a corpus with this fingerprint is kept."""
    return _folder() / f"{name}-{fingerprint[:32]}.parquet"


def _key(spec: DatasetSpec) -> str:
    """What identifies a spec: its description, and the content of its files."""
    digest = hashlib.sha256(f"{_VERSION} {spec.identity()}".encode())
    for file in files_of(spec):
        if file.is_file():  # the loader reports what is wrong with a file that is not there
            digest.update(f"\n{file.name} {files.stamped_sha256(file)}".encode())
    return digest.hexdigest()[:20]


# --- the file of a corpus --------------------------------------------------------------------------------------------


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

    rows = [
        row
        for name, s in all_splits(corpus.splits, corpus.extra_ood).items()
        for row in zip(repeat(name), s.ids, s.text, s.text_pair or repeat(None), s.label.tolist(), s.group)
    ]
    kinds = [pa.int16() if name == "label" else pa.string() for name in COLUMNS]
    columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    about = {name: getattr(corpus, name) for name in ("name", "comparison", "labels", "fingerprint")}
    head = json.dumps(about | {"card": asdict(corpus.card)})
    metadata = {"soi_corpus": head, "soi_sha256": hashlib.sha256(head.encode()).hexdigest()}
    with files.replacing(path) as tmp:
        table = pa.table(columns, names=list(COLUMNS)).replace_schema_metadata(metadata)
        pq.write_table(table, tmp, compression="zstd")


def read(path: Path) -> Corpus:
    """Read what `write` wrote. Raises CorpusError when anything in the file is not what was written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorpusError("the file is not a Parquet file that can be read", where=path, found=error) from error
    metadata = table.schema.metadata or {}
    head = metadata.get(b"soi_corpus", b"")
    if hashlib.sha256(head).hexdigest().encode() != metadata.get(b"soi_sha256"):
        raise CorpusError("the description of the corpus is missing or not the one that was written", where=path)
    about = json.loads(head)
    labels = tuple(about["labels"])
    try:
        parts = {name: Split.from_frame(rows) for name, rows in table.to_pandas().groupby("split", sort=False)}
        splits = {name: part for name, part in parts.items() if not name.startswith("ood:")}
        extra = {name.removeprefix("ood:"): part for name, part in parts.items() if name.startswith("ood:")}
        found = fingerprint(labels, splits, extra, about["comparison"])
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CorpusError("a column is missing or damaged", where=path, found=error) from error
    if found != about["fingerprint"]:
        what, expected = "the rows are not those that were written", about["fingerprint"][:12]
        raise CorpusError(what, where=path, found=f"fingerprint {found[:12]}", expected=expected)
    return Corpus(about["name"], about["comparison"], labels, splits, Card(**about["card"]), found, extra)
