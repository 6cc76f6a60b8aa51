"""Datasets by name: those that a program registers, and those that were read before and are kept.

The library brings no data. A program that does, such as the reproduction in `paper`, registers its builders here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from soi_lib.data import cache
from soi_lib.data.dataset import Corpus
from soi_lib.errors import CorpusError, nearest

Build = Callable[[], Corpus]
_builders: dict[str, list[Build]] = {}


def register(name: str, build: Build, *, earlier: Sequence[Build] = ()) -> None:
    """Make the dataset `name` known; `build` is called when it is asked for, `earlier` for an old fingerprint."""
    _builders[name] = [build, *earlier]


def load(name: str, fingerprint: str | None = None) -> Corpus:
    """A dataset by name; with a `fingerprint`, the very one that has it.

    Raises CorpusError for an unknown name, and when there is no dataset of this name with this fingerprint.
    """
    if fingerprint is not None and cache.is_kept(name, fingerprint):
        return cache.kept(name, fingerprint)
    for build in _builders.get(name, ()):
        corpus = build()
        if fingerprint in (None, corpus.fingerprint):
            return corpus
    if fingerprint is not None:
        return cache.kept(name, fingerprint)
    raise CorpusError("unknown member", found=repr(name), hint=nearest(name, _builders))
