"""Group examples into batches: every example once per epoch, members mixed by size, similar lengths together.

An epoch is one permutation of all members' examples, drawn from the seed and the epoch. In each window of `WINDOW`
batches the examples are sorted by length and cut into batches, and those of all windows are shuffled. A window is a
uniform sample of the union, so members appear in proportion to their sizes throughout the epoch, and padding stays
small without making the order of the epoch depend on length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from soi_lib.models.vocabulary import Tokens, remap

WINDOW = 16


def epoch_batches(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the index arrays of the batches of one epoch; together they contain every index of `lengths` (N,) once.

    All batches except possibly one contain `batch_size` examples, so the number of updates depends only on N.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    order = rng.permutation(len(lengths))
    window = WINDOW * batch_size
    batches = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


@dataclass(frozen=True)
class Encoded:
    """Token ids of N examples from one or several members, without padding.

    token (total tokens,) int64 and segment (same shape) int64 or None, offset (N+1,) int64; gold (N,) int64, numbered
    within the member's own labels; member (N,) int64.
    """

    token: np.ndarray
    segment: np.ndarray | None
    offset: np.ndarray
    gold: np.ndarray
    member: np.ndarray

    def __len__(self) -> int:
        return len(self.gold)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens in each example, (N,) int64."""
        return np.diff(self.offset)


def join(parts: Sequence[Encoded]) -> Encoded:
    """Concatenate the examples of several members."""
    lengths = np.concatenate([p.lengths for p in parts])
    segments = [p.segment for p in parts]
    joined = None
    if any(s is not None for s in segments):
        joined = np.concatenate([np.zeros_like(p.token) if p.segment is None else p.segment for p in parts])
    return Encoded(
        token=np.concatenate([p.token for p in parts]),
        segment=joined,
        offset=np.concatenate([[0], np.cumsum(lengths)]),
        gold=np.concatenate([p.gold for p in parts]),
        member=np.concatenate([p.member for p in parts]),
    )


class Batches:
    """Make batches of `data` on `device`, which holds all of its tokens.

    A batch is as wide as its longest text. On a GPU, widths are multiples of 16, so that few shapes occur and matrix
    products are fast, but none exceeds the longest text of `data`: the model may have no more positions.
    """

    def __init__(self, data: Encoded, device: torch.device, *, pad: int) -> None:
        self.data, self.device, self._pad = data, device, pad
        self._multiple, self._longest = 1 if device.type == "cpu" else 16, data.lengths.max(initial=0)
        names = ("token", "segment", "gold", "member")
        arrays = {name: getattr(data, name) for name in names} | {"start": data.offset[:-1], "length": data.lengths}
        self._on = {name: torch.from_numpy(array).to(device) for name, array in arrays.items() if array is not None}

    def made(self, parts: Sequence[np.ndarray]) -> Iterator[dict[str, Tensor]]:
        """Yield the batch of each of `parts`, its rows (B,), after a single transfer to the device.

        token, segment (B, T) int64, keep (B, T) float32, gold, member, row (B,) int64, and by_member (B,) int64, which
        sorts by member. In host memory: `padded`, true if any position is padding (a batch of equal lengths needs no
        attention mask), and `sizes`, the number of rows of each member. A batch may be empty.
        """
        orders = [np.argsort(self.data.member[index], kind="stable") for index in parts]
        sizes, n = [len(index) for index in parts], sum(len(index) for index in parts)
        sent = torch.from_numpy(np.concatenate([*parts, *orders, np.empty(0, np.int64)])).to(self.device)
        on, last = self._on, len(self.data.token) - 1
        for index, rows, order in zip(parts, sent[:n].split(sizes), sent[n:].split(sizes), strict=True):
            lengths = self.data.lengths[index]
            width = int(min(-(-lengths.max(initial=0) // self._multiple) * self._multiple, self._longest))
            span = torch.arange(width, device=self.device)
            keep = span < on["length"][rows][:, None]
            place = (on["start"][rows][:, None] + span).clamp_(max=last)
            batch = {
                "token": on["token"][place].masked_fill_(~keep, self._pad),
                "keep": keep.float(),
                "padded": torch.tensor(bool((lengths < width).any())),
                "gold": on["gold"][rows],
                "member": on["member"][rows],
                "row": rows,
                "by_member": order,
                "sizes": torch.from_numpy(np.bincount(self.data.member[index])),
            }
            if "segment" in on:
                batch["segment"] = on["segment"][place].masked_fill_(~keep, 0)
            yield batch


def collate(data: Encoded, index: np.ndarray, *, pad: int) -> dict[str, Tensor]:
    """Make one batch in host memory; see `Batches.made`."""
    return next(Batches(data, torch.device("cpu"), pad=pad).made([index]))


def encode(tokens: Tokens, id_map: np.ndarray, gold: np.ndarray, *, member: int) -> Encoded:
    """Encode the examples of member number `member` in the trimmed vocabulary of `id_map`."""
    return Encoded(
        token=remap(tokens.ids, id_map),
        segment=None if tokens.segments is None else tokens.segments.astype(np.int64),
        offset=tokens.offsets.astype(np.int64),
        gold=gold.astype(np.int64),
        member=np.full(len(gold), member, dtype=np.int64),
    )
