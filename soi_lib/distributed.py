"""What several processes do together: take shards of the data, add what they found, and hold the same afterwards.

Every function does nothing in a process that trains alone, so the code that calls it is the same for
one process and for many. What is joined (recorded values, predictions) is held by exactly one process each, so adding
the zeros of the others rounds nothing, and nobody gathers as many copies as there are processes. Only gradients and
losses are real sums.

All processes must call every function from `start_together` on, in the same order. When one of them ends early, the
others raise SoiError under gloo. Under NCCL a call returns before the others have answered, and NCCL's watchdog ends
the whole process when its time is up; the log holds what it says.
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


def is_distributed() -> bool:
    """Whether other processes take part."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes take part."""
    return distributed.get_world_size() if is_distributed() else 1


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def shard(index: np.ndarray) -> np.ndarray:
    """The rows of a batch that this process takes: neighbours, since those are of similar length. May be none."""
    return index if world_size() == 1 else np.array_split(index, world_size())[rank()]


def shard_batches(batches: Sequence[T]) -> Sequence[T]:
    """Every n-th batch, for n processes."""
    return batches[rank() :: world_size()]


def start_together(master: Tensor, **settings: object) -> None:
    """Copy the weights `master` of process 0 to all, after a check that all processes were given the same settings.

    Raises AlignmentError in every process, with the names of the settings that print differently.
    """
    if not is_distributed():
        return
    hashes = [int.from_bytes(hashlib.sha256(repr(v).encode()).digest()[:7], "little") for v in settings.values()]
    highest = _highest(hashes + [-value for value in hashes], master.device)
    wrong = [name for i, name in enumerate(settings) if highest[i] != -highest[len(hashes) + i]]
    if wrong:
        raise AlignmentError(
            f"the processes were not given the same {' and '.join(wrong)}",
            where=f"process {rank()}",
            expected="the same call in every process, and a checkpoint where all of them see it",
            hint="give all the whole data: each takes its share of a batch by itself",
        )
    sent = master.to(_wire(master.device))
    with _others_needed():
        distributed.broadcast(sent, 0)
    master.copy_(sent)


def sum_processes(held: Tensor) -> None:
    """Sum `held` over the processes, in place."""
    if is_distributed():
        sent = held.to(_wire(held.device))
        _reduce(sent, distributed.ReduceOp.SUM)
        if sent is not held:
            held.copy_(sent)


def average_gradient(gradient: Tensor, weight: float) -> None:
    """Make `gradient`, a mean over this process's share of a batch, the mean over all of it, in place.

    `weight` is the share of the batch that is this process's, from 0 to 1.
    """
    if is_distributed():
        sum_processes(gradient.mul_(weight))


def main_process_says(yes: bool, device: torch.device) -> bool:
    """What process 0 answers, in every process: for what depends on a clock."""
    return _highest([int(yes and is_main_process())], device) == [1] if is_distributed() else yes


def wait_for_all() -> None:
    """Go on when all processes are here."""
    if is_distributed():
        _highest([0], torch.device("cpu"))


def agree_on_classes(fingerprint: int, classes: int | None, device: torch.device) -> int | None:
    """Check that `fingerprint` is the same in all processes; return the number of classes that any of them knows.

    Raises AlignmentError in every process when the fingerprints differ.
    """
    highest, lowest, known = _highest([fingerprint, -fingerprint, classes or 0], device)
    if highest != -lowest:
        raise AlignmentError(
            "the processes did not announce the same examples",
            where=f"process {rank()}",
            expected="the same ids and gold, in the same order, in every process",
            hint="give the recorder the whole training set, not the process's share",
        )
    return known or None


def join_buffers(buffers: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The recorded buffers of all processes as one; every process gets the same.

    `seen` (N,) counts presentations and is summed, `turn` (N,) is the update of the last one; of `turn` and all other
    buffers (N, ...), float32 or whole numbers up to 32 bits, the values of the last presentation stand: of the highest
    (update, process).
    """
    now = {name: held.to(_wire(device)) for name, held in buffers.items()}
    turn = now["turn"].long() * world_size() + rank()
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
            where=f"process {rank()}",
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
