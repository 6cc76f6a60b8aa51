"""Arrays and tables of other programs: what is read from them, and errors that name the mistake."""

import numpy as np
import pandas as pd
import pytest

from soi_lib.errors import DuplicateIdError, FormatError, RangeError
from soi_lib.integrations.arrays import from_arrays, read_table


@pytest.fixture
def log(rng):
    """Logits (4, 30, 3), their probabilities, gold labels and ids."""
    logits = (rng.normal(size=(4, 30, 3)) * 2).astype(np.float32)
    e = np.exp(logits.astype(np.float64))
    return logits, e / e.sum(2, keepdims=True), rng.integers(0, 3, 30), np.array([f"x{i:02d}" for i in range(30)])


def p_of(probabilities, gold):
    return np.take_along_axis(probabilities, gold[None, :, None], 2)[..., 0]


def long(log, **columns) -> pd.DataFrame:
    """Make a table with one row per epoch and example: id, epoch, gold and the given columns (E, N)."""
    _, _, gold, ids = log
    epochs = len(log[0])
    plain = {"id": np.tile(ids, epochs), "epoch": np.repeat(range(epochs), 30), "gold": np.tile(gold, epochs)}
    return pd.DataFrame(plain | {k: np.asarray(v).reshape(epochs * 30) for k, v in columns.items()})


def save(frame: pd.DataFrame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


def test_arrays_in_memory_and_in_files(log, tmp_path):
    logits, probabilities, gold, ids = log
    dyn = from_arrays(probabilities, gold, ids, meta={"member": "m"})
    assert np.array_equal(dyn.p_gold, p_of(probabilities, gold).astype(np.float32))
    assert np.array_equal(dyn.correct, probabilities.argmax(2) == gold)
    assert dyn.ids.tolist() == ids.tolist()
    assert (dyn.meta.classes, dyn.meta.member, dyn.logits) == (3, "m", None)
    assert from_arrays(probabilities, gold).ids.tolist() == list(range(30))
    scored = from_arrays(logits, gold, ids, kind="logits")
    assert np.allclose(scored.p_gold, dyn.p_gold, atol=1e-6)
    assert np.array_equal(scored.logits, logits)
    assert from_arrays(logits, gold, ids, kind="logits", keep_logits=False).logits is None

    np.save(tmp_path / "p.npy", probabilities)
    mapped = from_arrays(np.load(tmp_path / "p.npy", mmap_mode="r"), gold, ids)
    assert mapped.fingerprint() == dyn.fingerprint()
    half = from_arrays(probabilities.astype(np.float16), gold, ids)  # sums to 1 within its precision
    assert np.allclose(half.p_gold, dyn.p_gold, atol=1e-3)


def test_mistakes_in_arrays_are_named(log):
    logits, probabilities, gold, ids = log

    def refused(message, error=FormatError, values=probabilities, gold=gold, ids=ids, kind="probabilities"):
        with pytest.raises(error, match=message):
            from_arrays(values, gold, ids, kind=kind, where="run.npy")

    refused(r"run\.npy", values=probabilities[0])
    refused(r"gold.*\(29,\)", gold=gold[1:])
    refused("id 'x04'", RangeError, gold=np.where(np.arange(30) == 4, 3, gold % 2))
    refused(r"kind=\"logits\"", RangeError, values=logits)
    refused("rounded", RangeError, values=np.full((1, 30, 3), 0.33))
    for value in (np.nan, 0.99):
        broken = probabilities.copy()
        broken[2, 5] = [value, 0.5, 0.1]
        refused(r"run\.npy.* id 'x05' at epoch 2", RangeError, values=broken)
    broken = logits.copy()
    broken[3, 29, 1] = np.nan
    refused("id 'x29' at epoch 3", RangeError, values=broken, kind="logits")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_kind_of_column(log, tmp_path, suffix, rng):
    logits, probabilities, gold, ids = log
    path = tmp_path / f"log{suffix}"
    right = probabilities.argmax(2) == gold
    expected = from_arrays(logits, gold, ids, kind="logits")

    frame = long(log, **{f"logits_{c}": logits[..., c] for c in range(3)})
    frame = pd.concat([frame[:30], frame[30:].sample(frac=1, random_state=0)])  # later rows in any order
    assert read_table(save(frame, path)).fingerprint() == expected.fingerprint()
    frame = long(log, **{f"p_{c}": probabilities[..., c] for c in range(3)}, note=np.zeros((4, 30)))
    got = read_table(save(frame, path))
    assert np.array_equal(got.p_gold, p_of(probabilities, gold).astype(np.float32))
    assert np.array_equal(got.correct, right)
    for name, truth in (("p", right), ("p_gold", right.astype(int))):
        frame = long(log, **{name: p_of(probabilities, gold)}, correct=truth)
        frame["epoch"] += 1  # counted from 1
        again = read_table(save(frame, path), meta={"classes": 3})
        assert again.fingerprint() == got.fingerprint()
        assert again.meta.classes == 3
    got = read_table(save(long(log, correct=right), path), meta={"member": "m"})
    assert np.array_equal(got.p_gold, right)
    assert (got.meta.extra["p_gold_from"], got.meta.member) == ("correct", "m")


def test_p_alone_is_enough_for_two_classes(log, tmp_path):
    frame = long(log, p=np.where(np.arange(30) % 3, 0.75, 0.25) * np.ones((4, 1)))
    with pytest.raises(FormatError, match="'correct' is missing"):  # with three classes p may be below 1/2 and right
        read_table(save(frame, tmp_path / "a.csv"))
    frame["gold"] %= 2
    got = read_table(save(frame, tmp_path / "a.csv"))
    assert got.correct[0].tolist() == [bool(i % 3) for i in range(30)]


def test_ids_keep_their_type(tmp_path):
    def ids(values, suffix=".csv"):
        frame = pd.DataFrame({"i": values, "e": 0, "g": 0, "p": 0.9})
        return read_table(save(frame, tmp_path / f"a{suffix}"), id="i", epoch="e", gold="g").ids.tolist()

    assert ids(["007", "08"]) == ["007", "08"]
    assert ids(["7", "-8", "0"]) == [7, -8, 0]
    assert ids(["7", "b"]) == ["7", "b"]
    assert ids(['é, "x"', "two\nlines"]) == ['é, "x"', "two\nlines"]
    assert ids(["7", "8"], ".parquet") == ["7", "8"]
    assert ids([7, 8], ".parquet") == [7, 8]
    assert ids(["NA", "null"]) == ["NA", "null"]
    with pytest.raises(FormatError, match="column 'i'"):
        ids([1.5, 2.5], ".parquet")
    with pytest.raises(FormatError, match="row 2: column 'i'"):
        ids(["a", None])


def test_mistakes_in_tables_are_named(log, tmp_path):
    right = np.ones((4, 30), dtype=int)
    good = long(log, p=np.full((4, 30), 0.75), correct=right)
    path = tmp_path / "a.csv"

    def refused(message, kind=FormatError, frame=None, **change):
        frame = good.astype(object) if frame is None else frame
        for name, (row, value) in change.items():
            frame.loc[row, name] = value
        with pytest.raises(kind, match=message) as error:
            read_table(save(frame, path))
        assert str(error.value).startswith(str(path))

    refused("'gold'", frame=good.drop(columns="gold"))
    refused("p_gold", frame=good[["id", "epoch", "gold"]])
    refused(r"epoch 2.* 29 of 30 examples; 'x05'", frame=good.drop(index=65))
    refused(r"row 121: id 'x00'.* row 1", DuplicateIdError, frame=pd.concat([good, good[:1]]))
    refused("row 36: column 'gold'", gold=(35, int(log[2][5]) + 1))
    refused("row 36: column 'p'.*'much'", p=(35, "much"))
    refused(r"row 36: column 'p'.*1\.5", RangeError, p=(35, 1.5))
    refused(r"row 36: column 'p'.*'correct'", correct=(35, 0))
    refused("p_0, p_2", frame=good.assign(p_0=0.5, p_2=0.5))
    good.to_csv(path, index=False)
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # with a byte order mark, as Excel writes it
    assert len(read_table(path)) == 30
    for damaged in (text[:-8].encode(), text.replace("x05", "x\xe9").encode("latin-1"), b""):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"a\.csv"):
            read_table(path)
    for absent in (tmp_path / "absent.csv", tmp_path / "log.txt"):
        with pytest.raises(FormatError, match=absent.name):
            read_table(absent)
