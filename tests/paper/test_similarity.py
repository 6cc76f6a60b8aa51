"""Similarity before training, on the real encoder: its table, and the copy that is saved next to the runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from paper import similarity
from paper.recorded import CHECKSUMS, Results
from paper.similarity import open_similarity, task_similarity
from soi_lib.errors import StoreError
from soi_lib.runs.config import Profile, Training


@pytest.fixture(scope="module")
def sources(wheels):
    return task_similarity(("tweets", "amazon"), n=8, draws=2)


def test_the_table_has_one_row_per_measure_and_pair(sources):
    measures = ["gradient, initial heads", "gradient, aligned heads", "representation", "words"]
    pairs = [("tweets", "tweets"), ("tweets", "amazon"), ("amazon", "amazon")]
    assert list(zip(sources["first"], sources["second"], sources["measure"], strict=True)) == [
        (*pair, measure) for measure in measures for pair in pairs
    ]
    assert (sources["low"] <= sources["value"]).all()
    assert (sources["value"] <= sources["high"]).all()
    assert sources["value"].abs().max() <= 1
    own = sources[sources["first"] == sources["second"]].set_index(["measure", "first"])["value"]
    for row in sources.itertuples():
        sides = own[row.measure, row.first], own[row.measure, row.second]
        expected = np.prod(sides) ** 0.5 if min(sides) > 0 else np.nan
        assert row.ceiling == pytest.approx(expected, abs=1e-3, nan_ok=True)


def test_similarities_are_saved_next_to_the_runs(wheels, tmp_path, monkeypatch):
    source = {"source": {"encoder": "minilm", "members": ("tweets",)}}
    sizes = {"train": 24, "evaluate": 8}
    profile = Profile(name="t", seeds=(0,), data=sizes, training={"epochs": 1}, comparisons=source)
    results = Results("source", profile, ())
    first = open_similarity(results, tmp_path, n=4, draws=1)
    path = tmp_path / "similarity-source.json"
    assert json.loads(path.read_text(encoding="utf-8"))["rows"]
    calls = []
    monkeypatch.setattr(similarity, "task_similarity", lambda *a, **k: calls.append(k) or task_similarity(*a, **k))
    assert open_similarity(results, tmp_path, n=4, draws=1).equals(first)
    assert not calls
    longer = profile.model_copy(update={"training": Training(epochs=1, max_length=64)})
    open_similarity(replace(results, profile=longer), tmp_path, n=4, draws=1)
    assert calls == [{"max_length": 64, "pooling": "mean", "n": 4, "draws": 1}]
    (tmp_path / CHECKSUMS).write_text("", encoding="utf-8")
    assert set(open_similarity(results, tmp_path)["measure"]) == {"gradient, aligned heads", "representation", "words"}
    path.unlink()
    with pytest.raises(StoreError, match=r"similarity-source.json: no similarities were recorded"):
        open_similarity(results, tmp_path)
