"""Training dynamics out of plain arrays and tables that another program left.

    dyn = from_arrays(probabilities, gold, ids)      # (E, N, C), in memory
    dyn = read_arrays("run.npz", gold=gold)          # the same from an .npy or .npz file
    dyn = read_table("log.csv")                      # a row per example and epoch

Nothing is repaired. A value that is not a probability, an id that appears twice, an epoch that lacks
examples, a label that changes: each is an error that names the file and the id or row. No pickles are opened. The text
of a CSV is taken as it is, so no id loses its leading zeros.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import softmax  # type: ignore[import-untyped]

from soi_lib.dynamics import Meta, TrainingDynamics
from soi_lib.errors import DuplicateIdError, FormatError, RangeError, SoiError, located

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
Kind = Literal["probabilities", "logits"]

_SUM = 1e-3  # how far the probabilities of an example may be from 1 together: half precision passes
_SLACK = 1e-6  # how far p may contradict `correct`: rounding
_VALUES: dict[str, Kind] = {"probabilities": "probabilities", "p": "probabilities", "logits": "logits"}
_WHOLE = r"0|-?[1-9]\d{0,17}"  # a whole number as Python writes it, within 64 bits
_TRUTH = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}


def _hint(row: Array, kind: Kind) -> str:
    """What to do about the values (C,) of an example that are not what `kind` says."""
    if kind == "logits" or not np.isfinite(row).all():
        return "find out where the training gave values that are not numbers"
    if row.min() >= 0 and abs(row.sum() - 1) <= 0.006 * len(row):  # what two digits leave
        return "they look rounded: save all digits, or divide those of each example by their sum"
    return 'say kind="logits" if they are scores'


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
    array, golds = np.asanyarray(values), np.asarray(gold)
    if array.ndim != 3 or array.dtype.kind not in "fiu" or array.shape[2] < 2:
        found = f"shape {array.shape} of {array.dtype}"
        raise FormatError(f"the {kind} have a wrong shape", where=where, found=found, expected="numbers (E, N, C)")
    epochs, n, classes = array.shape
    keys: Any = np.arange(n) if ids is None else ids
    for name, shape in (("gold", golds.shape), ("ids", (len(keys),))):
        if shape != (n,):
            raise FormatError(f"{name} have another length", where=where, found=shape, expected=(n,))
    p = np.empty((epochs, n), dtype=np.float32)
    correct = np.empty((epochs, n), dtype=bool)
    kept = np.empty(array.shape, dtype=np.float32) if kind == "logits" and keep_logits else None
    own = np.clip(golds, 0, classes - 1).astype(np.int64)  # a label that is not a class is refused below, by its id
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
                f"the {kind} of id {shown(keys[row])} at epoch {epoch} are not {kind}",
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
    probabilities unless `kind` says "logits"; the file is mapped, not loaded. Raises SoiError for a file that is not
    there, FormatError for one that is damaged, holds Python objects or lacks a part, and what `from_arrays` raises.
    """
    file = _existing(path, ".npy", ".npz")
    parts: dict[str, Any] = {}
    try:
        if file.suffix.lower() == ".npy":
            parts = {kind or "probabilities": np.load(file, mmap_mode="r", allow_pickle=False)}
        else:
            with np.load(file, allow_pickle=False) as bundle:
                parts = {name: bundle[name] for name in bundle.files}
    except Exception as error:  # numpy, zip and zlib have errors of their own for a damaged file
        raise FormatError("the arrays cannot be read", where=file, found=error, hint="write the file again") from error
    names = [name for name in _VALUES if name in parts and kind in (None, _VALUES[name])]
    if len(names) != 1:
        raise FormatError(
            "the file must hold one array of values",
            where=file,
            found=", ".join(parts),
            expected="one of probabilities, p, logits",
            hint='say which: kind="logits"' if names else "rename it",
        )
    gold, ids = (parts.get("gold") if gold is None else gold), (parts.get("ids") if ids is None else ids)
    if gold is None:
        raise FormatError("there are no gold labels", where=file, hint="give gold=..., (N,) class numbers")
    return from_arrays(parts[names[0]], gold, ids, kind=_VALUES[names[0]], meta=meta, where=file)


def read_table(
    path: str | os.PathLike[str],
    *,
    id: str = "id",
    epoch: str = "epoch",
    gold: str = "gold",
    classes: int | None = None,
    meta: Meta | Mapping[str, Any] | None = None,
) -> TrainingDynamics:
    """Dynamics from a CSV, TSV or Parquet file with a row per example and epoch, rows in any order.

    Columns: `id`; `epoch` (0, 1, ... or 1, 2, ...); `gold` (class number); and the fullest that is there of

    - `logits_0`, `logits_1`, ..., or in Parquet a list `logits`;
    - `p_0`, `p_1`, ..., or in Parquet a list `probabilities`;
    - `p` or `p_gold`, the gold label's probability, and `correct` (0/1, true/false). Without `correct` an example is
      right when p > 1/2 and wrong when p < 1/`classes` (2 unless given); in between nobody can tell: an error;
    - `correct` alone: p is then 1 where right and 0 where wrong, and the metadata says so (`p_gold_from`).

    Examples keep the order of their first rows. Ids of a CSV become integers if all are written as Python writes
    integers ("7", not "07"). Raises FormatError, RangeError or DuplicateIdError with the file and the row (the first
    one after the header is row 1).
    """
    table = _Table(_existing(path, ".csv", ".tsv", ".parquet"))
    keys, place = table.cells(id, epoch)
    golds = table.whole(gold)
    label = golds[place]
    if (label != label[0]).any():
        e, i = (int(x) for x in np.argwhere(label != label[0])[0])
        raise FormatError(
            f"the gold label of id {shown(keys[i])} differs between epochs",
            where=f"{table.file} row {place[e, i] + 1}",
            found=label[e, i],
            expected=label[0, i],
        )
    for kind, whole, prefix in (("logits", "logits", "logits_"), ("probabilities", "probabilities", "p_")):
        values = table.scores(whole, prefix)
        if values is not None:
            return from_arrays(values[place], label[0], keys, kind=kind, meta=meta, where=table.file)  # type: ignore[arg-type]
    known = meta_of(meta, classes or 0)
    right = table.truth("correct") if "correct" in table.frame else None
    name = next((n for n in ("p", "p_gold") if n in table.frame), None)
    if name is not None:
        p = table.number(name)
        right = table.correctness(name, p, right, known.classes or (2 if golds.max() < 2 else None))
    elif right is not None:
        p, known = right.astype(np.float32), replace(known, extra={**known.extra, "p_gold_from": "correct"})
    else:
        raise FormatError(
            "there is no column of predictions",
            where=table.file,
            found=", ".join(table.names),
            expected="one of p, p_gold, correct, logits, logits_0, probabilities, p_0",
        )
    with located(table.file):
        return TrainingDynamics(keys, label[0], p[place].astype(np.float32), right[place], known)


class _Table:
    """The columns of a file, read as numbers by name; every error names the file and the row."""

    def __init__(self, file: Path) -> None:
        import pandas as pd

        self.file, self.text = file, file.suffix.lower() != ".parquet"
        try:
            if self.text:
                separator = "\t" if file.suffix.lower() == ".tsv" else ","
                with open(file, encoding="utf-8-sig", newline="") as lines:
                    names = next(csv.reader(lines, delimiter=separator), [])
                self.frame: pd.DataFrame = pd.read_csv(
                    file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
                )
            else:
                self.frame = pd.read_parquet(file)
                names = [str(name) for name in self.frame]
        except UnicodeDecodeError as error:
            hint = "convert it, e.g. iconv -f latin1 -t utf-8"
            raise FormatError("the file is not UTF-8", where=file, found=error, hint=hint) from None
        except (OSError, ValueError, csv.Error) as error:  # pandas' and Arrow's own errors are ValueErrors
            hint = "mend or remove what is damaged"
            raise FormatError("the table cannot be read", where=file, found=error, hint=hint) from error
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise FormatError("two columns have the same name", where=file, found=repr(twice))
        self.names = names
        if self.frame.empty:
            raise FormatError("the table is empty", where=file, expected="a row an example and epoch")

    def column(self, name: str) -> pd.Series[Any]:
        """A column that must be there."""
        if name not in self.frame:
            raise FormatError(f"there is no column {name!r}", where=self.file, found=", ".join(self.names))
        return self.frame[name]

    def refuse(
        self, wrong: npt.ArrayLike, name: str, what: str, expected: Any = None, kind: type[SoiError] = FormatError
    ) -> None:
        """Raise for the first row of the mask `wrong`, if there is one, with the value of its column `name`."""
        mask = np.asarray(wrong, dtype=bool)
        if mask.any():
            row = int(mask.argmax())
            found = repr(self.frame[name].tolist()[row])
            raise kind(f"column {name!r} {what}", where=f"{self.file} row {row + 1}", found=found, expected=expected)

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """A column as (rows,) float64, all finite."""
        import pandas as pd

        column = self.column(name)
        try:
            numbers = column.to_numpy(dtype=object).astype(np.float64)
        except (TypeError, ValueError):  # find the row
            numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        self.refuse(~np.isfinite(numbers), name, "does not hold a number")
        return numbers

    def whole(self, name: str) -> npt.NDArray[np.int64]:
        """A column as (rows,) int64."""
        numbers = self.number(name)
        self.refuse((numbers % 1 != 0) | (np.abs(numbers) > 2**31), name, "does not hold a whole number")
        return numbers.astype(np.int64)

    def truth(self, name: str) -> npt.NDArray[np.bool_]:
        """A column of 0/1 or true/false as (rows,) bool."""
        values = self.column(name).astype(str).str.strip().str.lower().map(_TRUTH)
        self.refuse(values.isna(), name, "does not hold 0 or 1")
        return values.to_numpy(dtype=bool)

    def cells(self, id: str, epoch: str) -> tuple[Array, npt.NDArray[np.int64]]:
        """Ids (N,) in the order of their first rows, and the row of every epoch and example (E, N)."""
        import pandas as pd

        column, epochs = self.column(id), self.whole(epoch)
        self.refuse(column.isna() | (column.astype(str) == "") | (column.dtype.kind == "f"), id, "does not hold an id")
        if self.text and column.str.fullmatch(_WHOLE).all():
            column = column.astype(np.int64)
        order, keys = pd.factorize(column)
        first = int(epochs.min())
        if first not in (0, 1):
            raise FormatError("the first epoch is missing", where=self.file, found=first, expected="epoch 0 or 1")
        count, n = int(epochs.max()) + 1 - first, len(keys)
        cell = (epochs - first) * n + order
        again = pd.Series(cell).duplicated().to_numpy()
        if again.any():
            row = int(again.argmax())
            raise DuplicateIdError(
                f"id {shown(keys[order[row]])} appears twice at epoch {epochs[row]}",
                where=f"{self.file} row {row + 1}",
                found=f"already in row {int((cell == cell[row]).argmax()) + 1}",
                hint="keep one row an example and epoch",
            )
        if len(cell) != count * n:
            size = pd.Series(epochs).value_counts().reindex(range(first, first + count), fill_value=0)
            part = int(size.index[size < n][0])
            lacking = set(range(n)) - set(order[epochs == part].tolist())
            raise FormatError(
                f"epoch {part} is partial or missing",
                where=self.file,
                found=f"{size[part]} of {n} examples; {shown(keys[min(lacking)])} is not there",
                hint="leave the epoch out and renumber the later ones, or record it whole",
            )
        return np.asarray(keys), np.argsort(cell).reshape(count, n)

    def scores(self, whole: str, prefix: str) -> npt.NDArray[np.float64] | None:
        """Logits or class probabilities (rows, C), from a column a class or a column of lists; None without either."""
        names = [name for name in self.names if re.fullmatch(prefix + r"\d+", name)]
        if names:
            wanted = [f"{prefix}{c}" for c in range(max(2, len(names)))]
            if set(names) != set(wanted):
                raise FormatError(
                    "a class has no column", where=self.file, found=", ".join(names), expected=", ".join(wanted)
                )
            return np.stack([self.number(name) for name in wanted], axis=1)
        if whole not in self.frame:
            return None
        lists = [value if isinstance(value, list | np.ndarray) else [] for value in self.frame[whole]]
        wrong = [len(values) != (len(lists[0]) or -1) for values in lists]
        self.refuse(wrong, whole, "does not hold a list of numbers, one per class")
        return np.array(lists, dtype=np.float64)

    def correctness(self, name: str, p: Array, said: Array | None, classes: int | None) -> npt.NDArray[np.bool_]:
        """What p says of correctness (rows,), where nobody else says it; raises where the two contradict each other."""
        self.refuse(~((p >= 0) & (p <= 1)), name, "does not hold a probability", "0 to 1", RangeError)
        if said is None and classes is None:
            hint = f"give classes=..., or a column 'correct' beside {name!r}"
            raise FormatError("the number of classes is not known", where=self.file, hint=hint)
        low, expected = 1 / classes if classes else 0.0, "above 1/2 where right, below 1/classes where wrong"
        if said is None:
            self.refuse((p <= 0.5) & (p >= low), name, "does not tell whether the prediction was right", expected)
            return np.asarray(p > 0.5)
        wrong = (~said & (p > 0.5 + _SLACK)) | (said & (p < low - _SLACK))
        self.refuse(wrong, name, "contradicts column 'correct'", expected)
        return said


def meta_of(meta: Meta | Mapping[str, Any] | None, classes: int) -> Meta:
    """What a caller gave as metadata, with the number of classes where it is known (not 0)."""
    known = Meta.from_dict(meta) if isinstance(meta, Mapping) else meta or Meta()
    return replace(known, epochs=0, classes=classes or known.classes)


def shown(key: Any) -> str:
    """An id as it is written in messages."""
    return repr(key.item() if isinstance(key, np.generic) else key)


def _existing(path: str | os.PathLike[str], *kinds: str) -> Path:
    """The file, if it is there and its name has one of the endings `kinds`."""
    file = Path(path)
    if not file.is_file():
        raise SoiError("no such file", where=file, hint="check the path")
    if file.suffix.lower() not in kinds:
        raise FormatError("unknown kind of file", where=file, found=file.suffix or "none", expected=" or ".join(kinds))
    return file
