"""The six categories against a plain loop, on every possible history of up to 12 epochs; data maps against formulas."""

import math
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import learn

from soi_lib import TrainingDynamics
from soi_lib.analysis.datamap import data_map, regions
from soi_lib.analysis.soi import SOI, categorize, soi_counts, soi_shares, soi_table
from soi_lib.analysis.stream import stream_data_map
from soi_lib.errors import ChecksumError, FormatError, RangeError


def by_hand(history: tuple[int, ...], early: Fraction) -> SOI:
    """Apply the rule as the method page states it, in exact arithmetic."""
    if not any(history):
        return SOI.UNE
    if all(history):
        return SOI.ACE
    forgotten = sum(now > then for now, then in pairwise(history))
    if forgotten >= 2:
        return SOI.FRGE_2
    if forgotten == 1:
        return SOI.FRGE_1
    k = history.index(1)
    return SOI.ELE if k < early * len(history) else SOI.LLE


@pytest.mark.parametrize("epochs", range(1, 13))
def test_all_histories_agree_with_the_rule(epochs: int) -> None:
    histories = list(product((0, 1), repeat=epochs))
    correct = np.array([*histories, histories[-1]], dtype=bool).T  # more examples than histories: looked up in a table
    for early in ("0.5", "0.3", "0.7", "1", "0.01", "0.07"):
        expected = [by_hand(h, Fraction(early)) for h in [*histories, histories[-1]]]
        found = categorize(correct, float(early))
        assert found.dtype == np.int8
        assert found.tolist() == [int(e) for e in expected]


@pytest.mark.parametrize("epochs", [17, 40, 64])
def test_long_histories(epochs: int, rng: np.random.Generator) -> None:
    correct = np.sort(rng.random((epochs, 300)), axis=0) > rng.random(300)
    correct ^= rng.random(correct.shape) < rng.choice([0, 0.01, 0.3], 300)
    expected = [int(by_hand(tuple(int(c) for c in column), Fraction(1, 2))) for column in correct.T]
    assert set(expected) == {0, 1, 2, 3, 4, 5}
    assert categorize(correct).tolist() == expected


@pytest.mark.parametrize("early", ["0.14", "0.28", "0.58"])
def test_a_bound_that_floating_point_misses(early: str) -> None:
    """0.28 * 25 is slightly more than 7 in floating point; a first correct epoch at the bound is late."""
    for epochs in range(2, 65):
        bound = math.ceil(Fraction(early) * epochs)
        for k in {max(1, bound - 1), min(epochs - 1, max(1, bound))}:
            history = tuple(int(e >= k) for e in range(epochs))
            assert categorize(np.array([history], bool).T, float(early))[0] == by_hand(history, Fraction(early))


def test_counts_and_shares_cover_everything() -> None:
    a, b = learn(300, 6), learn(300, 6, seed=1)
    codes = categorize(a)
    counts = soi_counts(codes)
    assert counts == {soi.name: int((codes == soi).sum()) for soi in SOI}
    assert soi_shares(codes) == {name: count / 300 for name, count in counts.items()}
    assert soi_shares([]) == dict.fromkeys(counts, 0.0)
    table = soi_table({"alone": a, "together": b}, shares=False)
    assert table.loc["together"].to_dict() == soi_counts(categorize(b.correct))
    assert soi_table({"alone": a}).loc["alone"].to_dict() == soi_shares(codes)


def test_wrong_input_is_an_error() -> None:
    for early in (0, 1.01, float("nan")):
        with pytest.raises(RangeError, match="early"):
            categorize(np.ones((3, 2), bool), early)
    for wrong in (np.ones((3, 2)), np.ones(3, bool)):
        with pytest.raises(FormatError):
            categorize(wrong)
    with pytest.raises(RangeError, match="65"):
        categorize(np.ones((65, 2), bool))


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, in a folder whose name a glob pattern would misread."""
    folder = tmp_path / "runs[1]"
    folder.mkdir()
    for k in range(3):
        learn(700, 9, member=f"part{k}", corpus=k).save(folder / f"{k}.parquet")
    return folder


def test_the_map_is_that_of_all_files_in_memory(folder: Path, tmp_path: Path) -> None:
    parts = [TrainingDynamics.load(folder / f"{k}.parquet") for k in range(3)]
    wanted = pd.concat([data_map(dyn, 0.3) for dyn in parts], ignore_index=True)
    found = stream_data_map(folder, tmp_path / "map.parquet", early=0.3, fraction=0.25)
    written = pd.read_parquet(tmp_path / "map.parquet")
    pd.testing.assert_frame_equal(written, wanted, check_exact=False, rtol=0, atol=1e-12)
    assert found.examples == 2100
    assert found.soi == soi_counts(np.concatenate([categorize(dyn, 0.3) for dyn in parts]))
    for name, inside in {
        "easy": written["confidence"] >= found.cuts["easy"],
        "ambiguous": written["variability"] >= found.cuts["ambiguous"],
        "hard": written["confidence"] <= found.cuts["hard"],
    }.items():
        assert inside.mean() == pytest.approx(0.25, abs=0.01), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.parquet", "runs[1]"]


def test_nothing_is_written_if_a_file_is_damaged_or_has_other_epochs(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.parquet"
    learn(10, 8).save(folder / "3.parquet")
    with pytest.raises(FormatError, match=r"3\.parquet"):
        stream_data_map(folder, out)
    raw = bytearray((folder / "1.parquet").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "1.parquet").write_bytes(raw)
    with pytest.raises(ChecksumError, match=r"1\.parquet"):
        stream_data_map(folder, out)
    assert not out.exists()
