"""The recorder against an epoch done by hand, and its rules for examples that come twice or never."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError, DuplicateIdError, FormatError, RangeError
from soi_lib.recorder import DynamicsRecorder


def test_an_epoch_by_hand():
    rec = DynamicsRecorder(["a", "b", "c"], [0, 1, 1], 2, meta={"member": "m"})
    rec.update(["c", "a"], torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
    rec.update(["b"], torch.tensor([[1.0, 3.0]]))
    rec.end_epoch()
    rec.update(["a", "b", "c"], torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
    rec.end_epoch()
    dyn = rec.finish()
    e = np.exp
    expected = [[e(2) / (e(2) + 1), e(3) / (e(3) + e(1)), 0.5], [1 / (1 + e(1)), e(1) / (1 + e(1)), e(1) / (1 + e(1))]]
    assert np.allclose(dyn.p_gold, expected, atol=1e-7)
    # a tie goes to the first class, as argmax has it, so c is wrong in the first epoch
    assert dyn.correct.tolist() == [[True, True, False], [False, True, True]]
    assert dyn.ids.tolist() == ["a", "b", "c"]
    assert dyn.gold.tolist() == [0, 1, 1]
    assert (dyn.meta.epochs, dyn.meta.classes, dyn.meta.member) == (2, 2, "m")
    assert rec.report.missing == ()
    assert rec.report.repeated == 0


def test_the_last_presentation_counts_and_the_missing_are_left_out():
    rec = DynamicsRecorder(torch.tensor([10, 11, 12]).tolist(), [0, 0, 0], 2)
    right, wrong = [5.0, 0.0], [0.0, 5.0]
    rec.update(torch.tensor([10, 11, 10]), torch.tensor([wrong, right, right]))  # twice in one batch
    rec.update([11], torch.tensor([wrong]))  # and again in another
    rec.end_epoch()
    rec.update([10, 11, 12], torch.tensor([right, right, right]))
    rec.end_epoch()
    dyn = rec.finish()
    assert dyn.ids.dtype == np.int64
    assert dyn.ids.tolist() == [10, 11]  # 12 was not there in the first epoch
    assert dyn.correct.tolist() == [[True, False], [True, True]]
    assert rec.report.missing == (12,)
    assert rec.report.repeated == 2
    assert rec.report.kept == 2


def test_five_lines_in_a_plain_loop_with_drop_last(caplog):
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    x, y, ids = torch.randn(50, 6), torch.randint(0, 5, (50,)), torch.arange(100, 150)
    model = torch.nn.Linear(6, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(ids, x, y), batch_size=8, drop_last=True)

    rec = DynamicsRecorder(ids, y)
    expected = np.zeros((3, 50), np.float32)
    for epoch in range(3):
        for i, a, b in loader:
            logits = model(a)
            torch.nn.functional.cross_entropy(logits, b).backward()
            rec.update(i, logits)
            expected[epoch, i - 100] = logits.detach().softmax(1)[torch.arange(8), b].numpy()
            optimizer.step()
            optimizer.zero_grad()
        rec.end_epoch()
    dyn = rec.finish()

    assert np.array_equal(dyn.p_gold, expected[:, :48])  # the same bits; the last two never came
    assert dyn.ids.tolist() == list(range(100, 148))
    assert dyn.meta.classes == 5
    assert rec.report.missing == (148, 149)
    assert rec.report.kept == 48
    assert dyn.meta.extra["recorded_missing"] == 2
    assert "2 of 50 examples missed an epoch and are left out: 148, 149" in caplog.text


def presented(rng, n: int, classes: int, epochs: int, ranks: int = 1):
    """Batches a rank with examples that come again: [epoch][step][rank] -> (places, logits)."""

    def batch(rows):
        logits = rng.normal(size=(len(rows), classes)).astype(np.float32) * 3
        logits[0, 0] = -0.0  # its sign is a bit too
        return rows, logits

    out = []
    for _ in range(epochs):
        order = np.concatenate([rng.permutation(n), rng.integers(0, n, 23)])
        out.append([[batch(r) for r in np.array_split(part, ranks)] for part in np.array_split(order, 7)])
    return out


def once(ids, batch_ids=None) -> TrainingDynamics:
    rec = DynamicsRecorder(ids, [0, 1, 1][: len(ids)])
    rec.update(batch_ids or ids, torch.tensor([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0]][: len(ids)]))
    rec.end_epoch()
    return rec.finish()


def test_kinds_of_ids(tmp_path):
    assert once(["a", "é", ""]).ids.tolist() == ["a", "é", ""]
    for ints in ([3, -1, 2**62], torch.tensor([3, -1, 2**62])):
        dyn = once(ints)
        assert (dyn.ids.dtype, dyn.ids.tolist()) == (np.int64, [3, -1, 2**62])
    pairs = once([("doc", 1), ("doc", 2), ("d,", 1)], [("doc", 1), ("doc", 2), ("d,", 1)])
    assert pairs.ids.tolist() == ['["doc",1]', '["doc",2]', '["d,",1]']
    assert TrainingDynamics.load(pairs.save(tmp_path / "a.parquet")).ids.tolist() == pairs.ids.tolist()
    for ids in (["a", 1], [1, None], [1.0, 2.0], [True, False], [("a", 1.5), ("a", 2)]):
        with pytest.raises(FormatError):
            once(ids)


def test_logits_that_are_no_numbers_are_named():
    for bad in (float("nan"), float("inf")):
        rec = DynamicsRecorder(["a", "b"], [0, 1])
        rec.update(["a", "b"], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        rec.end_epoch()
        rec.update(["a", "b"], torch.tensor([[0.0, 1.0], [bad, 1.0]]))
        with pytest.raises(RangeError, match="id 'b' at epoch 1"):
            rec.end_epoch()
        assert rec.finish().epochs == 1  # what was there before is still there
    rec = DynamicsRecorder(["a", "b"], [0, 1])
    rec.update(["a", "b"], torch.tensor([[0.0, -float("inf")], [0.0, -float("inf")]]))  # a masked class is no damage
    rec.end_epoch()
    assert rec.finish().p_gold.tolist() == [[1.0, 0.0]]
    rec = DynamicsRecorder(["a"], [0], keep_logits=True)
    rec.update(["a"], torch.tensor([[0.0, -float("inf")]]))
    with pytest.raises(RangeError, match="id 'a' at epoch 0"):
        rec.end_epoch()


@pytest.mark.parametrize(
    ("ids", "gold", "classes", "error", "words"),
    [
        (["a", "b", "a"], [0, 0, 0], 2, DuplicateIdError, "'a'"),
        (["a", "b"], [0, 2], 2, RangeError, "id 'b'.*2"),
        (["a"], ["pos"], None, FormatError, "'pos'"),
    ],
)
def test_examples_that_cannot_be_recorded(ids, gold, classes, error, words):
    with pytest.raises(error, match=words):
        DynamicsRecorder(ids, gold, classes)


def test_updates_that_do_not_fit():
    rec = DynamicsRecorder(["a", "b"], [0, 1], 2)
    with pytest.raises(FormatError, match="'z'"):
        rec.update(["z"], torch.zeros(1, 2))
    for logits in (torch.zeros(1, 3), torch.zeros(1, 2, 2)):
        with pytest.raises(FormatError):
            rec.update(["a"], logits)
    with pytest.raises(RangeError, match=r"id 'b'.*3"):  # the first logits tell the number of classes
        DynamicsRecorder(["a", "b"], [0, 3]).update(["a", "b"], torch.zeros(2, 3))
    with pytest.raises(AlignmentError, match=r"found 2 .*expected 1 "):
        DynamicsRecorder(["a"], [0]).restore(rec.state())


def test_a_state_in_the_middle_of_an_epoch(rng):
    gold, epochs = rng.integers(0, 3, 30), presented(rng, 30, 3, 2)
    whole = DynamicsRecorder(range(30), gold, keep_logits=True)
    for steps in epochs:
        for ((rows, logits),) in steps:
            whole.update(rows, torch.from_numpy(logits))
        whole.end_epoch()
    for stop in range(14):
        rec = DynamicsRecorder(range(30), gold, keep_logits=True)
        for k in range(14):
            if k == stop:
                state = rec.state()
                rec = DynamicsRecorder(range(30), gold, keep_logits=True)
                rec.restore(state)
                again = rec.state()  # a restored recorder that has met nothing has the same state
                assert all(np.array_equal(state[name], again[name]) for name in state | again)
            ((rows, logits),) = epochs[k // 7][k % 7]
            rec.update(rows, torch.from_numpy(logits))
            if k % 7 == 6:
                rec.end_epoch()
        assert rec.finish().fingerprint() == whole.finish().fingerprint()
        assert rec.report == whole.report
    rec.update(rows, torch.from_numpy(logits))
    assert rec.report.unfinished == len(set(rows.tolist()))  # said, and no part of the result
    assert rec.finish().epochs == 2


WORKER = """
import sys, numpy as np, torch, torch.distributed as dist
from safetensors.numpy import load_file, save_file
from soi_lib.errors import AlignmentError
from soi_lib.recorder import DynamicsRecorder
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
data = load_file(f"{folder}/data.safetensors")
rec = DynamicsRecorder(range(len(data["gold"])), data["gold"], keep_logits=True)
for e in range(3):
    for s in range(7):
        if e == 1 and s == 4:  # stopped in the middle of an epoch and continued
            state = rec.state()
            rec = DynamicsRecorder(range(len(data["gold"])), data["gold"], keep_logits=True)
            rec.restore(state)
        if f"rows/{e}/{s}/{rank}" in data:
            rec.update(data[f"rows/{e}/{s}/{rank}"], torch.from_numpy(data[f"logits/{e}/{s}/{rank}"]))
    rec.end_epoch()
dyn = rec.finish()
out = {"ids": dyn.ids, "p": dyn.p_gold, "correct": dyn.correct, "logits": dyn.logits}
out["report"] = np.array([rec.report.kept, rec.report.repeated, *rec.report.missing])
save_file(out, f"{folder}/out{rank}.safetensors")
other = DynamicsRecorder([1, 2 + rank], [0, 1])
other.update([1], torch.zeros(1, 2))
try:
    other.end_epoch()
except AlignmentError as error:
    assert "did not announce the same examples" in str(error)
    print("refused")
"""


def test_two_processes_record_what_one_does(rng, tmp_path):
    n, classes = 50, 4
    gold = rng.integers(0, classes, n)
    epochs = presented(rng, n, classes, 3, ranks=2)
    data = {"gold": gold}
    one = DynamicsRecorder(range(n), gold, keep_logits=True)
    for e, steps in enumerate(epochs):
        for s, parts in enumerate(steps):
            if e == 2:  # an example that nobody shows, a process that is done early
                parts = [(rows[rows != 17], logits[rows != 17]) for rows, logits in parts[: 1 if s > 4 else 2]]
            logits = np.concatenate([logits for _, logits in parts])
            one.update(np.concatenate([rows for rows, _ in parts]), torch.from_numpy(logits))
            for rank, (rows, logits) in enumerate(parts):
                data |= {f"rows/{e}/{s}/{rank}": rows, f"logits/{e}/{s}/{rank}": logits}
        one.end_epoch()
    save_file({k: np.ascontiguousarray(v) for k, v in data.items()}, tmp_path / "data.safetensors")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert out == "refused\n", err[-2000:]
    dyn = one.finish()
    assert 17 in one.report.missing
    assert one.report.repeated > 40
    for rank in range(2):
        got = load_file(tmp_path / f"out{rank}.safetensors")
        assert np.array_equal(got["ids"], dyn.ids)
        assert got["p"].tobytes() == dyn.p_gold.tobytes()
        assert got["logits"].tobytes() == dyn.logits.tobytes()
        assert np.array_equal(got["correct"], dyn.correct)
        assert got["report"].tolist() == [one.report.kept, one.report.repeated, *one.report.missing]


def test_an_update_waits_for_nothing_on_the_device():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        met: set[str] = set()  # noqa: RUF012

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.met.add(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    rec = DynamicsRecorder(range(4), [0, 1, 2, 0], 3, device="cpu", keep_logits=True)
    index, logits = torch.tensor([0, 2]), torch.randn(2, 3).bfloat16()
    with Watch():
        rec.update_at(index, logits)
    # .item(), nonzero and their like make the processor wait until the device has finished its queue
    waits = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "_unique2"}
    assert Watch.met
    assert not Watch.met & waits
