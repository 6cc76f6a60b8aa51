"""Data maps against the direct formulas."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import learn

from soi_lib.analysis.datamap import data_map, regions
from soi_lib.analysis.soi import categorize


@pytest.mark.parametrize("n", [1, 150_000])
def test_data_map_agrees_with_the_formulas(n: int) -> None:
    dyn = learn(n, 7)
    found = data_map(dyn, early=0.4)
    p = dyn.p_gold.astype(np.float64)
    mean = p.sum(0) / 7
    names = ["id", "confidence", "variability", "correctness", "forgetfulness", "never_learned", "soi"]
    assert list(found.columns) == names
    assert found["id"].tolist() == dyn.ids.tolist()
    np.testing.assert_allclose(found["confidence"], mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["variability"], np.sqrt(((p - mean) ** 2).sum(0) / 7), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["correctness"], dyn.correct.sum(0) / 7, atol=1e-15)
    assert np.array_equal(found["forgetfulness"], (dyn.correct[:-1] & ~dyn.correct[1:]).sum(0))
    assert np.array_equal(found["never_learned"], ~dyn.correct.any(0))
    assert np.array_equal(found["soi"], categorize(dyn, 0.4))


def test_regions_hold_the_extremes() -> None:
    table = data_map(learn(300, 6))
    found = regions(table, 0.2)
    assert {name: int(mask.sum()) for name, mask in found.items()} == {"easy": 60, "ambiguous": 60, "hard": 60}
    for name, column, sign in (("easy", "confidence", 1), ("ambiguous", "variability", 1), ("hard", "confidence", -1)):
        value = sign * table[column].to_numpy()
        assert value[found[name]].min() >= value[~found[name]].max()
    assert not (found["easy"] & found["hard"]).any()
