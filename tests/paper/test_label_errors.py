"""The page on wrong labels: its sentence names the better method, and the planted errors are as described."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from itertools import product
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
    spec = importlib.util.spec_from_file_location("wrong_labels_measured", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def report(bench, strength: dict[str, float], seeds=(0, 1, 2)) -> dict:
    """Summarise rankings in which each method sees the wrong labels with its `strength`, plus noise."""
    given = argparse.Namespace(corpora=["sentiment"], rates=[0.05, 0.2], seeds=seeds, examples=400, epochs=6, folds=3)
    rankings = {}
    for number, cell in enumerate(product(given.corpora, given.rates, given.seeds)):
        rng = np.random.default_rng(number)
        wrong = rng.random(400) < cell[1]
        orders = {
            name: np.argsort(-(strength.get(name, 1.0) * wrong + rng.normal(size=400)), kind="stable")
            for name in (bench.OURS, *METHODS)
        }
        rankings[cell] = {"wrong": wrong, "orders": orders}
    return bench.summary(given, rankings)


def test_the_sentence_compares_the_default_with_the_best_other_method(bench):
    worse = report(bench, {DEFAULT_RULE: 1.0, "cleanlab self confidence": 3.0})
    said = label_errors.describe(worse)
    assert "the best method that other tools offer, cleanlab self confidence" in said
    assert said.count("the default is worse") == 2
    better = label_errors.describe(report(bench, {DEFAULT_RULE: 3.0, "last epoch": 5.0}))
    assert better.count("the default is better") == 2
    assert "last epoch" not in better
    same = label_errors.describe(report(bench, {name: 2.0 for name in (DEFAULT_RULE, "margin")}, seeds=(0, 1)))
    assert "cannot be told apart from it" in same


@pytest.mark.parametrize("classes", [2, 8])
def test_the_requested_number_of_labels_is_flipped(classes, rng):
    gold = rng.integers(0, classes, 400)
    before = np.zeros(400, dtype=bool)
    for rate in (0.05, 0.1, 0.2):
        labels, wrong = flip(gold, classes, rate, seed=3)
        assert wrong.sum() == rate * 400
        np.testing.assert_array_equal(labels != gold, wrong)
        assert set(labels) <= set(range(classes))
        assert not (before & ~wrong).any()  # labels flipped at a low rate are flipped at a higher one
        before = wrong


def test_only_a_tenth_of_the_training_labels_of_a_flipped_corpus_differ(wheels):
    clean, noisy = load("tweets"), load("tweets-flipped")
    assert noisy.fingerprint != clean.fingerprint
    assert list(noisy.splits["train"].ids) == list(clean.splits["train"].ids)
    wrong = clean.splits["train"].label != noisy.splits["train"].label
    assert abs(wrong.mean() - 0.1) < 0.001
    for split in ("validation", "test", "ood"):
        assert (noisy.splits[split].label == clean.splits[split].label).all()
