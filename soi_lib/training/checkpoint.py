"""The whole state of a run at the end of an epoch, in one safetensors file.

All randomness is derived from the seed and the epoch, so the state is small: the master vector, the two moments of
AdamW, and what the recorders hold. The identity of the run travels in the metadata; a file of another run, or one
that was cut short, is ignored by name rather than continued.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from soi_lib.atomic import replacing

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
    with replacing(path) as tmp:
        save_file(tensors, tmp, metadata={"identity": identity, "epoch": str(state.epoch)})


def load(path: Path, identity: str) -> State | None:
    """The state stored at `path` for the run `identity`; None when there is none that can be continued."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("identity") != identity:
                logger.warning("%s: belongs to another run; starting from the first epoch", path)
                return None
            everything = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        logger.warning("%s: cannot be read (%s); starting from the first epoch", path, error)
        return None
    tensors = {k.removeprefix("tensor/"): v for k, v in everything.items() if k.startswith("tensor/")}
    recorders: dict[str, dict[str, np.ndarray]] = {}
    for key, value in everything.items():
        if key.startswith("recorder/"):
            _, member, name = key.split("/", 2)
            recorders.setdefault(member, {})[name] = value.numpy()
    return State(int(metadata["epoch"]), tensors, recorders)
