"""Training dynamics out of a table with a row per example and epoch.

    dyn = read_table("log.csv")      # id, epoch, gold and one of: p, logits_0 logits_1 ..., p_0 p_1 ..., correct

Special about it: nothing is repaired. An epoch that lacks examples, an example that comes twice in it, a label that
changes, a number that is none: each is an error that names the file and the row. The text of a CSV is taken as it
stands, so no id loses its leading zeros.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soi_lib.dynamics import Meta, TrainingDynamics
from soi_lib.errors import DuplicateIdError, FormatError, RangeError, SoiError
from soi_lib.integrations.arrays import Kind, built, check_epochs, from_arrays, shown

Array = npt.NDArray[Any]

_WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")  # a whole number as Python writes it, within 64 bits
_TRUTH = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}
_SLACK = 1e-6  # how far p may contradict `correct`: rounding


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
    file = Path(path)
    table = _read(file)
    for part, name in (("id", id), ("epoch", epoch), ("gold", gold)):
        if name not in table:
            raise FormatError(
                f"there is no {part} column",
                where=file,
                found=", ".join(table),
                expected=repr(name),
                hint=f"name it: {part}=COLUMN",
            )
    if not len(table[id]):
        raise FormatError(
            "the table is empty", where=file, found="a header only", expected="a row an example and epoch"
        )
    keys, order = _ids(table[id], id, file)
    epochs, golds = _whole(table[epoch], epoch, file), _whole(table[gold], gold, file)
    first = int(epochs.min())
    if first not in (0, 1):
        raise FormatError("the first epoch is missing", where=file, found=f"epoch {first}", expected="epoch 0 or 1")
    place = _places(epochs - first, order, keys, first, file)
    label = golds[place]
    if (label != label[0]).any():
        e, i = (int(x) for x in np.argwhere(label != label[0])[0])
        raise FormatError(
            f"the gold label of id {shown(keys[i])} differs between epochs",
            where=f"{file} row {int(place[e, i]) + 1}",
            found=f"{int(label[e, i])} at epoch {e + first}",
            expected=f"{int(label[0, i])}, as at epoch {first}",
        )
    kind, values = _scores(table, file)
    if values is not None:
        return from_arrays(values[place], label[0], keys, kind=kind, meta=meta, where=file)
    known = Meta.from_dict(meta) if isinstance(meta, Mapping) else meta or Meta()
    classes = classes or known.classes or None
    p_column = next((n for n in ("p", "p_gold") if n in table), None)
    right = None if "correct" not in table else _truth(table["correct"], file)
    if p_column is None:
        if right is None:
            raise FormatError(
                "there is no column of predictions",
                where=file,
                found=", ".join(table),
                expected="one of p, p_gold, correct, logits, logits_0, probabilities, p_0",
            )
        known = Meta.from_dict({**known.to_dict(), "p_gold_from": "correct"})
        correct = right[place]
        return built(file, keys, label[0], correct.astype(np.float32), correct, known, classes or 0, None)
    p = _number(table[p_column], p_column, file)
    _check_p(p, right, classes, p_column, file)
    if right is None:
        right = _right(p, golds, classes, p_column, file)
    return built(file, keys, label[0], p[place].astype(np.float32), right[place], known, classes or 0, None)


def _read(file: Path) -> dict[str, Any]:
    """The columns of the file as Arrow arrays; those of a CSV are text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        raise SoiError("no such file", where=file, hint="check the path")
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise FormatError("unknown kind of file", where=file, found=suffix or "none", expected=".csv, .tsv or .parquet")
    try:
        table = pq.ParquetFile(file).read() if suffix == ".parquet" else _csv(file, "\t" if suffix == ".tsv" else ",")
    except UnicodeDecodeError as error:
        raise _not_utf8(file, error) from None
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        if "UTF8" in str(error):
            raise _not_utf8(file, error) from None
        raise FormatError(
            "the table cannot be read", where=file, found=error, hint="mend or remove what is damaged"
        ) from error
    names = table.column_names
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise FormatError("two columns have the same name", where=file, found=repr(twice[0]))
    return {name: table[name].combine_chunks() for name in names}


def _csv(file: Path, separator: str) -> Any:
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    with open(file, encoding="utf-8-sig", newline="") as head:
        names = next(csv.reader(head, delimiter=separator), [])
    options = {
        "parse_options": arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        "convert_options": arrow_csv.ConvertOptions(column_types={name: pa.string() for name in names}),
    }
    try:
        return arrow_csv.read_csv(file, **options)
    except pa.ArrowInvalid:  # one thread takes longer and says which row it is
        return arrow_csv.read_csv(file, read_options=arrow_csv.ReadOptions(use_threads=False), **options)


def _not_utf8(file: Path, error: Exception) -> FormatError:
    return FormatError(
        "the file is not UTF-8", where=file, found=error, hint="convert it, e.g. iconv -f latin1 -t utf-8"
    )


def _bad(file: Path, row: int, name: str, found: Any, expected: str) -> FormatError:
    return FormatError(f"column {name!r} holds no {expected}", where=f"{file} row {row + 1}", found=repr(found))


def _number(column: Any, name: str, file: Path) -> npt.NDArray[np.float64]:
    """The column as (rows,) float64; raises FormatError at the first value that is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.utf8_trim_whitespace(column) if pa.types.is_string(column.type) else column
    try:
        if values.null_count:
            raise ValueError
        return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False))
    except (pa.ArrowException, ValueError):
        for row, value in enumerate(values.to_pylist()):
            try:
                float(value)
            except (TypeError, ValueError):
                raise _bad(file, row, name, value, "number") from None
        raise FormatError(f"column {name!r} holds no numbers", where=file, found=column.type) from None


def _whole(column: Any, name: str, file: Path) -> npt.NDArray[np.int64]:
    numbers = _number(column, name, file)
    wrong = ~np.isfinite(numbers) | (np.floor(numbers) != numbers) | (np.abs(numbers) > 2**31)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise _bad(file, row, name, column[row].as_py(), "whole number")
    return numbers.astype(np.int64)


def _truth(column: Any, file: Path) -> npt.NDArray[np.bool_]:
    values = column.to_pylist()
    truth = [_TRUTH.get(str(value).strip().lower()) for value in values]
    if None in truth:
        row = truth.index(None)
        raise _bad(file, row, "correct", values[row], "0 or 1")
    return np.array(truth, dtype=bool)


def _ids(column: Any, name: str, file: Path) -> tuple[Array, npt.NDArray[np.int64]]:
    """Distinct ids in the order of their first rows, (N,) int64 or str objects, and for every row its place in them."""
    import pyarrow as pa

    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not text and not pa.types.is_integer(kind):
        raise FormatError(f"column {name!r} holds no ids", where=file, found=kind, expected="text or whole numbers")
    coded = column.dictionary_encode()
    keys = coded.dictionary.to_pylist()
    if column.null_count or "" in keys:
        row = next(i for i, value in enumerate(column.to_pylist()) if value in (None, ""))
        raise _bad(file, row, name, column[row].as_py(), "id")
    if not text or (file.suffix.lower() != ".parquet" and all(_WHOLE.fullmatch(key) for key in keys)):
        ids: Array = np.array(keys, dtype=np.int64)
    else:
        ids = np.empty(len(keys), dtype=object)
        ids[:] = keys
    return ids, coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _places(epochs: Array, order: Array, keys: Array, first: int, file: Path) -> npt.NDArray[np.int64]:
    """The row of every epoch and example (E, N); raises when one is missing or comes twice."""
    count, n = int(epochs.max()) + 1, len(keys)
    check_epochs(count, file)
    cell = epochs * n + order
    times = np.bincount(cell, minlength=count * n).reshape(count, n)
    if (times > 1).any():
        e, i = (int(x) for x in np.argwhere(times > 1)[0])
        rows = np.flatnonzero(cell == e * n + i)
        raise DuplicateIdError(
            f"id {shown(keys[i])} comes more than once at epoch {e + first}",
            where=f"{file} row {int(rows[1]) + 1}",
            found=f"already in row {int(rows[0]) + 1}",
            hint="keep one row an example and epoch",
        )
    if (times == 0).any():
        e, i = (int(x) for x in np.argwhere(times == 0)[0])
        there = int(times[e].sum())
        raise FormatError(
            f"epoch {e + first} is missing" if not there else f"epoch {e + first} is partial",
            where=file,
            found=f"{there} of {n} examples; {shown(keys[i])} is not there",
            hint="leave the epoch out and renumber the later ones, or record it whole",
        )
    place = np.empty(count * n, dtype=np.int64)
    place[cell] = np.arange(len(cell))
    return place.reshape(count, n)


def _scores(table: dict[str, Any], file: Path) -> tuple[Kind, Array | None]:
    """Logits or class probabilities (rows, C) if the table has them."""
    import pyarrow as pa

    choices: tuple[tuple[Kind, str, str], ...] = (
        ("logits", "logits", "logits_"),
        ("probabilities", "probabilities", "p_"),
    )
    for kind, whole, prefix in choices:
        parts = sorted((int(name[len(prefix) :]), name) for name in table if re.fullmatch(prefix + r"\d+", name))
        if parts:
            if [i for i, _ in parts] != list(range(len(parts))) or len(parts) < 2:
                found = ", ".join(name for _, name in parts)
                raise FormatError(
                    "a class has no column", where=file, found=found, expected=f"{prefix}0, {prefix}1, ..."
                )
            return kind, np.stack([_number(table[name], name, file) for _, name in parts], axis=1)
        if whole in table:
            column = table[whole]
            if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
                if not pa.types.is_fixed_size_list(column.type):
                    hint = f"write one column a class: {prefix}0, {prefix}1, ..."
                    raise FormatError(f"column {whole!r} holds no lists", where=file, found=column.type, hint=hint)
                column = column.cast(pa.list_(column.type.value_type))
            widths = column.value_lengths().to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero(~(widths == widths[0])) if not np.isnan(float(widths[0])) else np.array([0])
            if len(wrong):
                row = int(wrong[0])
                raise _bad(file, row, whole, column[row].as_py(), f"{widths[0]:g} values, as in row 1")
            flat = column.flatten()
            if flat.null_count:
                row = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0] // int(widths[0]))
                raise _bad(file, row, whole, column[row].as_py(), "numbers")
            return kind, _number(flat, whole, file).reshape(len(column), -1)
    return "logits", None


def _check_p(p: Array, right: Array | None, classes: int | None, name: str, file: Path) -> None:
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise RangeError(
            f"column {name!r} holds no probability", where=f"{file} row {row + 1}", found=p[row], expected="0 to 1"
        )
    if right is not None:
        against = ~right & (p > 0.5 + _SLACK)
        if classes:
            against |= right & (p < 1 / classes - _SLACK)
        if against.any():
            row = int(np.flatnonzero(against)[0])
            raise FormatError(
                f"columns {name!r} and 'correct' contradict each other",
                where=f"{file} row {row + 1}",
                found=f"p {p[row]:g}, correct {bool(right[row])}",
                expected="above 1/2 is right, below 1/classes wrong",
            )


def _right(p: Array, golds: Array, classes: int | None, name: str, file: Path) -> npt.NDArray[np.bool_]:
    """Correctness from the gold label's probability alone, where it follows."""
    if classes is None and int(golds.max()) > 1:
        raise FormatError(
            "the number of classes is not known",
            where=file,
            hint=f"give classes=..., or a column 'correct' beside {name!r}",
        )
    unknown = (p <= 0.5) & (p >= 1 / (classes or 2))
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise FormatError(
            f"column {name!r} does not tell whether the prediction was right",
            where=f"{file} row {row + 1}",
            found=p[row],
            expected=f"above 1/2, or below 1/{classes or 2}",
            hint="add a column 'correct', or one a class",
        )
    return np.asarray(p > 0.5)
