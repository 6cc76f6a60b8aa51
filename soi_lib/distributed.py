"""Training with several processes: shard the data, sum the results, and give every process the same state.

Every function does nothing in a process that trains alone, so callers are the same for one process and for many. Each
recorded value or prediction comes from exactly one process; adding the zeros of the others is exact, and no process
needs to gather the others' copies. Only gradients and losses are real sums.

All processes must call the functions from `check_same` on, all of them and in the same order. If one process ends
early, the others raise SoiError under gloo. Under NCCL a call returns before the others have answered, and NCCL's
watchdog ends the whole process after its timeout; its message is in the log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from soi_lib.errors import AlignmentError, SoiError

_GONE = re.compile("gloo|connection|timed out", re.IGNORECASE)
"""Matches what gloo reports, as a plain RuntimeError, when another process does not answer."""


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0; process 0 is the one that writes."""
    return distributed.get_rank() if world_size() > 1 else 0


def shard(index: np.ndarray) -> np.ndarray:
    """Return this process's rows of a batch: neighbours, since they have similar lengths. May be empty."""
    return np.array_split(index, world_size())[rank()] if world_size() > 1 else index


def check_same(device: torch.device, **settings: object) -> None:
    """Raise AlignmentError in every process unless all were given the same; name the settings whose `repr` differs."""
    if world_size() == 1:
        return
    hashes = [int.from_bytes(hashlib.sha256(repr(v).encode()).digest()[:7], "little") for v in settings.values()]
    largest = highest(hashes + [-value for value in hashes], device)
    wrong = [name for i, name in enumerate(settings) if largest[i] != -largest[len(hashes) + i]]
    if wrong:
        what = f"the processes were not given the same {' and '.join(wrong)}"
        hint = "give every process all the data, in the same order, and a checkpoint that all of them can read"
        raise AlignmentError(what, where=f"process {rank()}", hint=hint)


def copy_to_all(held: Tensor) -> None:
    """Replace `held` by that of process 0, in place."""
    if world_size() > 1:
        sent = held.to(_wire(held.device))
        with _others_needed():
            distributed.broadcast(sent, 0)
        held.copy_(sent)


def sum_processes(held: Tensor) -> None:
    """Sum `held` over the processes, in place."""
    if world_size() > 1:
        held.copy_(_reduce(held.to(_wire(held.device)), distributed.ReduceOp.SUM))


def highest(values: list[int], device: torch.device) -> list[int]:
    """Return the maximum of each of `values` over the processes, once all have called this."""
    if world_size() == 1:
        return values
    found: list[int] = _reduce(torch.tensor(values, device=_wire(device)), distributed.ReduceOp.MAX).tolist()
    return found


def join_buffers(buffers: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Merge the recorded buffers of all processes; every process gets the same result.

    `turn` (N,) is the number of the last update with an example, 0 without one. All buffers (N, ...), float32 or
    integers of up to 32 bits, keep the values of the last presentation, the one with the highest (update, process).
    """
    now = {name: held.to(_wire(device)) for name, held in buffers.items()}
    seen = now["turn"] > 0
    order = torch.where(seen, now["turn"].long() * world_size() + rank(), 0)
    mine = seen & (order == _reduce(order.clone(), distributed.ReduceOp.MAX))
    for name, held in now.items():
        bits = held.view(torch.int32) if held.is_floating_point() else held.int()  # a float sum would lose -0.0
        bits = _reduce(torch.where(mine.view(-1, *[1] * (bits.ndim - 1)), bits, 0), distributed.ReduceOp.SUM)
        now[name] = bits.view(held.dtype) if held.is_floating_point() else bits.to(held.dtype)
    return now


def _wire(device: torch.device) -> torch.device:
    """Return the device from which tensors can be sent: `device` if the backend supports it, else one that it does."""
    served = [pair.split(":")[0] for pair in distributed.get_backend_config().split(",")]
    return device if device.type in served else torch.device(served[0])


@contextmanager
def _others_needed() -> Iterator[None]:
    """Raise a one-line SoiError if another process has stopped."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and not _GONE.search(str(error)):
            raise
        what, found = "another process has stopped, so this one cannot go on", str(error).splitlines()[0][-200:]
        hint = "see the output of that process; the same command resumes from the last checkpoint"
        raise SoiError(what, where=f"process {rank()}", found=found, hint=hint) from error


def _reduce(sent: Tensor, how: Any) -> Tensor:
    """Replace a tensor that can be sent by its sum or maximum over the processes, in place; return it."""
    with _others_needed():
        distributed.all_reduce(sent, how)
    return sent
