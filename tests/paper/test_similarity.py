"""Similarity before training, on the real encoder: what must be alike is, and what was measured can be read again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from paper import similarity
from paper.recorded import CHECKSUMS, Results
from paper.similarity import open_similarity, task_similarity
from soi_lib.errors import StoreError
from soi_lib.runs.config import ComparisonPlan, DataSizes, Profile, Training


@pytest.fixture(scope="module")
def sources(wheels):
    return task_similarity(("tweets", "amazon"), n=8, draws=2)


def test_a_row_a_pair_and_measure(sources):
    measures = ["gradient, initial heads", "gradient, aligned heads", "representation", "words"]
    pairs = [("tweets", "tweets"), ("tweets", "amazon"), ("amazon", "amazon")]
    assert list(zip(sources["first"], sources["second"], sources["measure"], strict=True)) == [
        (*pair, measure) for measure in measures for pair in pairs
    ]
    assert (sources["low"] <= sources["value"]).all()
    assert (sources["value"] <= sources["high"]).all()
    bounded = sources[~sources["measure"].str.startswith("gradient")]
    assert bounded["value"].between(0, 1).all()
    assert sources["value"].abs().max() <= 1
    own = sources[sources["first"] == sources["second"]].set_index(["measure", "first"])["value"]
    for row in sources.itertuples():
        product = own[row.measure, row.first] * own[row.measure, row.second]
        positive = min(own[row.measure, row.first], own[row.measure, row.second]) > 0
        assert np.isclose(row.ceiling, product**0.5, atol=1e-3) if positive else np.isnan(row.ceiling)


def test_similarities_are_kept_beside_the_runs(wheels, tmp_path, monkeypatch):
    profile = Profile(
        name="t",
        seeds=(0,),
        data=DataSizes(train=24, evaluate=8),
        training=Training(epochs=1),
        comparisons={"source": ComparisonPlan(encoder="minilm", members=("tweets",))},
    )
    results = Results("source", profile, ())
    first = open_similarity(results, tmp_path, n=4, draws=1)
    path = tmp_path / "similarity-source.json"
    assert json.loads(path.read_text(encoding="utf-8"))["rows"]
    times = []
    made = task_similarity
    monkeypatch.setattr(similarity, "task_similarity", lambda *a, **k: times.append(k) or made(*a, **k))
    assert open_similarity(results, tmp_path, n=4, draws=1).equals(first)
    assert not times
    longer = profile.model_copy(update={"training": Training(epochs=1, max_length=64)})
    open_similarity(replace(results, profile=longer), tmp_path, n=4, draws=1)
    assert times == [{"max_length": 64, "pooling": "mean", "n": 4, "draws": 1}]
    (tmp_path / CHECKSUMS).write_text("", encoding="utf-8")
    assert set(open_similarity(results, tmp_path)["measure"]) == {"gradient, aligned heads", "representation", "words"}
    path.unlink()
    with pytest.raises(StoreError, match=r"similarity-source.json: no similarities were recorded"):
        open_similarity(results, tmp_path)
