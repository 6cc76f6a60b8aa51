"""The packaged corpora equal those of the recorded runs, are built once, and survive damage."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from paper import ROOT
from paper.datasets import COMPARISONS, cached, load
from soi_lib import files
from soi_lib.data.cache import read as read_corpus
from soi_lib.errors import CorpusError

MEMBERS = [name for names in COMPARISONS.values() for name in names]
CHILD = """
import sys
import paper.datasets
heavy = [m for m in ('pandas', 'pyarrow', 'sklearn', 'hassil', 'torch') if m in sys.modules]
assert not heavy, heavy
from paper.datasets import BUILD
for name in sys.argv[1:]:
    print(name, BUILD[name][0]().fingerprint)
"""


@pytest.fixture(scope="module")
def recorded() -> dict[str, str]:
    """Fingerprints of the corpora that the recorded runs were trained on, by name."""
    found: dict[str, str] = {}
    for folder in ("standard", "second_stage_flipped"):
        for path in (ROOT / "data" / "recorded" / folder).glob("*/manifest.json"):
            found |= json.loads(path.read_text(encoding="utf-8"))["identity"]["fingerprints"]
    return {what.removeprefix("corpus/"): found[what] for what in found if what.startswith("corpus/")}


def test_the_corpora_are_those_of_the_recorded_runs(recorded, wheels):
    assert set(recorded) >= set(MEMBERS) - {"questions_fine"}
    assert {name: load(name).fingerprint for name in recorded} == recorded


def test_the_build_does_not_depend_on_the_process(recorded, wheels):
    """Three corpora built in a process with another hash seed, which also shows that the import is light."""
    names = ["paraphrase", "fr", "tweets"]
    command = [sys.executable, "-c", CHILD, *names]
    env = os.environ | {"PYTHONHASHSEED": "4711"}
    child = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert dict(line.split() for line in child.stdout.splitlines()) == {name: recorded[name] for name in names}


def test_a_corpus_is_built_once_and_any_changed_byte_is_noticed_or_harmless(tmp_path, monkeypatch, wheels):
    (tmp_path / "packages").symlink_to(files.cache_dir() / "packages")
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    good = load("tweets")
    file = cached("tweets")
    written, data = file.stat().st_mtime_ns, file.read_bytes()
    again = load("tweets")
    assert file.stat().st_mtime_ns == written
    assert (again.fingerprint, again.card) == (good.fingerprint, good.card)
    rng = random.Random(0)
    noticed = 0
    for _ in range(40):
        broken = bytearray(data)
        broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(broken)
        try:
            read = read_corpus(file)
        except CorpusError as error:
            noticed += str(file) in str(error)
        else:
            assert (read.fingerprint, read.card) == (good.fingerprint, good.card)
    assert noticed > 20
    file.write_bytes(data[:-9])
    assert load("tweets").fingerprint == good.fingerprint  # built again
