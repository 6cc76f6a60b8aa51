"""What all packaged corpora promise, on the data themselves."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from paper.datasets import COMPARISONS, load
from paper.datasets.building import validate
from soi_lib.data.dataset import SPLITS, Corpus

MEMBERS = [name for names in COMPARISONS.values() for name in names]
CHILD = """
import sys
assert not any(m.split('.')[0] in ('pandas', 'pyarrow', 'sklearn', 'hassil', 'torch') for m in sys.modules)
import paper.datasets
heavy = [m for m in ('pandas', 'pyarrow', 'sklearn', 'hassil', 'torch') if m in sys.modules]
assert not heavy, heavy
from paper.datasets.registry import BUILD
for name in sys.argv[1:]:
    print(name, BUILD[name]().fingerprint)
"""


@pytest.fixture(scope="module", params=MEMBERS)
def corpus(request, wheels) -> Corpus:
    return load(request.param)


def test_all_splits_are_there_and_large_enough(corpus):
    assert tuple(corpus.splits) == (SPLITS[:3] if corpus.name.startswith("questions") else SPLITS)
    sizes = {name: len(split) for name, split in corpus.splits.items()}
    small = corpus.comparison == "lingual"
    assert (200 if small else 1000) <= sizes["train"] <= 5000
    assert (60 if small else 250) <= sizes["validation"] <= 1000
    assert (400 if small else 750) <= sizes["test"] <= 2000
    if "ood" in sizes:
        assert sizes["ood"] > 300


def test_every_class_is_trained_and_none_dominates(corpus):
    def shares(split):
        return np.bincount(corpus.splits[split].label, minlength=len(corpus.labels)) / len(corpus.splits[split])

    assert shares("train").min() > 0
    assert max(shares(name).max() for name in corpus.splits) < 0.81
    if corpus.comparison != "lingual":
        for name in ("validation", "test"):
            assert np.abs(shares(name) - shares("train")).max() < 0.03, name


def test_ids_name_the_source_rows_are_sorted_and_texts_clean(corpus):
    for split in corpus.splits.values():
        assert list(split.ids) == sorted(split.ids)
        assert all("/" in i for i in split.ids)
        assert split.label.dtype == np.int16
        for text in [*split.text, *(split.text_pair or [])]:
            assert text == " ".join(text.split())
            assert not any(c in text for c in "\x00\x01\x02"), text


def test_building_again_gives_the_same_and_validation_still_runs(corpus):
    validate(corpus.name, corpus.labels, corpus.splits, corpus.extra_ood)
    again = load(corpus.name)
    assert again.fingerprint == corpus.fingerprint
    assert again.card == corpus.card


def test_the_build_does_not_depend_on_the_process(wheels):
    """Three of the builders, in a process with another hash seed; and the import stays light there."""
    names = ["paraphrase", "fr", "tweets"]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *names],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(line.split() for line in child.stdout.splitlines()) == {n: load(n).fingerprint for n in names}
