"""Dynamics larger than memory: in parts they give, bit for bit, what the whole gives in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import learn

from soi_lib import TrainingDynamics, categorize, data_map, dynamics_file
from soi_lib.analysis import cartography, stream
from soi_lib.analysis.categories import soi_counts
from soi_lib.analysis.stream import read_parts, region_cuts, stream_counts, stream_data_map
from soi_lib.dynamics_file import Groups, write_parts
from soi_lib.errors import ChecksumError, FormatError, OutputExistsError, RangeError, SoiError


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups and blocks of the scratch file so small that every file has several."""
    monkeypatch.setattr(dynamics_file, "_ROW_GROUP", 64)
    monkeypatch.setattr(stream, "_ROWS", 100)


def coarse(n: int = 500, epochs: int = 5, levels: int = 3, *, text: bool = False, seed: int = 0) -> TrainingDynamics:
    """Dynamics full of ties: probabilities of a few levels only."""
    rng = np.random.default_rng(seed)
    p = (rng.integers(0, levels, (epochs, n)) / (levels - 1)).astype(np.float32)
    ids = np.array([f"é{i}" for i in rng.permutation(n)], dtype=object) if text else rng.permutation(n)
    return TrainingDynamics(ids, rng.integers(0, 2, n), p, p > 0.5)


def whole_map(dyn: TrainingDynamics, fraction: float = 1 / 3) -> pd.DataFrame:
    table = data_map(dyn)
    return table.assign(**cartography.regions(table, fraction))


@pytest.mark.parametrize("dyn", [learn(500), learn(63), coarse(), coarse(text=True), coarse(levels=2)], ids=str)
@pytest.mark.parametrize("fraction", [1 / 3, 0.01, 1.0])
def test_the_map_is_that_of_the_whole(tmp_path: Path, dyn: TrainingDynamics, fraction: float) -> None:
    path, out = dyn.save(tmp_path / "d.parquet"), tmp_path / "map.parquet"
    assert len(Groups(path)) == -(-len(dyn) // 64)
    summary = stream_data_map(path, out, fraction=fraction, jobs=2)
    wanted = whole_map(dyn, fraction)
    pd.testing.assert_frame_equal(pd.read_parquet(out), wanted, check_exact=True)
    assert summary.soi == soi_counts(categorize(dyn))
    assert summary.confidence == pytest.approx(wanted["confidence"].mean(), abs=1e-14)
    assert summary.regions is not None
    assert {name: cut.size for name, cut in summary.regions.items()} == {
        name: int(wanted[name].sum()) for name in cartography.REGIONS
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.parquet", "map.parquet"]


def test_counts_read_histories_only_and_agree(tmp_path: Path) -> None:
    dyn = learn(700, epochs=9)
    summary = stream_counts(dyn.save(tmp_path / "d.parquet"), jobs=3)
    table = data_map(dyn)
    assert (summary.examples, summary.epochs, summary.confidence, summary.regions) == (700, 9, None, None)
    assert summary.soi == soi_counts(categorize(dyn))
    assert summary.correct == dyn.correct.sum(1).tolist()
    assert summary.events == int(table["forgetfulness"].sum())
    assert summary.never_learned == int(table["never_learned"].sum())


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_cuts_are_exact_for_any_values(data: st.DataObject) -> None:
    """Values that differ in their last bit, zeros with a sign, and the smallest doubles are told apart."""
    near = np.nextafter(0.5, 1)
    value = st.sampled_from([0.0, -0.0, 5e-324, 0.1, 0.5, near, np.nextafter(1, 0), 1.0]) | st.floats(0, 1)
    rows = data.draw(st.lists(st.tuples(value, value), min_size=1, max_size=60))
    confidence, variability = np.array(rows).T.copy()
    fraction = data.draw(st.sampled_from([0.05, 1 / 3, 0.5, 1.0]))
    masks = cartography.regions(pd.DataFrame({"confidence": confidence, "variability": variability}), fraction)
    halves = [slice(0, len(rows) // 2), slice(len(rows) // 2, None)]
    cuts = region_cuts(lambda: [(confidence[h], variability[h]) for h in halves], len(rows), fraction)
    for name, cut in cuts.items():
        choose = stream._Chooser(name, cut)
        found = np.concatenate([choose(confidence[h], variability[h]) for h in halves])
        assert np.array_equal(found, masks[name]), name


def test_parts_are_the_row_groups_in_order(tmp_path: Path) -> None:
    dyn = coarse(200, text=True)
    logits = np.random.default_rng(1).normal(size=(5, 200, 2)).astype(np.float32)
    dyn = TrainingDynamics(dyn.ids, dyn.gold, dyn.p_gold, dyn.correct, {"member": "x"}, logits)
    parts = list(read_parts(dyn.save(tmp_path / "d.parquet")))
    assert [len(part) for part in parts] == [64, 64, 64, 8]
    assert {part.meta.member for part in parts} == {"x"}
    for name, axis in (("ids", 0), ("gold", 0), ("p_gold", 1), ("correct", 1), ("history", 0), ("logits", 1)):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts], axis), getattr(dyn, name)), name


def test_a_file_written_in_parts_is_the_file_of_the_whole(tmp_path: Path) -> None:
    dyn = coarse(200)
    rows = [dyn.subset(np.arange(200) // 64 == i) for i in range(4)]
    write_parts(iter(rows), tmp_path / "parts.parquet")
    again = TrainingDynamics.load(tmp_path / "parts.parquet")
    assert again.fingerprint() == dyn.fingerprint()
    assert pq.ParquetFile(tmp_path / "parts.parquet").num_row_groups == 4


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    for other in (coarse(10, epochs=4), coarse(10, text=True)):
        with pytest.raises(FormatError, match="part 1 differs from the first"):
            write_parts([coarse(10), other], path)
    with pytest.raises(FormatError, match="no parts"):
        write_parts([], path)
    assert list(tmp_path.iterdir()) == []


def test_damage_is_found_before_anything_is_written(tmp_path: Path) -> None:
    path, out = learn(300).save(tmp_path / "d.parquet"), tmp_path / "map.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    for call in (lambda: stream_counts(path), lambda: read_parts(path), lambda: stream_data_map(path, out)):
        with pytest.raises(ChecksumError, match=r"d\.parquet"):
            call()
    assert not out.exists()


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    path = learn(100).save(tmp_path / "d.parquet")
    with pytest.raises(RangeError, match="fraction"):
        stream_data_map(path, tmp_path / "m", fraction=0)
    with pytest.raises(SoiError, match="no such file"):
        stream_counts(tmp_path / "none.parquet")
    with pytest.raises(OutputExistsError):
        stream_data_map(path, path)
    about = json.loads(pq.read_schema(stream_map(path, tmp_path / "m.parquet")).metadata[b"soi_map"])
    assert about["summary"]["examples"] == 100
    assert about["meta"]["member"] == "tweets"


def stream_map(path: Path, out: Path) -> Path:
    stream_data_map(path, out)
    return out
