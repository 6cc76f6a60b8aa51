"""Named tensors on disk with a sha256 of their own, so that a changed byte is found before a value is used.

Safetensors checks the layout of a file, not its values: a flipped bit in a weight loads without a word. So the digest
of all tensors (names, types, shapes, values) travels in the metadata and is compared at every reading.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from soi_lib.errors import StoreError
from soi_lib.files import replacing


def digest(tensors: dict[str, Tensor]) -> str:
    """The sha256 in hex over names, types, shapes and values, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].contiguous().numpy()
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def save(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write `tensors` (on the CPU, contiguous) and `about` in one step. Raises SoiError when the disk refuses it."""
    with replacing(path) as tmp:
        try:
            save_file(tensors, tmp, about | {"sha256": digest(tensors)})
        except SafetensorError as error:  # its way to say that the disk is full
            raise OSError(str(error)) from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name and what `save` was told about them, `sha256` included. Raises StoreError for any damage."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            about = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(
            "the tensors cannot be read", where=path, found=error, hint="they will be made again"
        ) from error
    actual = digest(tensors)
    if about.get("sha256") != actual:
        raise StoreError(
            "the tensors are not those that were written",
            where=path,
            found=f"sha256 {actual[:12]}",
            expected=str(about.get("sha256"))[:12],
            hint="they will be made again",
        )
    return tensors, about
