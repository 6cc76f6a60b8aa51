"""The recorder compared with epochs computed by hand, and its rules for repeated and missing examples."""

import numpy as np
import pytest
import torch
from together import presented

from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError, DuplicateIdError, FormatError, RangeError
from soi_lib.recorder import DynamicsRecorder


def test_two_epochs_by_hand():
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
    # a tie goes to the first class, as in argmax, so c is wrong in the first epoch
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
    assert dyn.ids.tolist() == [10, 11]  # 12 was missing in the first epoch
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

    assert np.array_equal(dyn.p_gold, expected[:, :48])  # the same bits; the last two never came up
    assert dyn.ids.tolist() == list(range(100, 148))
    assert dyn.meta.classes == 5
    assert rec.report.missing == (148, 149)
    assert rec.report.kept == 48
    assert dyn.meta.extra["recorded_missing"] == 2
    assert "2 of 50 examples missed an epoch and are left out: 148, 149" in caplog.text


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


def test_logits_that_are_not_numbers_are_named():
    for bad in (float("nan"), float("inf")):
        rec = DynamicsRecorder(["a", "b"], [0, 1])
        rec.update(["a", "b"], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        rec.end_epoch()
        rec.update(["a", "b"], torch.tensor([[0.0, 1.0], [bad, 1.0]]))
        with pytest.raises(RangeError, match="id 'b' at epoch 1"):
            rec.end_epoch()
        assert rec.finish().epochs == 1  # the finished epoch is kept
    rec = DynamicsRecorder(["a", "b"], [0, 1])
    rec.update(["a", "b"], torch.tensor([[0.0, -float("inf")], [0.0, -float("inf")]]))  # a masked class is valid
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
    with pytest.raises(RangeError, match=r"id 'b'.*3"):  # the first logits give the number of classes
        DynamicsRecorder(["a", "b"], [0, 3]).update(["a", "b"], torch.zeros(2, 3))
    with pytest.raises(AlignmentError, match=r"found 2 .*expected 1 "):
        DynamicsRecorder(["a"], [0]).restore(rec.state())
    with pytest.raises(AlignmentError):  # as many examples, but others
        DynamicsRecorder(["a", "c"], [0, 1], 2).restore(rec.state())
    with pytest.raises(FormatError, match="'missing'"):  # another tool's state, or that of an older version
        rec.restore({"fingerprint": rec.state()["fingerprint"]})
    with pytest.raises(RangeError, match="id 7 "):  # before training starts
        DynamicsRecorder([3, 7], [0, -100])


def test_a_recorder_continues_in_the_middle_of_an_epoch(rng):
    gold, epochs = rng.integers(0, 3, 30), presented(30, 3, 2)
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
                again = rec.state()  # a restored recorder has the same state
                assert all(np.array_equal(state[name], again[name]) for name in state | again)
            ((rows, logits),) = epochs[k // 7][k % 7]
            rec.update(rows, torch.from_numpy(logits))
            if k % 7 == 6:
                rec.end_epoch()
        assert rec.finish().fingerprint() == whole.finish().fingerprint()
        assert rec.report == whole.report
    rec.update(rows, torch.from_numpy(logits))
    assert rec.report.unfinished == len(set(rows.tolist()))  # reported, but not in the result
    assert rec.finish().epochs == 2
