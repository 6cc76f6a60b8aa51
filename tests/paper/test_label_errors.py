"""The page on wrong labels says what the measurement found: who is better, by how much, and when nobody is."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from paper import label_errors
from paper.datasets import load
from paper.datasets.flipped import flip
from soi_lib.analysis.label_issues import DEFAULT_RULE

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "wrong_labels.py"
METHODS = ("margin", "last epoch", "cleanlab find_label_issues", "cleanlab self confidence")


@pytest.fixture(scope="module")
def bench():
    """The benchmark's script as a module."""
    spec = importlib.util.spec_from_file_location("wrong_labels_measured", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def report(bench, strength: dict[str, float], seeds=(0, 1, 2)) -> dict:
    """What the benchmark's own `summary` makes of rankings in which every method sees the truth through noise."""
    given = argparse.Namespace(
        corpora=["sentiment", "en"], rates=[0.05, 0.2], seeds=list(seeds), examples=400, epochs=6, folds=3
    )
    rankings = {}
    for number, cell in enumerate((c, r, s) for c in given.corpora for r in given.rates for s in given.seeds):
        rng = np.random.default_rng(number)
        wrong = rng.random(400) < cell[1]
        orders = {
            name: np.argsort(-(strength.get(name, 1.0) * wrong + rng.normal(size=400)), kind="stable")
            for name in (bench.OURS, *METHODS)
        }
        rankings[cell] = {"wrong": wrong, "orders": orders}
    return bench.summary(given, rankings)


def test_the_sentence_names_the_best_of_the_others_and_the_gap(bench):
    worse = report(bench, {DEFAULT_RULE: 1.0, "cleanlab self confidence": 3.0})
    said = label_errors.describe(worse)
    assert "the best method that other tools offer, cleanlab self confidence" in said
    assert said.count("the default is worse") == 2
    better = label_errors.describe(report(bench, {DEFAULT_RULE: 3.0, "last epoch": 5.0}))
    assert better.count("the default is better") == 2
    assert "last epoch" not in better
    same = label_errors.describe(report(bench, {name: 2.0 for name in (DEFAULT_RULE, "margin")}, seeds=(0, 1)))
    assert "cannot be told apart from it" in same


# --- the measurement itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 8])
def test_as_many_labels_are_flipped_as_asked_and_all_of_them_are_wrong(classes, rng):
    gold = rng.integers(0, classes, 400)
    before = np.zeros(400, dtype=bool)
    for rate in (0.05, 0.1, 0.2):
        labels, wrong = flip(gold, classes, rate, seed=3)
        assert wrong.sum() == rate * 400
        np.testing.assert_array_equal(labels != gold, wrong)
        assert set(labels) <= set(range(classes))
        assert not (before & ~wrong).any()  # what is wrong at a low rate is wrong at a higher one
        before = wrong


def test_a_tenth_of_the_training_labels_of_a_flipped_corpus_differ_and_nothing_else(wheels):
    clean, noisy = load("tweets"), load("tweets-flipped")
    assert noisy.fingerprint != clean.fingerprint
    assert list(noisy.splits["train"].ids) == list(clean.splits["train"].ids)
    wrong = clean.splits["train"].label != noisy.splits["train"].label
    assert abs(wrong.mean() - 0.1) < 0.001
    for split in ("validation", "test", "ood"):
        assert (noisy.splits[split].label == clean.splits[split].label).all()
