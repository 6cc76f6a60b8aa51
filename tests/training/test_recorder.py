"""The recorder against an epoch done by hand, and its rules for examples that come twice or never."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from soi_lib.errors import DuplicateIdError, FormatError, RangeError
from soi_lib.training.recorder import DynamicsRecorder


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


def test_kept_logits_and_a_restored_state(rng):
    logits = torch.from_numpy(rng.normal(size=(3, 8, 4)).astype(np.float32))
    gold, ids = rng.integers(0, 4, 8), np.arange(8)
    whole = DynamicsRecorder(ids.tolist(), gold, 4, keep_logits=True)
    first = DynamicsRecorder(ids.tolist(), gold, 4, keep_logits=True)
    for epoch in range(3):
        whole.update(ids, logits[epoch])
        whole.end_epoch()
        if epoch < 2:
            first.update(ids, logits[epoch])
            first.end_epoch()
    rest = DynamicsRecorder(ids.tolist(), gold, 4, keep_logits=True)
    rest.restore(first.state())
    rest.update(ids, logits[2])
    rest.end_epoch()
    a, b = whole.finish(), rest.finish()
    assert np.array_equal(a.p_gold, b.p_gold)
    assert np.array_equal(a.logits, logits.numpy())
    assert np.array_equal(a.logits, b.logits)


def test_bad_input_is_named():
    with pytest.raises(DuplicateIdError, match="'a'"):
        DynamicsRecorder(["a", "b", "a"], [0, 0, 0], 2)
    with pytest.raises(RangeError, match=r"id 'b'.*found 2.*0 to 1"):
        DynamicsRecorder(["a", "b"], [0, 2], 2)
    with pytest.raises(FormatError, match="another length"):
        DynamicsRecorder(["a", "b"], [0], 2)
    rec = DynamicsRecorder(["a", "b"], [0, 1], 2)
    with pytest.raises(FormatError, match="'z'"):
        rec.update(["z"], torch.zeros(1, 2))
    with pytest.raises(FormatError, match="wrong shape"):
        rec.update(["a"], torch.zeros(1, 3))
    with pytest.raises(FormatError, match="nothing was recorded"):
        rec.finish()
