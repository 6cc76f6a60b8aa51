"""Batches: every example once per epoch, datasets in proportion, similar lengths together, correct padding."""

from __future__ import annotations

import numpy as np
import pytest

from soi_lib.training.batching import WINDOW, Encoded, collate, epoch_batches, join


def ragged(rng: np.random.Generator, n: int, member: int, segment: bool = False) -> Encoded:
    lengths = rng.integers(3, 40, n)
    total = int(lengths.sum())
    return Encoded(
        token=rng.integers(5, 1000, total),
        segment=rng.integers(0, 2, total) if segment else None,
        offset=np.concatenate([[0], np.cumsum(lengths)]),
        gold=rng.integers(0, 2, n),
        member=np.full(n, member),
    )


@pytest.mark.parametrize(("n", "size"), [(1, 16), (15, 16), (16, 16), (1000, 16), (1001, 7)])
def test_every_example_occurs_once_per_epoch(rng, n, size):
    lengths = rng.integers(3, 60, n)
    batches = epoch_batches(lengths, size, seed=1, epoch=0)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(n))
    assert len(batches) == -(-n // size)
    assert sorted(len(b) for b in batches)[1:] == [size] * (len(batches) - 1)


def test_datasets_are_mixed_in_proportion_throughout_the_epoch():
    lengths = np.concatenate([np.full(3000, 10), np.full(1000, 50)])  # of two datasets
    orders = [np.concatenate(epoch_batches(lengths, 16, seed=0, epoch=epoch)) for epoch in range(20)]
    shares = (np.array(orders).reshape(20, 4, 1000) >= 3000).mean(2)
    assert abs(shares.mean() - 0.25) < 1e-12
    assert np.abs(shares.mean(0) - 0.25).max() < 0.02  # no quarter of an epoch prefers a dataset
    assert shares.std(0).max() < 0.06


def test_similar_lengths_are_batched_together(rng):
    lengths = rng.integers(5, 100, 16 * WINDOW)
    batches = epoch_batches(lengths, 16, seed=0, epoch=0)
    padded = sum(lengths[b].max() * len(b) for b in batches)
    shuffled = rng.permutation(len(lengths)).reshape(-1, 16)
    assert padded < 1.1 * lengths.sum()
    assert padded < 0.65 * sum(lengths[b].max() * len(b) for b in shuffled)


def test_collate_pads_and_reports_it(rng):
    data = join([ragged(rng, 20, 0), ragged(rng, 10, 1, segment=True)])
    assert len(data) == 30
    index = np.array([25, 3, 0])
    batch = collate(data, index, pad=999)
    width = data.lengths[index].max()
    assert batch["token"].shape == (3, width)
    for row, i in enumerate(index):
        n = data.lengths[i]
        tokens = data.token[data.offset[i] : data.offset[i + 1]]
        assert batch["token"][row, :n].tolist() == tokens.tolist()
        assert (batch["token"][row, n:] == 999).all()
        assert batch["keep"][row].tolist() == [1.0] * n + [0.0] * (width - n)
        expected = data.segment[data.offset[i] : data.offset[i + 1]]
        assert batch["segment"][row, :n].tolist() == expected.tolist()
        assert (batch["segment"][row, n:] == 0).all()
    assert batch["member"].tolist() == [1, 0, 0]
    assert bool(batch["padded"])
    assert not bool(collate(data, index[:1], pad=999)["padded"])
