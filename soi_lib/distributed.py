"""What several processes do together: take their shares, add what they found, and hold the same afterwards.

Special about it: every function does nothing where no other process takes part, so the code that calls it is the same
for one process and for many. What is joined (recorded values, predictions) is held by exactly one process each, so
adding the zeros of the others rounds nothing, and nobody gathers as many copies as there are processes. Only gradients
and losses are real sums.

All processes must call every function but `several`, `place`, `share` and `deal`, in the same order. When one of them
ends early, the others raise SoiError under gloo. Under NCCL a call returns before the others have answered, and NCCL's
watchdog ends the whole process when its time is up; what it says stands in the log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from soi_lib.errors import AlignmentError, SoiError

T = TypeVar("T")

_GONE = re.compile("gloo|connection|timed out", re.IGNORECASE)
"""In what gloo says, as a plain RuntimeError, when another process does not answer."""


def several() -> bool:
    """Whether other processes take part."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def place() -> tuple[int, int]:
    """The number of this process and how many there are: (0, 1) where no other takes part."""
    return (distributed.get_rank(), distributed.get_world_size()) if several() else (0, 1)


def share(index: np.ndarray) -> np.ndarray:
    """The rows of a batch that this process takes: neighbours, since those are of similar length. May be none."""
    rank, count = place()
    return index if count == 1 else np.array_split(index, count)[rank]


def deal(batches: Sequence[T]) -> Sequence[T]:
    """Every n-th batch, for n processes."""
    rank, count = place()
    return batches[rank::count]


def begin(master: Tensor, **told: object) -> None:
    """Start from one state: the weights `master` of process 0, after a check that all were told the same.

    Raises AlignmentError in every process, with the names of what is printed differently.
    """
    if not several():
        return
    marks = [int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7], "little") for value in told.values()]
    highest = _highest(marks + [-mark for mark in marks], master.device)
    wrong = [name for i, name in enumerate(told) if highest[i] != -highest[len(marks) + i]]
    if wrong:
        raise AlignmentError(
            f"the processes were not given the same {' and '.join(wrong)}",
            where=f"process {distributed.get_rank()}",
            expected="the same call in every process, and a checkpoint where all of them see it",
            hint="give all the whole data: each takes its share of a batch by itself",
        )
    sent = master.to(_wire(master.device))
    with _others_needed():
        distributed.broadcast(sent, 0)
    master.copy_(sent)


def add(held: Tensor) -> None:
    """Sum `held` over the processes, in place."""
    if several():
        sent = held.to(_wire(held.device))
        _reduce(sent, distributed.ReduceOp.SUM)
        if sent is not held:
            held.copy_(sent)


def average(gradient: Tensor, weight: float) -> None:
    """Make `gradient`, a mean over this process's share of a batch, the mean over all of it, in place.

    `weight` is the share of the batch that is this process's, from 0 to 1.
    """
    if several():
        add(gradient.mul_(weight))


def first_says(yes: bool, device: torch.device) -> bool:
    """What process 0 answers, in every process: for what depends on a clock."""
    if not several():
        return yes
    return _highest([int(yes and distributed.get_rank() == 0)], device) == [1]


def wait() -> None:
    """Go on when all processes are here."""
    if several():
        _highest([0], torch.device("cpu"))


def agree(mark: int, classes: int | None, device: torch.device) -> int | None:
    """Check that `mark` is the same in all processes; return the number of classes that any of them knows.

    Raises AlignmentError in every process when the marks differ.
    """
    highest, lowest, known = _highest([mark, -mark, classes or 0], device)
    if highest != -lowest:
        raise AlignmentError(
            "the processes did not announce the same examples",
            where=f"process {distributed.get_rank()}",
            expected="the same ids and gold, in the same order, in every process",
            hint="give the recorder the whole training set, not the process's share",
        )
    return known or None


def join(buffers: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The recorded buffers of all processes as one; every process gets the same.

    `seen` (N,) counts presentations and is summed, `turn` (N,) is the update of the last one; of `turn` and all other
    buffers (N, ...), float32 or whole numbers up to 32 bits, the values of the last presentation stand: of the highest
    (update, process).
    """
    now = {name: held.to(_wire(device)) for name, held in buffers.items()}
    turn = now["turn"].long() * distributed.get_world_size() + distributed.get_rank()
    turn = torch.where(now["seen"] > 0, turn, -1)
    best = _reduce(turn.clone(), distributed.ReduceOp.MAX)
    mine = (turn == best) & (turn >= 0)
    for name, held in now.items():
        bits = held.view(torch.int32) if held.is_floating_point() else held.int()  # -0.0 has a bit to lose
        if name != "seen":
            bits = torch.where(mine.view(-1, *[1] * (bits.ndim - 1)), bits, 0)
        bits = _reduce(bits.clone(), distributed.ReduceOp.SUM)
        now[name] = bits.view(held.dtype) if held.is_floating_point() else bits.to(held.dtype)
    return now


def _wire(device: torch.device) -> torch.device:
    """Where tensors must lie to be sent: `device` if the backend serves it, else one that it serves."""
    served = [pair.split(":")[0] for pair in distributed.get_backend_config().split(",")]
    return device if device.type in served else torch.device(served[0])


@contextmanager
def _others_needed() -> Iterator[None]:
    """Say it in one line when another process is not there any more."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and not _GONE.search(str(error)):
            raise
        raise SoiError(
            "another process has stopped, so this one cannot go on",
            where=f"process {distributed.get_rank()}",
            found=str(error).splitlines()[0][-200:],
            hint="see what that process said; the same command goes on from the last checkpoint",
        ) from error


def _reduce(sent: Tensor, how: Any) -> Tensor:
    """The sum or maximum over the processes, in place of a tensor that can be sent."""
    with _others_needed():
        distributed.all_reduce(sent, how)
    return sent


def _highest(values: list[int], device: torch.device) -> list[int]:
    """The highest of each of `values` in any process."""
    found: list[int] = _reduce(torch.tensor(values, device=_wire(device)), distributed.ReduceOp.MAX).tolist()
    return found
