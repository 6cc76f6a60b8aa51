"""The final weights of a run, kept so that further training can start from them.

Weights alone say little: rows of a trimmed embedding mean tokens only together with the list of tokens that were
kept, and weights of another machine's run are not those of the run in the store. So the file carries the tokens, the
fingerprints of the dynamics that came with the weights, and a sha256 of all tensors; what does not fit is made again.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soi_lib.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

    from soi_lib.runs.store import StoredRun

logger = logging.getLogger(__name__)

_VOCABULARY = "soi.vocabulary"


def fingerprints(run: StoredRun) -> dict[str, str]:
    """The fingerprint of the dynamics of every member of a stored run."""
    return {member: run.dynamics(member).fingerprint() for member in run.setting}


def save_weights(
    path: Path, weights: dict[str, Tensor], *, key: str, vocabulary: np.ndarray, dynamics: dict[str, str]
) -> None:
    """Keep the `weights` of the run `key`: `vocabulary` (K,) int64 names the token of each row of its embedding."""
    import torch

    from soi_lib.training.checkpoint import save_tensors

    tensors = {name: value.detach().cpu().clone() for name, value in weights.items()}
    tensors[_VOCABULARY] = torch.from_numpy(vocabulary.astype(np.int64))
    save_tensors(path, tensors, {"key": key, "dynamics": json.dumps(dynamics, sort_keys=True)})


def fit(path: Path, run: StoredRun) -> bool:
    """Whether `path` holds the weights of the stored `run`, undamaged; what does not fit is named in the log."""
    if not path.exists():
        return False
    try:
        _, about = _read(path)
    except StoreError as error:
        logger.warning("%s", error)
        return False
    found = about.get("key"), about.get("dynamics")
    if found != (run.key, json.dumps(fingerprints(run), sort_keys=True)):
        logger.warning("%s: the weights are not those of the run; they will be made again", path)
        return False
    return True


def load_weights(path: Path, *, vocabulary: np.ndarray) -> tuple[dict[str, Tensor], str]:
    """Weights by name (as `train(initial=...)` takes them) and their sha256. Raises StoreError.

    `vocabulary` is that of the model which is to take them; other tokens are refused, since the rows of its embedding
    would mean other words.
    """
    tensors, about = _read(path)
    if not np.array_equal(tensors.pop(_VOCABULARY).numpy(), vocabulary):
        raise StoreError(
            "the weights belong to another vocabulary",
            where=path,
            expected=f"the {len(vocabulary)} tokens of the run's texts",
            hint="delete the file; it will be made again",
        )
    return tensors, about["sha256"]


def trained_weights(path: Path) -> tuple[dict[str, Tensor], np.ndarray]:
    """Weights by name, and the token of each row of their embedding, (K,) int64. Raises StoreError."""
    tensors, _ = _read(path)
    return tensors, tensors.pop(_VOCABULARY).numpy()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from soi_lib.training.checkpoint import read_tensors

    tensors, about = read_tensors(path)
    if _VOCABULARY not in tensors:
        raise StoreError("the weights have no vocabulary", where=path, hint="delete the file; it will be made again")
    return tensors, about
