from __future__ import annotations

import random
import re

import pytest

from paper.datasets.templates import Grammar, plain

pytestmark = pytest.mark.usefixtures("wheels")

OWN = {"area": ["kitchen"], "floor": ["first"], "name": ["fan"], "timer_name": ["tea"], "timer_command": []}


def test_walks_are_sentences_that_the_parser_accepts():
    """The parser itself recognises what was walked, with the intent it was walked for."""
    from hassil.intents import Intents, TextSlotList
    from hassil.recognize import recognize_all

    grammar = Grammar("en")
    source = {k: v for k, v in grammar.source.items() if k in ("language", "intents", "lists", "expansion_rules")}
    source["lists"] = source["lists"] | {"timer_command": {"wildcard": True}}
    intents = Intents.from_dict(source)
    places = {k: TextSlotList.from_strings(OWN[k]) for k in ("area", "floor")}
    rng = random.Random(0)
    for intent in ("CancelTimer", "MediaPause", "LightSet", "TurnOff"):
        for template in grammar.templates(intent)[::3]:
            text, _ = grammar.walk(template, rng, OWN)
            device = {"domain": template.domains[0] if template.domains else "light"}
            lists = places | {"name": TextSlotList.from_tuples([("fan", "fan", device)])}
            here = {"area": "kitchen"}
            found = {r.intent.name for r in recognize_all(plain(text), intents, lists, intent_context=here)}
            assert f"Hass{intent}" in found, plain(text)


def test_walks_reach_every_branch():
    grammar = Grammar("fa")
    template = grammar.templates("CancelTimer")[0]
    rng = random.Random(1)
    seen = {plain(grammar.walk(template, rng, {})[0]) for _ in range(600)}
    assert len(seen) == 2 * 3 * 4  # two nouns, three particles, four verbs


def test_fixed_slots_are_kept():
    grammar = Grammar("en")
    rng = random.Random(2)
    for template in grammar.templates("LightSet"):
        free = grammar.walk(template, rng, OWN)
        assert free is not None
        text, slots = grammar.walk(template, rng, OWN, free[1])
        assert slots == free[1]
        assert not re.search(r"[{}<>\[\]|]", text)


def test_an_empty_list_gives_no_sentence():
    grammar = Grammar("en")
    commands = [t for t in grammar.templates("StartTimer") if "timer_command" in t.lists]
    assert commands
    assert all(grammar.walk(t, random.Random(0), OWN) is None for t in commands)
