"""Similarity before training, on the real encoder: what must be alike is, and what was measured can be read again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from paper import similarity
from paper.recorded import CHECKSUMS, Results
from paper.similarity import open_similarity, task_similarity
from soi_lib.data.dataset import Split
from soi_lib.errors import CorpusError, StoreError
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


def test_members_with_other_labels_have_no_cosine_through_initial_heads(wheels):
    table = task_similarity(("paraphrase", "sentiment"), n=4, draws=1)
    assert set(table["measure"]) == {"gradient, aligned heads", "representation", "words"}


def test_the_same_numbers_whatever_the_other_members_are(sources, wheels):
    table = task_similarity(("amazon",), n=8, draws=2)
    mine = sources[(sources["first"] == "amazon") & (sources["measure"] == "words")]["value"]
    assert table[table["measure"] == "words"]["value"].tolist() == mine.tolist()


def test_cosines_of_known_gradients():
    one, two = np.eye(4)[:2]
    halves = np.stack([one, one + two, -one, -one])  # member 0 turned by 45 degrees between halves, member 1 opposite
    found = similarity._cosines(halves.astype(np.float32))
    first = 2 * one + two
    assert np.isclose(found[0, 1], -first[0] / np.linalg.norm(first), atol=1e-6)
    assert np.allclose(np.diag(found), [0.5**0.5, 1.0], atol=1e-6)
    assert np.allclose(found, found.T)


def test_overlaps_of_known_subspaces(rng):
    k, width = similarity.DIRECTIONS, 64
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
    same, other = basis[:k], basis[k : 2 * k]
    half = np.concatenate([basis[: k // 2], basis[2 * k : 2 * k + k // 2]])
    sets = [rng.normal(size=(40, k)) @ b + 3 for b in (same, other, half)]
    found = similarity._overlaps(sets)
    assert np.allclose(found, [[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]], atol=1e-9)


def test_words_in_common():
    def split(*texts: str) -> Split:
        n = len(texts)
        return Split(np.arange(n).astype(object), list(texts), None, np.zeros(n, np.int16), np.arange(n).astype(object))

    found = similarity._words([split("a b", "A  b"), split("c", "d"), split("a b", "c d")])
    assert np.isclose(found[0, 1], 0)
    assert np.isclose(found[0, 0], 1)
    assert np.isclose(found[1, 1], 0)
    p, q = Counter("ab"), Counter("abcd")
    js = sum(0.5 * x[w] / x.total() * np.log2((x[w] / x.total()) / (p[w] / 4 + q[w] / 8)) for x in (p, q) for w in x)
    assert np.isclose(found[0, 2], 1 - js)


def test_an_aligned_head_points_to_the_classes(rng):
    centres = rng.normal(size=(3, 16))
    gold = np.tile(np.arange(3), 20)
    vectors = [centres[gold] + 0.01 * rng.normal(size=(60, 16)) for _ in range(2)]

    class Data:
        def __init__(self) -> None:
            self.gold = gold

    weight = similarity._aligned(vectors, [Data(), Data()], 0, 3)
    assert ((vectors[0] - vectors[0].mean(0)) @ weight.T).argmax(1).tolist() == gold.tolist()
    assert np.isclose(np.linalg.norm(weight, axis=1).mean(), 0.02 * 4)
    assert np.allclose(weight.sum(0), 0, atol=1e-6)


def test_too_few_examples_are_named(wheels):
    with pytest.raises(CorpusError, match=r"^tweets: a class has too few training examples.*expected 50000"):
        task_similarity(("tweets",), n=1000, draws=100)


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
