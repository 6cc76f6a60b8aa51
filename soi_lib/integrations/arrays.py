"""Training dynamics out of plain arrays and tables that another program left.

    dyn = from_arrays(probabilities, gold, ids)      # (E, N, C), in memory
    dyn = read_arrays("run.npz", gold=gold)          # the same from an .npy or .npz file

Special about it: nothing is repaired. A value that is no probability, an id that comes twice, a label that is no class:
each is an error that names the file and the id. No pickles are opened. `tables` reads a row per example and epoch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from soi_lib.dynamics import MAX_EPOCHS, Meta, TrainingDynamics
from soi_lib.errors import FormatError, RangeError, SoiError

Array = npt.NDArray[Any]
Kind = Literal["probabilities", "logits"]

_SUM = 1e-3  # how far the probabilities of an example may be from 1 together: half precision passes
_VALUES: dict[str, Kind] = {"probabilities": "probabilities", "p": "probabilities", "logits": "logits"}


def softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Probabilities (..., C) of logits (..., C), in double precision."""
    z = np.asarray(logits, dtype=np.float64)
    z = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(z / z.sum(-1, keepdims=True))


def from_arrays(
    values: npt.ArrayLike,
    gold: npt.ArrayLike,
    ids: Sequence[Any] | Array | None = None,
    *,
    kind: Kind = "probabilities",
    keep_logits: bool = True,
    meta: Meta | Mapping[str, Any] | None = None,
    where: object = None,
) -> TrainingDynamics:
    """Dynamics from class probabilities or logits (E, N, C) and gold labels (N,); ids are row numbers unless given.

    The prediction is the class with the highest value, the first of equal ones. Logits are kept as float32 unless
    `keep_logits` is false. `where` is named in errors. Epochs are taken one by one, so a memory-mapped array is never
    in memory as a whole. Raises FormatError, RangeError or DuplicateIdError.
    """
    array = np.asanyarray(values)
    golds = np.asarray(gold)
    if array.ndim != 3 or array.dtype.kind not in "fiu" or array.shape[2] < 2:
        found = f"shape {array.shape} of {array.dtype}"
        raise FormatError(f"the {kind} have a wrong shape", where=where, found=found, expected="numbers (E, N, C)")
    epochs, n, classes = array.shape
    check_epochs(epochs, where)
    if golds.shape != (n,) or golds.dtype.kind not in "iu":
        found = f"shape {golds.shape} of {golds.dtype}"
        raise FormatError("gold does not fit", where=where, found=found, expected=f"{n} whole numbers")
    keys = np.arange(n) if ids is None else ids
    if len(keys) != n:
        raise FormatError("there is another number of ids", where=where, found=len(keys), expected=n)
    if n and not (int(golds.min()) >= 0 and int(golds.max()) < classes):
        row = int(np.flatnonzero((golds < 0) | (golds >= classes))[0])
        raise RangeError(
            f"the gold label of id {shown(keys[row])} is no class",
            where=where,
            found=int(golds[row]),
            expected=f"0 to {classes - 1}",
        )
    p = np.empty((epochs, n), dtype=np.float32)
    correct = np.empty((epochs, n), dtype=bool)
    kept = np.empty(array.shape, dtype=np.float32) if kind == "logits" and keep_logits else None
    for epoch in range(epochs):
        block = np.asarray(array[epoch], dtype=np.float64)
        if kind == "logits":
            with np.errstate(over="ignore"):
                block = block.astype(np.float32).astype(np.float64)  # as they are kept, so that p follows from them
        bad = ~np.isfinite(block).all(1)
        if kind == "probabilities":
            with np.errstate(invalid="ignore"):
                bad |= (block < 0).any(1) | (block > 1 + _SUM).any(1) | (np.abs(block.sum(1) - 1) > _SUM)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise RangeError(
                f"the {kind} of id {shown(keys[row])} at epoch {epoch} are "
                + ("not finite" if kind == "logits" else "no probabilities"),
                where=where,
                found=array[epoch, row].tolist(),
                expected="numbers" if kind == "logits" else "numbers from 0 to 1 that sum to 1",
                hint='say kind="logits" if they are scores' if kind == "probabilities" else None,
            )
        chance = block if kind == "probabilities" else softmax(block)
        p[epoch] = np.minimum(chance[np.arange(n), golds], 1)
        correct[epoch] = block.argmax(1) == golds
        if kept is not None:
            kept[epoch] = block
    return built(where, keys, golds, p, correct, meta, classes, kept)


def read_arrays(
    path: str | os.PathLike[str],
    *,
    gold: npt.ArrayLike | None = None,
    ids: Sequence[Any] | Array | None = None,
    kind: Kind | None = None,
    meta: Meta | Mapping[str, Any] | None = None,
) -> TrainingDynamics:
    """Dynamics from an `.npy` file of values (E, N, C), or an `.npz` with "probabilities", "p" or "logits".

    An `.npz` may hold "gold" (N,) and "ids" (N,) as well; what is given here goes before. The values of an `.npy` are
    probabilities unless `kind` says "logits"; the file is mapped, not loaded. Raises FormatError for a file that is
    damaged, holds Python objects or lacks a part, SoiError
    for one that cannot be opened, and what `from_arrays` raises.
    """
    file = Path(path)
    if not file.is_file():
        raise SoiError("no such file", where=file, hint="check the path")
    try:
        if file.suffix.lower() == ".npy":
            values: Any = np.load(file, mmap_mode="r", allow_pickle=False)
            kind = kind or "probabilities"
        elif file.suffix.lower() == ".npz":
            with np.load(file, allow_pickle=False) as parts:
                names = [name for name in _VALUES if name in parts.files and kind in (None, _VALUES[name])]
                if len(names) != 1:
                    raise FormatError(
                        "the file must hold one array of values",
                        where=file,
                        found=", ".join(parts.files),
                        expected="one of probabilities, p, logits",
                        hint='say which: kind="logits"' if names else "rename it",
                    )
                values, kind = parts[names[0]], _VALUES[names[0]]
                gold = parts["gold"] if gold is None and "gold" in parts.files else gold
                ids = parts["ids"] if ids is None and "ids" in parts.files else ids
        else:
            raise FormatError("unknown kind of file", where=file, found=file.suffix or "none", expected=".npy or .npz")
    except SoiError:
        raise
    except Exception as error:  # numpy, zip and zlib have errors of their own for a damaged file
        raise FormatError("the arrays cannot be read", where=file, found=error, hint="write the file again") from error
    if gold is None:
        raise FormatError("there are no gold labels", where=file, hint="give gold=..., (N,) class numbers")
    return from_arrays(values, gold, ids, kind=kind, meta=meta, where=file)


def built(
    where: object, ids: Any, gold: Array, p: Array, correct: Array, meta: Any, classes: int, logits: Array | None
) -> TrainingDynamics:
    """TrainingDynamics whose errors name `where`; `meta` may be a mapping, `classes` 0 when unknown."""
    known = Meta.from_dict(meta) if isinstance(meta, Mapping) else meta or Meta()
    try:
        known = replace(known, epochs=0, classes=classes)
        return TrainingDynamics(ids, gold, p, correct, known, logits)
    except FormatError as error:  # the same class of error, with the place in front
        raise type(error)(
            error.what, where=where, found=error.found, expected=error.expected, hint=error.hint
        ) from error


def check_epochs(epochs: int, where: object) -> None:
    """Raise RangeError for a number of epochs that a history cannot hold."""
    if not 1 <= epochs <= MAX_EPOCHS:
        raise RangeError(
            "the number of epochs is out of range", where=where, found=epochs, expected=f"1 to {MAX_EPOCHS}"
        )


def shown(key: Any) -> str:
    """An id as it is written in messages."""
    return repr(key.item() if isinstance(key, np.generic) else key)
