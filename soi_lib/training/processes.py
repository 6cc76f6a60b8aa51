"""What several processes recorded, made one: exactly, and in memory that does not grow with their number.

Special about it: of several presentations of an example the one with the highest (update, process) stands, so exactly
one process holds what counts. Its bits, read as a whole number, are summed with the zeros of the others: no rounding,
no gathering of as many copies as there are processes.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from soi_lib.errors import AlignmentError


def several() -> bool:
    """Whether other processes take part."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _wire(device: torch.device) -> torch.device:
    """Where tensors must lie to be sent: `device` if the backend serves it, else one that it serves."""
    served = [pair.split(":")[0] for pair in distributed.get_backend_config().split(",")]
    return device if device.type in served else torch.device(served[0])


def agree(mark: int, classes: int | None, device: torch.device) -> int | None:
    """Check that `mark` is the same in all processes; return the number of classes that any of them knows.

    Raises AlignmentError in every process when the marks differ.
    """
    common = torch.tensor([mark, -mark, classes or 0], device=_wire(device))
    distributed.all_reduce(common, distributed.ReduceOp.MAX)
    highest, lowest, known = common.tolist()
    if highest != -lowest:
        raise AlignmentError(
            "the processes did not announce the same examples",
            where=f"process {distributed.get_rank()}",
            expected="the same ids and gold, in the same order, in every process",
            hint="give the recorder the whole training set, not the process's share",
        )
    return known or None


def join(buffers: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The buffers of all processes as one; every process gets the same.

    `seen` (N,) counts presentations and is summed, `turn` (N,) is the update of the last one; of `turn` and all other
    buffers (N, ...), float32 or whole numbers up to 32 bits, the values of the last presentation stand.
    """
    now = {name: held.to(_wire(device)) for name, held in buffers.items()}
    turn = now["turn"].long() * distributed.get_world_size() + distributed.get_rank()
    turn = torch.where(now["seen"] > 0, turn, -1)
    best = turn.clone()
    distributed.all_reduce(best, distributed.ReduceOp.MAX)
    mine = (turn == best) & (turn >= 0)
    for name, held in now.items():
        bits = held.view(torch.int32) if held.is_floating_point() else held.int()
        if name != "seen":
            bits = torch.where(mine.view(-1, *[1] * (bits.ndim - 1)), bits, 0)
        bits = bits.clone()
        distributed.all_reduce(bits, distributed.ReduceOp.SUM)
        now[name] = bits.view(held.dtype) if held.is_floating_point() else bits.to(held.dtype)
    return now
