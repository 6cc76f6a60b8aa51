"""Tensors on disk, verified on every read: the state of a run at the end of an epoch, and final weights.

Safetensors checks the layout of a file, not its values, so the metadata hold a sha256 of all tensors. All randomness is
derived from the seed and the epoch, so the state of a run is small: the master vector, the two moments of AdamW, and
the state of the recorders. A file from another run is ignored, and a damaged one is renamed.

Further training can start from final weights. The rows of a trimmed embedding are meaningless without the list of
tokens that were kept, and weights from a run on another machine are not those of the run in the store. So the file also
contains the tokens and the fingerprints of the dynamics recorded with the weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from soi_lib.errors import StoreError
from soi_lib.files import replacing

logger = logging.getLogger(__name__)
_VOCABULARY = "soi.vocabulary"


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 (hex) of names, types, shapes and values, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].contiguous().numpy()
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


@contextmanager
def full_disk_as_os_error() -> Iterator[None]:
    """Report a full disk as an OSError, as the system does; safetensors raises an error of its own."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write `tensors` (on the CPU, contiguous) and `about` atomically. Raises SoiError if the write fails."""
    with replacing(path) as tmp, full_disk_as_os_error():
        save_file(tensors, tmp, about | {"sha256": digest(tensors)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors by name, and `about` with their `sha256`. Raises StoreError for any damage."""
    hint = "train the model or the run again"
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            about = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError("the tensors cannot be read", where=path, found=error, hint=hint) from error
    if about.get("sha256") != (actual := digest(tensors)):
        what, found, expected = "the tensors have changed since they were written", actual[:12], about.get("sha256")
        raise StoreError(what, where=path, found=f"sha256 {found}", expected=str(expected)[:12], hint=hint)
    return tensors, about


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of the run `identity` is stored, after every epoch if that costs little.

    The state is written at the end of an epoch once `every` times the duration of the last write has passed.
    """

    path: Path
    identity: str = ""
    every: ClassVar[float] = 20.0

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Write `state`, atomically replacing that of an earlier epoch."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_tensors(self.path, tensors, {"identity": self.identity})

    def load(self) -> dict[str, Tensor] | None:
        """Return the stored state, or None if there is none to continue from."""
        if not self.path.exists():
            return None
        try:
            state, about = read_tensors(self.path)
        except StoreError as error:
            with suppress(OSError):
                os.replace(self.path, self.path.with_name(f"{self.path.name}.damaged"))
            logger.warning("%s The file was renamed to *.damaged; starting from the first epoch", error)
            return None
        if about.get("identity") != self.identity:
            logger.warning("%s: belongs to another run; starting from the first epoch", self.path)
            return None
        return state


def save_weights(
    path: Path, weights: Mapping[str, Tensor], *, key: str, vocabulary: np.ndarray, dynamics: dict[str, str]
) -> None:
    """Save the weights of the run `key`, the tokens of its embedding (K,) and the fingerprints of its dynamics."""
    tensors = {name: value.detach().cpu().clone() for name, value in weights.items()}
    tensors[_VOCABULARY] = torch.from_numpy(vocabulary.astype(np.int64))
    save_tensors(path, tensors, {"key": key, "dynamics": json.dumps(dynamics, sort_keys=True)})


def has_weights(path: Path, *, key: str, dynamics: dict[str, str]) -> bool:
    """Return whether `path` holds the weights of this run, undamaged; log the reason if it does not."""
    if not path.exists():
        return False
    try:
        _, about = read_tensors(path)
    except StoreError as error:
        logger.warning("%s", error)
        return False
    if (about.get("key"), about.get("dynamics")) != (key, json.dumps(dynamics, sort_keys=True)):
        logger.warning("%s: the weights are not those of this run; they will be recreated", path)
        return False
    return True


def load_weights(path: Path, vocabulary: np.ndarray | None = None) -> tuple[dict[str, Tensor], np.ndarray, str]:
    """Return the final weights by name (as for `train(initial=...)`), the token of each embedding row, and the sha256.

    Raises StoreError if the file is damaged or if its tokens are not those of `vocabulary` (K,): the embedding rows of
    the model to be initialised would then stand for other tokens.
    """
    tensors, about = read_tensors(path)
    tokens = tensors.pop(_VOCABULARY).numpy()
    if vocabulary is not None and not np.array_equal(tokens, vocabulary):
        what, expected = "the weights belong to another vocabulary", f"the {len(vocabulary)} tokens of the run's texts"
        raise StoreError(what, where=path, expected=expected, hint="delete the file; it will be recreated")
    return tensors, tokens, about["sha256"]
