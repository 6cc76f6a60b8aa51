"""Training dynamics from plain arrays and from tables written by other programs.

    dyn = from_arrays(probabilities, gold, ids)      # (E, N, C), in memory or np.load("run.npy", mmap_mode="r")
    dyn = read_table("log.csv")                      # one row per example and epoch

Nothing is repaired. A value that is not a probability, an id that appears twice, an epoch that lacks examples or a
label that changes raises an error that names the file and the id or row. The text of a CSV is not converted, so ids
keep their leading zeros.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax  # type: ignore[import-untyped]

from soi_lib.dynamics import Meta, TrainingDynamics
from soi_lib.errors import DuplicateIdError, FormatError, RangeError, SoiError, located

Array = npt.NDArray[Any]
Kind = Literal["probabilities", "logits"]

_SUM = 1e-3  # how far an example's probabilities may sum from 1: loose enough for half precision
_SLACK = 1e-6  # how far p may be above 1/2 for a wrong prediction: rounding
_WHOLE = r"0|-?[1-9]\d{0,17}"  # an integer as Python writes it, within 64 bits
_TRUTH = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}


def _hint(row: Array, kind: Kind) -> str:
    """Return a hint for the values (C,) of an example that are not `kind`."""
    if kind == "logits" or not np.isfinite(row).all():
        return "find out where training produced NaN or infinity"
    if row.min() >= 0 and abs(row.sum() - 1) <= 0.006 * len(row):  # the error of two digits
        return "they look rounded: save all digits, or divide each example's probabilities by their sum"
    return 'pass kind="logits" if they are scores'


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
    """Return dynamics from class probabilities or logits (E, N, C) and gold labels (N,); ids default to row numbers.

    The prediction is the class with the highest value, the first one if there is a tie. Logits are kept as float32
    unless `keep_logits` is false. Errors name `where`. Epochs are processed one by one, so a memory-mapped array is
    never in memory as a whole. Raises FormatError, RangeError or DuplicateIdError.
    """
    array, golds = np.asanyarray(values), np.asarray(gold)
    if array.ndim != 3 or array.dtype.kind not in "fiu" or array.shape[2] < 2:
        found = f"shape {array.shape} of {array.dtype}"
        raise FormatError(f"the {kind} have the wrong shape", where=where, found=found, expected="numbers (E, N, C)")
    epochs, n, classes = array.shape
    keys: Any = np.arange(n) if ids is None else ids
    for name, shape in (("gold", golds.shape), ("ids", (len(keys),))):
        if shape != (n,):
            raise FormatError(f"the length of {name} is wrong", where=where, found=shape, expected=(n,))
    p = np.empty((epochs, n), dtype=np.float32)
    correct = np.empty((epochs, n), dtype=bool)
    kept = np.empty(array.shape, dtype=np.float32) if kind == "logits" and keep_logits else None
    own = np.clip(golds, 0, classes - 1).astype(np.int64)  # a label that is not a class raises below, with its id
    for epoch in range(epochs):
        block = np.asarray(array[epoch], dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            if kind == "logits":
                block = block.astype(np.float32).astype(np.float64)  # as stored, so that p agrees with them
                bad = ~np.isfinite(block).all(1)
            else:
                bad = (block < 0).any(1) | ~(np.abs(block.sum(1) - 1) <= _SUM)  # true for NaN too
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise RangeError(
                f"the {kind} of id {shown(keys[row])} at epoch {epoch} are not valid",
                where=where,
                found=array[epoch, row].tolist(),
                expected="numbers" if kind == "logits" else "numbers from 0 to 1 that sum to 1",
                hint=_hint(block[row], kind),
            )
        chance = block if kind == "probabilities" else softmax(block, axis=1)
        p[epoch] = np.minimum(chance[np.arange(n), own], 1)
        correct[epoch] = block.argmax(1) == golds
        if kept is not None:
            kept[epoch] = block
    with located(where):
        return TrainingDynamics(keys, golds, p, correct, meta_of(meta, classes), kept)


def read_table(
    path: str | os.PathLike[str],
    *,
    id: str = "id",
    epoch: str = "epoch",
    gold: str = "gold",
    meta: Meta | Mapping[str, Any] | None = None,
) -> TrainingDynamics:
    """Read dynamics from a CSV, TSV or Parquet file with one row per example and epoch, in any order.

    Columns: `id`; `epoch` (0, 1, ... or 1, 2, ...); `gold` (class number); and the first of these that is present:

    - `logits_0`, `logits_1`, ..., or in Parquet a list `logits`;
    - `p_0`, `p_1`, ..., or in Parquet a list `probabilities`;
    - `p` or `p_gold`, the gold label's probability, and `correct` (0/1, true/false). With two classes `correct` may be
      omitted: an example is correct if p > 1/2;
    - `correct` alone: p is then 1 if correct and 0 if wrong, which the metadata records (`p_gold_from`).

    Examples keep the order of their first rows. Ids from a CSV become integers if all are written as Python writes
    integers ("7", not "07"). Raises FormatError, RangeError or DuplicateIdError with the file and the row (the first
    row after the header is row 1).
    """
    file = Path(path)
    table = Table(_frame(file), file)
    if file.suffix.lower() != ".parquet" and table.column(id).str.fullmatch(_WHOLE).all():
        table.frame[id] = table.frame[id].astype(np.int64)
    keys, golds, place = table.examples(id, epoch, gold)
    for kind, whole, prefix in (("logits", "logits", "logits_"), ("probabilities", "probabilities", "p_")):
        values = table.scores(whole, prefix)
        if values is not None:
            return from_arrays(values[place], golds, keys, kind=kind, meta=meta, where=file)  # type: ignore[arg-type]
    known = meta_of(meta, 0)
    name = next((n for n in ("p", "p_gold", "correct") if n in table.names), None)
    if name is None:
        expected = "one of p, p_gold, correct, logits, logits_0, probabilities, p_0"
        what, found = "there is no column of predictions", ", ".join(table.names)
        raise FormatError(what, where=file, found=found, expected=expected)
    if name == "correct":
        right = table.truth(name)
        p, known = right.astype(np.float64), replace(known, extra={**known.extra, "p_gold_from": name})
    else:
        p = table.number(name)
        table.refuse((p < 0) | (p > 1), name, "does not contain a probability", "0 to 1", RangeError)
        alone = "correct" not in table.names
        if alone and max(golds.max() + 1, known.classes) > 2:
            raise FormatError(f"column 'correct' is missing next to {name!r}", where=file, expected="0 or 1")
        right = p > 0.5 if alone else table.truth("correct")
        table.refuse(~right & (p > 0.5 + _SLACK), name, "contradicts column 'correct'", "at most 1/2 if wrong")
    with located(file):
        return TrainingDynamics(keys, golds, p[place].astype(np.float32), right[place], known)


def _frame(file: Path) -> pd.DataFrame:
    """Return the columns of a file; the text of a CSV is not converted."""
    kind = file.suffix.lower()
    if kind not in (".csv", ".tsv", ".parquet"):
        raise FormatError("unknown kind of file", where=file, expected=".csv, .tsv or .parquet")
    try:
        if kind == ".parquet":
            return pd.read_parquet(file)
        separator = "\t" if kind == ".tsv" else ","
        return pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except UnicodeDecodeError as error:
        hint = "convert it, e.g. iconv -f latin1 -t utf-8"
        raise FormatError("the file is not UTF-8", where=file, found=error, hint=hint) from None
    except (OSError, ValueError) as error:  # pandas' and Arrow's own errors are ValueErrors
        hint = "repair the file, or remove the damaged part"
        raise FormatError("the table cannot be read", where=file, found=error, hint=hint) from error


class Table:
    """A table with one row per example and epoch, with typed access to its columns; errors name the file and the row.

    Args:
        frame: The columns.
        file: The file they come from.
        where: Names a row in errors, given its number; by default, the first row is "FILE row 1".
    """

    def __init__(self, frame: pd.DataFrame, file: Path, where: Callable[[int], str] | None = None) -> None:
        self.frame, self.file, self.names = frame, file, [str(name) for name in frame]
        self.where = where or (lambda row: f"{file} row {row + 1}")
        if frame.empty:
            raise FormatError("the table is empty", where=file, expected="one row per example and epoch")

    def column(self, name: str) -> pd.Series[Any]:
        """Return a required column."""
        if name not in self.frame:
            raise FormatError(f"there is no column {name!r}", where=self.file, found=", ".join(self.names))
        return self.frame[name]

    def refuse(
        self, wrong: npt.ArrayLike, name: str, what: str, expected: Any = None, kind: type[SoiError] = FormatError
    ) -> None:
        """Raise for the first row of the mask `wrong`, if there is one, with its value in column `name`."""
        mask = np.asarray(wrong, dtype=bool)
        if mask.any():
            row = int(mask.argmax())
            found = repr(self.frame[name].tolist()[row])
            raise kind(f"column {name!r} {what}", where=self.where(row), found=found, expected=expected)

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column as (rows,) float64, all finite."""
        column = self.column(name)
        try:
            numbers = column.to_numpy(dtype=object).astype(np.float64)
        except (TypeError, ValueError):  # NaN marks the row
            numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        self.refuse(~np.isfinite(numbers), name, "does not contain a number")
        return numbers

    def whole(self, name: str) -> npt.NDArray[np.int64]:
        """Return a column as (rows,) int64."""
        numbers = self.number(name)
        self.refuse((numbers % 1 != 0) | (np.abs(numbers) > 2**31), name, "does not contain an integer")
        return numbers.astype(np.int64)

    def truth(self, name: str) -> npt.NDArray[np.bool_]:
        """Return a column of 0/1 or true/false as (rows,) bool."""
        values = self.column(name).astype(str).str.strip().str.lower().map(_TRUTH)
        self.refuse(values.isna(), name, "does not contain 0 or 1")
        return values.to_numpy(dtype=bool)

    def examples(self, id: str, epoch: str, gold: str) -> tuple[Array, Array, npt.NDArray[np.int64]]:
        """Return ids (N,) in the order of their first rows, gold labels (N,), and rows by epoch and example (E, N)."""
        column, epochs, golds = self.column(id), self.whole(epoch), self.whole(gold)
        self.refuse([not isinstance(key, int | str) or key == "" for key in column.tolist()], id, "has no valid id")
        order, keys = pd.factorize(column)
        first = int(epochs.min())
        if first not in (0, 1):
            raise FormatError("the first epoch is missing", where=self.file, found=first, expected="epoch 0 or 1")
        count, n = int(epochs.max()) + 1 - first, len(keys)
        cell = (epochs - first) * n + order
        again = pd.Series(cell).duplicated().to_numpy()
        if again.any():
            row = int(again.argmax())
            what = f"id {shown(keys[order[row]])} appears twice at epoch {epochs[row]}"
            found = f"already in {self.where(int((cell == cell[row]).argmax()))}"
            raise DuplicateIdError(what, where=self.where(row), found=found, hint="keep one row per example and epoch")
        if len(cell) != count * n:
            size = pd.Series(epochs).value_counts().reindex(range(first, first + count), fill_value=0)
            part = int(size.index[size < n][0])
            lacking = set(range(n)) - set(order[epochs == part].tolist())
            found = f"{size[part]} of {n} examples; {shown(keys[min(lacking)])} is missing"
            hint = "leave the epoch out and renumber the later ones, or record all of it"
            raise FormatError(f"epoch {part} is partial or missing", where=self.file, found=found, hint=hint)
        place = np.argsort(cell).reshape(count, n)
        self.refuse(golds != golds[place[0]][order], gold, "differs from the label in the first epoch")
        return np.asarray(keys), golds[place[0]], place

    def scores(self, whole: str, prefix: str) -> npt.NDArray[np.float64] | None:
        """Return scores (rows, C) from one column per class or from a column of lists; None if there is neither."""
        names = [name for name in self.names if re.fullmatch(prefix + r"\d+", name)]
        if names:
            wanted = [f"{prefix}{c}" for c in range(max(2, len(names)))]
            if set(names) != set(wanted):
                found, expected = ", ".join(names), ", ".join(wanted)
                raise FormatError("a class has no column", where=self.file, found=found, expected=expected)
            return np.stack([self.number(name) for name in wanted], axis=1)
        return self.lists(whole) if whole in self.frame else None

    def lists(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of equally long lists of numbers as (rows, C)."""
        lists = [value if isinstance(value, list | np.ndarray) else [] for value in self.column(name)]
        wrong = [len(values) != (len(lists[0]) or -1) for values in lists]
        self.refuse(wrong, name, "does not contain a list of numbers, one per class")
        try:
            return np.array(lists, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise FormatError(f"column {name!r} does not contain numbers", where=self.file, found=error) from error


def meta_of(meta: Meta | Mapping[str, Any] | None, classes: int) -> Meta:
    """Return the caller's metadata, with the number of classes if it is known (not 0)."""
    known = Meta.from_dict(meta) if isinstance(meta, Mapping) else meta or Meta()
    return replace(known, epochs=0, classes=classes or known.classes)


def shown(key: Any) -> str:
    """Return an id as written in messages."""
    return repr(key.item() if isinstance(key, np.generic) else key)
