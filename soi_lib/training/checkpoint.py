"""The whole state of a run at the end of an epoch, in one safetensors file.

All randomness is derived from the seed and the epoch, so the state is small: the master vector, the two moments of
AdamW, and what the recorders hold. The identity of the run travels in the metadata; a file of another run is ignored
by name rather than continued, and a damaged one is put aside.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soi_lib.errors import StoreError
from soi_lib.training import tensorfile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """Where a run stands after `epoch` epochs: tensors of model and optimizer, arrays of the recorders."""

    epoch: int
    tensors: dict[str, Tensor]
    recorders: dict[str, dict[str, np.ndarray]]


def save(path: Path, identity: str, state: State) -> None:
    """Write `state` for the run `identity`, replacing an earlier epoch's in one step."""
    tensors = {f"tensor/{name}": t.detach().cpu().contiguous() for name, t in state.tensors.items()}
    for member, arrays in state.recorders.items():
        for name, array in arrays.items():
            tensors[f"recorder/{member}/{name}"] = torch.from_numpy(np.array(array))
    tensors["epoch"] = torch.tensor(state.epoch)
    tensorfile.save(path, tensors, {"identity": identity})


def load(path: Path, identity: str) -> State | None:
    """The state stored at `path` for the run `identity`; None when there is none that can be continued."""
    if not path.exists():
        return None
    try:
        everything, about = tensorfile.read(path)
    except StoreError as error:
        with suppress(OSError):
            os.replace(path, path.with_name(f"{path.name}.damaged"))
        logger.warning("%s It was put aside as .damaged; starting from the first epoch", error)
        return None
    if about.get("identity") != identity:
        logger.warning("%s: belongs to another run; starting from the first epoch", path)
        return None
    epoch = int(everything.pop("epoch"))
    tensors = {k.removeprefix("tensor/"): v for k, v in everything.items() if k.startswith("tensor/")}
    recorders: dict[str, dict[str, np.ndarray]] = {}
    for key, value in everything.items():
        if key.startswith("recorder/"):
            _, member, name = key.split("/", 2)
            recorders.setdefault(member, {})[name] = value.numpy()
    return State(epoch, tensors, recorders)
