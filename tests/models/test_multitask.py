"""Heads as one matrix: equal to separate heads bit for bit, shared by datasets with equal label names."""

from __future__ import annotations

import torch
from torch.nn import functional

from soi_lib.models.multitask import Heads


def test_masked_columns_equal_separate_heads():
    labels = [("no", "yes"), ("a", "b", "c")]
    both = Heads(16, labels, dropout=0.0, seed=3)
    alone = [Heads(16, [names], dropout=0.0, seed=3) for names in labels]
    pooled = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    member = torch.arange(40) % 2
    gold = torch.arange(40) % 2  # valid for both
    logits = both(pooled, member)
    assert logits.shape == (40, 5)
    loss = functional.cross_entropy(logits, gold + both.offset[member], reduction="none")
    for i in (0, 1):
        rows = member == i
        own = alone[i](pooled[rows], torch.zeros(20, dtype=torch.long))
        mine = logits[rows][:, both.columns[i]]
        assert torch.allclose(mine, own, atol=1e-6)  # matrix products of other shapes may round differently
        assert torch.equal(logits[rows].softmax(1)[:, both.columns[i]], mine.softmax(1))
        assert torch.equal(loss[rows], functional.cross_entropy(mine, gold[rows], reduction="none"))
        assert torch.equal(logits[rows].argmax(1) - both.offset[i], mine.argmax(1))


def test_equal_label_names_share_a_head_and_start_alike_in_every_setting():
    shared = Heads(8, [("x", "y"), ("x", "y"), ("p", "q")], dropout=0.0, seed=1)
    assert shared.linear.weight.shape == (4, 8)
    assert shared.columns[0] == shared.columns[1] != shared.columns[2]
    alone = Heads(8, [("p", "q")], dropout=0.0, seed=1)
    assert torch.equal(shared.linear.weight[shared.columns[2]], alone.linear.weight)
    other = Heads(8, [("p", "q")], dropout=0.0, seed=2)
    assert not torch.equal(alone.linear.weight, other.linear.weight)
