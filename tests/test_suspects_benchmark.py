"""The benchmark of wrong labels flips as many as it says, scores as others do, and asks cleanlab as it is meant."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from paper.datasets.flipped import flip

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "suspects.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("suspects_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("classes", [2, 8])
def test_as_many_labels_are_flipped_as_asked_and_all_of_them_are_wrong(bench, classes, rng):
    gold = rng.integers(0, classes, 400)
    before = np.zeros(400, dtype=bool)
    for rate in (0.05, 0.1, 0.2):
        labels, wrong = flip(gold, classes, rate, seed=3)
        assert wrong.sum() == rate * 400
        np.testing.assert_array_equal(labels != gold, wrong)
        assert set(labels) <= set(range(classes))
        assert not (before & ~wrong).any()  # what is wrong at a low rate is wrong at a higher one
        before = wrong
    assert not np.array_equal(flip(gold, classes, 0.1, seed=4)[1], flip(gold, classes, 0.1, seed=3)[1])


def test_scores_are_those_of_scikit_learn(bench, rng):
    wrong = rng.random(300) < 0.1
    order = rng.permutation(300)
    place = np.argsort(order)
    precision, recall = bench.scores(order, wrong)
    assert precision == pytest.approx(average_precision_score(wrong, -place))
    assert recall == wrong[order[: wrong.sum()]].mean()
    best = np.argsort(~wrong, kind="stable")
    assert bench.scores(best, wrong) == (1.0, 1.0)


def test_cleanlab_finds_labels_that_good_predictions_contradict(bench, rng):
    truth = rng.integers(0, 3, 300)
    labels, wrong = flip(truth, 3, 0.1, seed=0)
    held_out = rng.dirichlet(np.ones(3), 300) * 0.3
    held_out[np.arange(300), truth] += 0.7
    orders = bench.by_cleanlab(labels, held_out)
    assert set(orders) == {"cleanlab self confidence", "cleanlab normalized margin", "cleanlab find_label_issues"}
    for order in orders.values():
        assert sorted(order) == list(range(300))
        assert bench.scores(order, wrong)[0] > 0.95


def test_every_training_has_a_key_of_its_own(bench, tmp_path, wheels):
    given = argparse.Namespace(examples=100, epochs=2, folds=3, work=tmp_path)
    jobs = [j for rate in (0.05, 0.1) for seed in (0, 1) for j in bench.jobs(given, "sentiment", rate, seed)]
    assert len(jobs) == 16
    assert len({bench.path_of(given, job) for job in jobs}) == 16
    assert sum(map(bench.examples_of, jobs[:4])) == pytest.approx(100 * 2 * 3, abs=4)  # one, and three of two thirds
