"""The data structure and its file: nothing is lost in a round trip, and every kind of damage has its error."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import learn

from soi_lib import io
from soi_lib.dynamics import Meta, TrainingDynamics, align
from soi_lib.errors import (
    AlignmentError,
    ChecksumError,
    DuplicateIdError,
    FormatError,
    OutputExistsError,
    RangeError,
    SchemaError,
    SoiError,
)


def same(a: TrainingDynamics, b: TrainingDynamics) -> None:
    assert a.ids.tolist() == b.ids.tolist()
    assert a.ids.dtype == b.ids.dtype
    for name in ("gold", "p_gold", "correct", "history", "logits"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            assert np.array_equal(left, right), name


def small(**change: Any) -> TrainingDynamics:
    values: dict[str, Any] = {
        "ids": ["a", "b", "c"],
        "gold": [0, 1, 1],
        "p_gold": [[0.1, 0.9, 0.4], [0.6, 0.8, 0.3]],
        "correct": [[False, True, False], [True, True, False]],
    }
    return TrainingDynamics(**(values | change))


def test_arrays_have_the_stated_types_and_are_read_only() -> None:
    dyn = small()
    assert (dyn.gold.dtype, dyn.p_gold.dtype, dyn.correct.dtype, dyn.ids.dtype) == (np.int16, np.float32, bool, object)
    assert dyn.p_gold.flags.c_contiguous
    assert (len(dyn), dyn.epochs, dyn.meta.epochs, dyn.meta.classes) == (3, 2, 2, 2)
    assert dyn.history.dtype == np.uint64
    assert dyn.history.tolist() == small(correct=[[0, 1, 0], [1, 1, 0]]).history.tolist() == [0b10, 0b11, 0b00]
    assert small(ids=pd.Series([3, 1, 2])).ids.dtype == np.int64
    p = np.full((2, 3), 0.5, np.float32)
    assert np.shares_memory(small(p_gold=p).p_gold, p)  # no copy where none is needed
    for array in (dyn.ids, dyn.gold, dyn.p_gold, dyn.correct):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[0]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"ids": ["a", "b", "a"]}, DuplicateIdError, "'a'"),
        ({"ids": ["a", 1, "c"]}, FormatError, "int, str"),
        ({"ids": [2**70, 1, 2]}, RangeError, ""),
        ({"p_gold": [[0.1, 0.9, 1.5], [0.6, 0.8, 0.3]]}, RangeError, "id 'c' at epoch 0"),
        ({"p_gold": [[0.1, np.nan, 0.5], [0.6, 0.1, 0.3]]}, RangeError, "nan"),
        ({"p_gold": np.zeros((65, 3)), "correct": np.zeros((65, 3), bool)}, RangeError, "65"),
        ({"correct": [[True, True, False]]}, FormatError, ""),
        ({"gold": [0, 1]}, FormatError, ""),
        ({"gold": [0, -1, 1]}, RangeError, "id 'b'"),
        ({"meta": Meta(epochs=3)}, FormatError, "meta.epochs"),
        ({"meta": Meta(classes=2, label_names=("x",))}, FormatError, "label_names"),
        ({"logits": np.zeros((2, 3))}, FormatError, "logits"),
        ({"logits": np.full((2, 3, 2), np.inf)}, RangeError, ""),
    ],
)
def test_impossible_values_raise_an_error_that_names_them(change, error, words):
    with pytest.raises(error, match=words or None) as caught:
        small(**change)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_subset_by_mask_keeps_order_and_by_ids_takes_theirs() -> None:
    dyn = small(logits=np.arange(12, dtype=float).reshape(2, 3, 2))
    masked = dyn.subset(np.array([True, False, True]))
    assert masked.ids.tolist() == ["a", "c"]
    listed = dyn.subset(["c", "a"])
    assert listed.ids.tolist() == ["c", "a"]
    assert np.array_equal(listed.p_gold, dyn.p_gold[:, [2, 0]])
    assert np.array_equal(listed.logits, dyn.logits[:, [2, 0]])  # type: ignore[index]
    assert dyn.subset([True, False, True]).ids.tolist() == ["a", "c"]
    assert small(ids=[10, 20, 30]).subset([30]).gold.tolist() == [1]


def test_subset_of_missing_or_no_examples_is_an_error() -> None:
    with pytest.raises(AlignmentError, match="'nobody'"):
        small().subset(["a", "nobody"])
    for nothing in (np.array([True]), [], np.zeros(3, bool)):
        with pytest.raises(FormatError):
            small().subset(nothing)
    with pytest.raises(DuplicateIdError):
        small().subset(["a", "a"])


def test_align_takes_common_ids_in_sorted_order(rng: np.random.Generator) -> None:
    whole = learn(40)
    a = whole.subset(whole.ids[rng.permutation(40)[:30]])
    b = whole.subset(whole.ids[rng.permutation(40)[:30]])
    left, right = align(a, b)
    assert left.ids.tolist() == sorted(set(a.ids) & set(b.ids)) == right.ids.tolist()
    same(left, right)


def test_align_needs_common_ids_and_equal_gold_labels() -> None:
    for other in (["x", "y", "z"], [1, 2, 3]):
        with pytest.raises(AlignmentError):
            align(small(), small(ids=other))
    with pytest.raises(AlignmentError, match="id 'a'"):
        align(small(), small(gold=[1, 1, 1]))


def test_round_trip_of_several_row_groups(tmp_path: Path) -> None:
    dyn = learn((1 << 17) + 17, 4)
    path = dyn.save(tmp_path / "deep" / "x.parquet")
    back = TrainingDynamics.load(path)
    same(dyn, back)
    assert back.fingerprint() == dyn.fingerprint()
    assert back.meta.created.endswith("Z")
    assert back.meta.library_version
    assert back.meta.member == "tweets"
    again = TrainingDynamics.load(back.save(tmp_path / "again.parquet"))
    assert again.meta == back.meta


def test_logits_and_extras_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    meta = Meta(label_names=("naïve", "\u202eא"), record="eval", extra={"sha256": "x", "deep": {"sha256": "y"}})
    dyn = small(logits=rng.normal(size=(2, 3, 2)), meta=meta)
    back = TrainingDynamics.load(dyn.save(tmp_path / "x.parquet"))
    same(dyn, back)
    assert back.meta.label_names == ("naïve", "\u202eא")
    assert back.meta.extra == {"deep": {"sha256": "y"}}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_round_trip_of_anything(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kinds = st.integers(-(2**63), 2**63 - 1), st.text(st.characters(codec="utf-8"), max_size=9)
    ids = data.draw(st.one_of(st.lists(kind, min_size=1, max_size=8, unique=True) for kind in kinds))
    epochs = data.draw(st.integers(1, 64))
    draw = np.random.default_rng(data.draw(st.integers(0, 1000)))
    p = draw.random((epochs, len(ids)), dtype=np.float32)
    dyn = TrainingDynamics(ids, draw.integers(0, 9, len(ids)), p, draw.random(p.shape) < 0.5)  # type: ignore[arg-type]
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    same(TrainingDynamics.load(dyn.save(path)), dyn)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    dyn = small(meta=Meta(created="2026-01-01T00:00:00Z"))
    dyn.save(tmp_path / "a")
    dyn.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = small(gold=[1, 1, 1])
    assert other.fingerprint() != dyn.fingerprint()
    assert small(meta=Meta(member="z")).fingerprint() == dyn.fingerprint()
    assert small(ids=[1, 2, 3]).fingerprint() != dyn.fingerprint()


def test_an_existing_file_is_kept_unless_overwrite(tmp_path: Path) -> None:
    path = small().save(tmp_path / "x.parquet")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        small(gold=[0, 0, 0]).save(path)
    assert path.read_bytes() == before
    small(gold=[0, 0, 0]).save(path, overwrite=True)
    assert TrainingDynamics.load(path).gold.tolist() == [0, 0, 0]
    for unwritable in (small(ids=["a", "b", "\ud800"]), small(meta=Meta(extra={"x": {1, 2}}))):
        with pytest.raises(FormatError):
            unwritable.save(tmp_path / "y.parquet")
    assert os.listdir(tmp_path) == ["x.parquet"]


def test_every_changed_byte_is_an_error(tmp_path: Path) -> None:
    raw = learn(400, 6).save(tmp_path / "x.parquet").read_bytes()
    draw = np.random.default_rng(5)
    places = {*draw.choice(len(raw), 200, replace=False).tolist(), *range(8), *range(len(raw) - 80, len(raw))}
    seal = raw.rfind(b'"sha256": "')
    places |= set(range(seal, seal + 78))
    damaged = tmp_path / "damaged.parquet"
    for place in sorted(places):
        change = int(draw.integers(1, 256))
        damaged.write_bytes(raw[:place] + bytes([raw[place] ^ change]) + raw[place + 1 :])
        with pytest.raises(FormatError, match=r"damaged\.parquet") as caught:
            TrainingDynamics.load(damaged)
        assert isinstance(caught.value, ChecksumError | SchemaError), place


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    raw = learn(400, 6).save(tmp_path / "x.parquet").read_bytes()
    draw = np.random.default_rng(6)
    damaged = tmp_path / "damaged.parquet"
    for length in [0, 1, 4, 11, 12, len(raw) - 1, *draw.integers(12, len(raw), 40).tolist()]:
        damaged.write_bytes(raw[:length])
        with pytest.raises((ChecksumError, SchemaError), match=r"damaged\.parquet"):
            TrainingDynamics.load(damaged)
    damaged.write_bytes(raw + raw)
    with pytest.raises(ChecksumError):
        TrainingDynamics.load(damaged)


def test_other_files_are_an_error(tmp_path: Path) -> None:
    path = small().save(tmp_path / "x.parquet")
    for absent in (tmp_path / "none.parquet", tmp_path, path / "inside.parquet"):
        with pytest.raises(SoiError, match=absent.name):
            TrainingDynamics.load(absent)
    (tmp_path / "text.parquet").write_text("id,gold\n" * 5)
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "other.parquet")
    for name in ("text.parquet", "other.parquet"):
        with pytest.raises(SchemaError, match=name):
            TrainingDynamics.load(tmp_path / name)


def forge(path: Path, **change: Any) -> Path:
    """Write a file with a valid checksum but wrong content, as a faulty writer would."""
    dyn = small()
    columns = {"id": dyn.ids, "gold": dyn.gold, "p_gold": dyn.p_gold, "history": dyn.history}
    meta = dyn.meta.to_dict() | {name: change[name] for name in change if name not in columns}
    return io.write(path, {name: change.get(name, columns[name]) for name in columns}, meta)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"schema": 2}, SchemaError, "2"),
        ({"epochs": 65}, RangeError, ""),
        ({"epochs": 1}, SchemaError, ""),
        ({"id": np.array(["a", "b", "a"], object)}, DuplicateIdError, "'a'"),
        ({"history": np.array([1, 4, 2], np.uint64)}, RangeError, "'b'"),
        ({"gold": np.array([0, 1, 9], np.int16)}, RangeError, ""),
        ({"p_gold": np.array([[0.1, 1.7, 0.4], [0.2, 0.3, 0.5]], np.float32)}, RangeError, "'b' at epoch 0"),
    ],
)
def test_every_wrong_content_has_its_error(tmp_path, change, error, words):
    path = forge(tmp_path / "forged.parquet", **change)
    with pytest.raises(error, match=words or None) as caught:
        TrainingDynamics.load(path)
    assert type(caught.value) is error
    assert "forged.parquet" in str(caught.value)
