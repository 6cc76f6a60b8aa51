"""The page on wrong labels says what the measurement found: who is better, by how much, and when nobody is."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from paper import label_errors
from soi_lib.errors import FormatError
from soi_lib.plots import interval_plot

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "suspects.py"
METHODS = ("margin", "last epoch", "cleanlab find_label_issues", "cleanlab self confidence")


def report(strength: dict[str, float], seeds=(0, 1, 2)) -> dict:
    """What the benchmark's own `summary` makes of rankings in which every method sees the truth through noise."""
    spec = importlib.util.spec_from_file_location("suspects_measured", SCRIPT)
    bench = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = bench
    spec.loader.exec_module(bench)
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


def test_the_sentence_names_the_best_of_the_others_and_the_gap(tmp_path):
    from soi_lib.analysis.label_issues import DEFAULT_RULE

    worse = report({DEFAULT_RULE: 1.0, "cleanlab self confidence": 3.0})
    said = label_errors.told(worse)
    assert "the best method that other tools offer, cleanlab self confidence" in said
    assert said.count("the default is worse") == 2
    better = label_errors.told(report({DEFAULT_RULE: 3.0, "last epoch": 5.0}))  # a rule of ours is no other tool
    assert better.count("the default is better") == 2
    assert "last epoch" not in better
    same = label_errors.told(report({name: 2.0 for name in (DEFAULT_RULE, "margin")}, seeds=(0, 1)))
    assert "cannot be told from it" in same

    path = tmp_path / "suspects.json"
    path.write_text(json.dumps(worse), encoding="utf-8")
    assert label_errors.told(label_errors.read(path)) == said


def test_tables_show_every_method_and_every_cell():
    from soi_lib.analysis.label_issues import DEFAULT_RULE

    made = report({"margin": 2.5})
    table = label_errors.overall(made)
    assert table["method"].iloc[0] == "margin"
    assert set(table["method"]) == {DEFAULT_RULE, *METHODS}
    own = table[table["method"] == DEFAULT_RULE].iloc[0]
    assert own.iloc[2] == ""
    assert table.iloc[0, 2].startswith("-0.")
    assert "[" in table.iloc[0, 1]
    cells = label_errors.cells(made)
    assert cells["corpus"].tolist() == ["sentiment", "sentiment", "en", "en"]
    assert cells["rate"].tolist() == ["5%", "20%", "5%", "20%"]
    assert list(cells.columns) == [
        "corpus", "rate", DEFAULT_RULE, "margin", "cleanlab find_label_issues", "cleanlab self confidence"
    ]  # fmt: skip
    rows = [r for r in made["rows"] if (r["corpus"], r["rate"], r["method"]) == ("en", 0.2, "margin")]
    assert cells["margin"].iloc[-1] == rows[0]["average_precision"]["mean"]
    assert interval_plot(label_errors.differences(made)).axes
    assert (
        label_errors.note(made) == "sentiment, en; 400 examples each, 6 epochs; 5%, 20% of the labels flipped; 3 seeds"
    )


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"overall": []}'])
def test_another_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FormatError, match=r"other\.json.*benchmarks/suspects\.py writes it"):
        label_errors.read(path)
    with pytest.raises(FormatError, match="nowhere"):
        label_errors.read(tmp_path / "nowhere.json")
