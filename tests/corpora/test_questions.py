from __future__ import annotations

import pytest

from paper.datasets import load
from paper.datasets.questions import NAMES, RARE, rows
from paper.datasets.sentiment import wording

pytestmark = pytest.mark.usefixtures("wheels")


def test_every_question_of_the_file_is_there_once():
    frame, labels = rows("questions")
    assert len(frame) == 5380
    assert len(frame) + sum(frame.attrs["counts"].values()) == 15452
    assert set(labels) == set(NAMES.values())


def test_fine_classes_that_are_rare_are_left_out_and_counted():
    frame, labels = rows("questions_fine")
    assert frame["label"].value_counts().min() >= RARE
    (left_out,) = [what for what in frame.attrs["counts"] if "classes" in what]
    assert left_out == f"of {50 - len(labels)} classes with fewer than {RARE} questions"
    assert frame.attrs["counts"]["contradictory"] == 6  # one question, six lines of the file
    assert any(left_out in caveat for caveat in load("questions_fine").card.caveats)


def test_wordings_stay_together_and_there_is_no_ood():
    corpus = load("questions")
    assert corpus.card.ood.startswith("none")
    home: dict[str, str] = {}
    for name, split in corpus.splits.items():
        for text in split.text:
            assert home.setdefault(wording(text), name) == name
