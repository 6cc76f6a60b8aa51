"""The final weights of a run, kept so that further training can start from them.

Weights alone say little: rows of a trimmed embedding mean tokens only together with the list of tokens that were
kept, and weights of another machine's run are not those of the run in the store. So the file carries the tokens, the
fingerprints of the dynamics that came with the weights, and a sha256 of all tensors; what does not fit is made again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib import atomic
from soi_lib.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

    from soi_lib.experiments.store import StoredRun

_VOCABULARY = "soi.vocabulary"


def fingerprints(run: StoredRun) -> dict[str, str]:
    """The fingerprint of the dynamics of every member of a stored run."""
    return {member: run.dynamics(member).fingerprint() for member in run.setting}


def save_weights(
    path: Path, weights: dict[str, Tensor], *, key: str, vocabulary: np.ndarray, dynamics: dict[str, str]
) -> None:
    """Keep the `weights` of the run `key`: `vocabulary` (K,) int64 names the token of each row of its embedding."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().clone() for name, value in weights.items()}
    tensors[_VOCABULARY] = torch.from_numpy(vocabulary.astype(np.int64))
    about = {"key": key, "dynamics": json.dumps(dynamics, sort_keys=True), "sha256": _digest(tensors)}
    with atomic.replacing(path) as tmp:
        save_file(tensors, tmp, about)


def fit(path: Path, run: StoredRun) -> bool:
    """Whether `path` holds the weights of the stored `run`, undamaged."""
    try:
        tensors, about = _read(path)
    except StoreError:
        return False
    wanted = json.dumps(fingerprints(run), sort_keys=True)
    return (about.get("key"), about.get("dynamics"), about.get("sha256")) == (run.key, wanted, _digest(tensors))


def load_weights(path: Path, *, vocabulary: np.ndarray) -> tuple[dict[str, Tensor], str]:
    """Weights by name (as `train(initial=...)` takes them) and their sha256. Raises StoreError.

    `vocabulary` is that of the model which is to take them; other tokens are refused, since the rows of its embedding
    would stand for other words.
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


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            about: dict[str, Any] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise StoreError(
            "the weights cannot be read", where=path, found=error, hint="delete the file; it will be made again"
        ) from error
    if _VOCABULARY not in tensors:
        raise StoreError("the weights have no vocabulary", where=path, hint="delete the file; it will be made again")
    return tensors, about


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
