from __future__ import annotations

import re

import pytest

from paper.datasets import load
from paper.datasets.homes import HOMES
from paper.datasets.intents import LABELS, LANGUAGES, form, homes_of, shape
from paper.datasets.templates import Grammar
from soi_lib.data.dataset import normalise

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
