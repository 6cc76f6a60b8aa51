"""Datasets that a profile describes: read once, and found again in the cache as long as their source is the same.

What is special: a hub dataset that is in the cache needs no network, and a file or a folder is read again when its
bytes have changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from soi_lib import files
from soi_lib.data import cache
from soi_lib.data.dataset import Corpus
from soi_lib.data.load import load_dataset
from soi_lib.data.places import DatasetSpec, local
from soi_lib.data.splitfiles import check_place, files_of
from soi_lib.errors import CorpusError
from soi_lib.files import cache_dir

log = logging.getLogger("soi_lib")

_VERSION = 2  # part of the name under which a dataset is kept: raise it when what the loader makes of a spec changes


def load(name: str, spec: DatasetSpec) -> Corpus:
    """The dataset of a spec, from the cache where the same was read before; what `soi train` left is taken as it is.

    The environment variable SOI_DATA may name a folder that has a folder `name` with the rows of a hub dataset. Raises
    CorpusError for a source that cannot be reached or read, and for all that `load_dataset` refuses.
    """
    check_place(name, spec)
    spec = local(name, spec)
    if spec.path is not None and cache.is_corpus_file(Path(spec.path)):
        return cache.keep(cache.read(Path(spec.path)))
    index = cache_dir() / "corpora" / "given" / f"{name}-{_key(spec)}.json"
    if index.exists():
        try:
            text = index.read_bytes().decode()
            fingerprint = json.loads(text)["fingerprint"]
            if text != _entry(fingerprint):
                raise ValueError("not what was written")
            return cache.kept(name, fingerprint)
        except (CorpusError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: %s; reading %s again", index, error, spec)
    loaded = load_dataset(name, spec)
    for sentence in loaded.decisions:
        warn = "left out" in sentence or sentence.startswith("caution")
        log.log(logging.WARNING if warn else logging.INFO, "%s: %s", name, sentence)
    cache.keep(loaded.corpus)
    files.write_text(index, _entry(loaded.corpus.fingerprint))
    return loaded.corpus


def _entry(fingerprint: str) -> str:
    """What the index says of a spec: the fingerprint under which its dataset is kept."""
    return files.json_text({"fingerprint": fingerprint})


def _key(spec: DatasetSpec) -> str:
    """What a spec is known by: its description, and the content of its files."""
    digest = hashlib.sha256(f"{_VERSION} {spec.identity()}".encode())
    for file in files_of(spec):
        if file.is_file():  # the loader says what is wrong with a file that is not there
            digest.update(f"\n{file.name} {files.stamped_sha256(file)}".encode())
    return digest.hexdigest()[:20]
