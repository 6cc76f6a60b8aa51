from __future__ import annotations

import random
import re

import pytest

from paper.datasets import load
from paper.datasets.homes import HOMES
from paper.datasets.intents import LABELS, LANGUAGES, form, homes_of, shape
from paper.datasets.templates import Grammar, plain
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


def test_the_parser_recognises_generated_sentences_with_their_intent():
    from hassil.intents import Intents, TextSlotList
    from hassil.recognize import recognize_all

    own = {"area": ["kitchen"], "floor": ["first"], "name": ["fan"], "timer_name": ["tea"], "timer_command": []}
    grammar = Grammar("en")
    source = {k: v for k, v in grammar.source.items() if k in ("language", "intents", "lists", "expansion_rules")}
    source["lists"] = source["lists"] | {"timer_command": {"wildcard": True}}
    intents = Intents.from_dict(source)
    places = {k: TextSlotList.from_strings(own[k]) for k in ("area", "floor")}
    rng = random.Random(0)
    for intent in ("CancelTimer", "MediaPause", "LightSet", "TurnOff"):
        for template in grammar.templates(intent)[::3]:
            text, _ = grammar.walk(template, rng, own)
            device = {"domain": template.domains[0] if template.domains else "light"}
            lists = places | {"name": TextSlotList.from_tuples([("fan", "fan", device)])}
            found = {
                r.intent.name for r in recognize_all(plain(text), intents, lists, intent_context={"area": "kitchen"})
            }
            assert f"Hass{intent}" in found, plain(text)
