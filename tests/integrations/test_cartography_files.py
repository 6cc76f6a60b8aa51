"""Folders of Dataset Cartography: round trips, kills at every step, and errors that name the mistake."""

import itertools
import json
import math
import os
import signal
import sys

import numpy as np
import pytest
import torch
from scipy.special import softmax

from soi_lib import files
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import DuplicateIdError, FormatError, OutputExistsError, RangeError, SoiError
from soi_lib.integrations.cartography import read_dynamics, write_dynamics
from soi_lib.recorder import DynamicsRecorder


def folder_of(root, logits, gold, guids):
    """Write a folder as other tools do, without our own keys."""
    root.mkdir()
    for e, epoch in enumerate(logits):
        lines = [
            json.dumps({"guid": guids[i], f"logits_epoch_{e}": epoch[i].tolist(), "gold": int(gold[i])})
            for i in range(len(gold))
        ]
        (root / f"dynamics_epoch_{e}.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def log(rng, tmp_path):
    logits = rng.normal(size=(6, 50, 3)) * 2
    gold = rng.integers(0, 3, 50)
    guids = [f"train-{i}" for i in range(50)]
    return folder_of(tmp_path / "training_dynamics", logits, gold, guids), logits, gold, guids


def recorded(rng, classes=3, keep_logits=True, ids=None, epochs=5) -> TrainingDynamics:
    """Record random logits with our own recorder, which uses torch's softmax in single precision."""
    gold = rng.integers(0, classes, 40)
    ids = ids or [f'"ü\n{i}' for i in range(40)]
    rec = DynamicsRecorder(ids, gold, classes, keep_logits=keep_logits)
    for _ in range(epochs):
        rec.update(ids, torch.from_numpy(rng.normal(size=(40, classes)) * 4))
        rec.end_epoch()
    return rec.finish()


def test_reading(log, tmp_path):
    folder, logits, gold, guids = log
    dyn = read_dynamics(tmp_path, meta={"member": "snli"})  # the parent folder is accepted too
    assert dyn.ids.tolist() == guids
    assert np.array_equal(dyn.logits, logits.astype(np.float32))
    assert np.array_equal(dyn.gold, gold)
    assert np.allclose(dyn.p_gold, softmax(logits, axis=2)[:, range(50), gold], atol=1e-6)
    assert np.array_equal(dyn.correct, logits.argmax(2) == gold)
    assert (dyn.meta.classes, dyn.meta.member, dyn.epochs) == (3, "snli", 6)
    assert read_dynamics(folder, keep_logits=False).logits is None
    shuffled = folder / "dynamics_epoch_3.jsonl"
    lines = shuffled.read_text().splitlines()
    shuffled.write_text("\n".join(reversed(lines)))  # another order, no newline at the end
    assert read_dynamics(folder).fingerprint() == dyn.fingerprint()
    numbers = read_dynamics(folder_of(tmp_path / "numbers", logits, gold, range(50)))
    assert numbers.ids.dtype == np.int64


@pytest.mark.parametrize(("classes", "ids"), [(2, None), (7, list(range(-5, 35)))])
def test_round_trip_with_logits_to_the_bit(rng, tmp_path, classes, ids):
    dyn = recorded(rng, classes, ids=ids)
    write_dynamics(dyn, tmp_path / "td")
    back = read_dynamics(tmp_path / "td")
    assert back.fingerprint() == dyn.fingerprint()
    assert back.meta.classes == classes
    line = (tmp_path / "td" / "dynamics_epoch_4.jsonl").read_text().splitlines()[7]
    assert list(json.loads(line)) == ["guid", "logits_epoch_4", "gold", "p_gold", "correct"]
    bare = read_dynamics(folder_of(tmp_path / "bare", dyn.logits, dyn.gold, dyn.ids.tolist()))
    assert np.array_equal(bare.logits, dyn.logits)
    assert np.array_equal(bare.correct, dyn.correct)
    assert np.allclose(bare.p_gold, dyn.p_gold, atol=1e-6, rtol=0)


@pytest.mark.parametrize("classes", [2, 150])
def test_missing_logits_are_made_up_and_marked(rng, tmp_path, classes):
    dyn = recorded(rng, classes, keep_logits=False)
    write_dynamics(dyn, tmp_path / "td")
    for e in range(5):
        for i, line in enumerate((tmp_path / "td" / f"dynamics_epoch_{e}.jsonl").read_text().splitlines()):
            row = json.loads(line)
            assert row["logits_made_up"] is True
            z = np.array(row[f"logits_epoch_{e}"], dtype=np.float32)  # as another tool reads it
            assert abs(softmax(z.astype(float))[row["gold"]] - dyn.p_gold[e, i]) < 1e-6
            assert (z.argmax() == row["gold"]) == dyn.correct[e, i]
    back = read_dynamics(tmp_path / "td")
    assert back.logits is None
    assert back.fingerprint() == dyn.fingerprint()


def test_extreme_predictions_have_logits_and_impossible_ones_are_an_error(tmp_path):
    def dynamics(p, correct, gold, classes):
        meta = {"classes": classes}
        return TrainingDynamics(range(len(p)), gold, np.array([p], np.float32), np.array([correct]), meta)

    p = [0.0, 1.0, 0.5, 0.5, 0.5, 0.5, 1e-30, 0.49999997, 0.50000006]
    correct, gold = [False, True, True, True, False, False, False, True, False], [0, 1, 0, 1, 0, 1, 1, 1, 0]
    third = float(np.float32(1 / 3))
    three = dynamics([third, third, 0.499, 0.34], [True, False, False, True], [2, 0, 2, 1], 3)
    for dyn in (dynamics(p, correct, gold, 2), three):
        folder = write_dynamics(dyn, tmp_path / f"{dyn.meta.classes} classes")
        assert read_dynamics(folder).fingerprint() == dyn.fingerprint()
    for p0, right, classes in ((0.6, False, 2), (0.4, True, 2), (0.3, True, 3), (0.0, True, 5), (1.0, False, 2)):
        with pytest.raises(FormatError, match="id 0 at epoch 0"):
            write_dynamics(dynamics([p0], [right], [0], classes), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_is_replaced_whole_or_not_at_all(rng, tmp_path):
    dyn = recorded(rng)
    folder = write_dynamics(dyn, tmp_path / "deep" / "td")
    with pytest.raises(OutputExistsError, match="td"):
        write_dynamics(dyn, folder)
    short = TrainingDynamics(dyn.ids, dyn.gold, dyn.p_gold[:2], dyn.correct[:2], {"classes": 3}, dyn.logits[:2])
    write_dynamics(short, folder, overwrite=True)
    assert sorted(f.name for f in folder.iterdir()) == ["dynamics_epoch_0.jsonl", "dynamics_epoch_1.jsonl"]
    assert read_dynamics(folder).fingerprint() == short.fingerprint()
    lying = TrainingDynamics(dyn.ids, dyn.gold, dyn.p_gold, ~dyn.correct, {"classes": 3}, dyn.logits)
    with pytest.raises(FormatError, match="p_gold or correct"):
        write_dynamics(lying, folder, overwrite=True)
    assert read_dynamics(folder).fingerprint() == short.fingerprint()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"notes\.txt"):
        write_dynamics(dyn, folder, overwrite=True)
    with pytest.raises(SoiError, match="notes"):
        write_dynamics(dyn, folder / "notes.txt")
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["td"]


STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "ctypes.dlsym"}


def killed_at(step, work):
    """Do `work` in a process that is killed at its `step`-th disk operation; return False if it finished first."""
    pid = os.fork()
    if pid == 0:
        left = itertools.count(step, -1)
        sys.addaudithook(lambda name, _: name in STEPS and next(left) == 0 and os.kill(os.getpid(), signal.SIGKILL))
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1] != 0


@pytest.mark.parametrize("swap", [True, False])
def test_a_kill_at_any_step_of_a_replacement(rng, tmp_path, monkeypatch, swap):
    """Nothing is lost, and the next writer is not disturbed; also on systems that cannot swap two names in one step."""
    old, new, third = (recorded(rng, epochs=2) for _ in range(3))
    folder = tmp_path / "td"
    if not swap:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda name: object())
    found = []
    write_dynamics(old, folder)
    while killed_at(len(found), lambda: write_dynamics(new, folder, overwrite=True)):
        if not swap:
            files.sweep(tmp_path)  # as the next writer does
        found.append(read_dynamics(folder).fingerprint())
        write_dynamics(third, folder, overwrite=True)
        assert read_dynamics(folder).fingerprint() == third.fingerprint()
        assert [path.name for path in tmp_path.iterdir()] == ["td"]
        write_dynamics(old, folder, overwrite=True)
    assert read_dynamics(folder).fingerprint() == new.fingerprint()
    replaced = found.count(new.fingerprint())
    assert found == [old.fingerprint()] * (len(found) - replaced) + [new.fingerprint()] * replaced
    assert len(found) - replaced > 5  # up to the writing of the two epochs
    assert replaced > 2  # during their removal


def change(file, line, **values):
    """Change keys of a line, counted from 1; the value ... removes a key."""
    lines = file.read_text().splitlines()
    row = json.loads(lines[line - 1]) | values
    lines[line - 1] = json.dumps({k: v for k, v in row.items() if v is not ...})
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (dict(logits_epoch_2=[1.0, math.nan, 2.0]), RangeError, "'train-6' at epoch 2"),
        (dict(logits_epoch_2=[1, 2]), FormatError, r"dynamics_epoch_2\.jsonl line 7: .*\[1, 2\]"),
        (dict(logits_epoch_2=..., logits_epoch_1=[1, 2, 3]), FormatError, r"epoch_2\.jsonl line 7: .*'logits_epoch_2'"),
        (dict(guid="train-3"), DuplicateIdError, r"'train-3'.*epoch_2\.jsonl line 4"),
        (dict(guid=["x"]), FormatError, r"epoch_2\.jsonl line 7: .*'x'"),
        (dict(guid="x"), FormatError, "'x'"),
        (dict(gold=3), FormatError, r"epoch_2\.jsonl line 7: .*gold"),
    ],
)
def test_a_damaged_line_is_named(log, values, kind, message):
    change(log[0] / "dynamics_epoch_2.jsonl", 7, **values)
    with pytest.raises(kind, match=message):
        read_dynamics(log[0])


def test_damaged_or_inconsistent_epochs_are_named(log):
    folder, _, _, guids = log
    file, whole = folder / "dynamics_epoch_2.jsonl", (folder / "dynamics_epoch_2.jsonl").read_text()
    other = "\n".join(json.dumps({"guid": g, "logits_epoch_2": [0, 1], "gold": 0}) for g in guids)
    for text, named in (
        (whole[:-20], r"dynamics_epoch_2\.jsonl line 50: "),
        ("[1, 2]\n", r"dynamics_epoch_2\.jsonl line 1: "),
        ("", r"dynamics_epoch_2\.jsonl: "),
        (other, "classes"),
        ("".join(whole.splitlines(keepends=True)[:30]), "epoch 2 .* 30 of 50 examples; 'train-30'"),
    ):
        file.write_text(text)
        with pytest.raises(FormatError, match=named):
            read_dynamics(folder)


def test_incomplete_folders_are_an_error(log, tmp_path):
    folder = log[0]
    (folder / "notes.txt").write_text("")
    assert read_dynamics(folder).epochs == 6
    (folder / "dynamics_epoch_3.jsonl").rename(folder / "dynamics_epoch_3 (1).jsonl")
    for root in (folder, tmp_path / "nowhere"):
        with pytest.raises(FormatError, match=root.name):
            read_dynamics(root)


def test_our_own_keys_must_agree_with_the_logits(rng, tmp_path):
    folder = write_dynamics(recorded(rng), tmp_path / "td")
    file = folder / "dynamics_epoch_0.jsonl"
    whole = file.read_text()
    row = json.loads(whole.splitlines()[3])
    for values in ({"p_gold": row["p_gold"] / 2 + 0.3}, {"correct": not row["correct"]}):
        change(file, 4, **values)
        with pytest.raises(FormatError, match=r"dynamics_epoch_0\.jsonl line 4: "):
            read_dynamics(folder)
        file.write_text(whole)
