"""A person's own file, by the ids of dynamics: find the rows, and copy them as they are.

Special about it: a copy of a text file (CSV, TSV, JSON lines) holds the very characters of the rows that were kept:
quotes, line ends, column order, a byte-order mark. Nothing is parsed and written again, so nothing can change on the
way. Parquet keeps its schema and its key-value metadata.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soi_lib import atomic
from soi_lib.data.dataset import SPLITS
from soi_lib.data.table_files import ID_COLUMNS, PAIRS, TEXTS, read
from soi_lib.errors import AlignmentError, CorpusError, DuplicateIdError, SoiError, nearest

if TYPE_CHECKING:
    import pandas as pd

_BOM = "\ufeff"


@dataclass(frozen=True)
class Matched:
    """Where the examples of dynamics stand in a file.

    rows (n,) int64: the row (from 0, in the file's order) of each id asked for; frame: all rows of the file, with the
    values as they stand; by: what the ids were compared with, for a person; keys: the ids as they stand there, as text.
    """

    path: Path
    frame: pd.DataFrame
    rows: npt.NDArray[np.int64]
    by: str
    keys: tuple[str, ...]

    def texts(self, columns: Iterable[str]) -> pd.DataFrame:
        """These columns of the matched rows, in the order of the ids asked for. Raises CorpusError."""
        wanted = list(columns)
        for name in wanted:
            if name not in self.frame.columns:
                have = [str(c) for c in self.frame.columns]
                raise CorpusError(
                    "there is no such column", where=self.path, found=repr(name), hint=nearest(name, have)
                )
        return self.frame.loc[:, wanted].iloc[self.rows].reset_index(drop=True)

    def copy(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> int:
        """Write the matched rows to `out`, in the file's order and format; return how many.

        Raises OutputExistsError, and SoiError where `out` is of another format or is the file itself.
        """
        target = Path(out)
        suffix = self.path.suffix.lower()
        if target.suffix.lower() != suffix:
            raise SoiError(
                "a copy keeps the format of the file that it is made from",
                where=target,
                found=repr(target.suffix),
                expected=repr(suffix),
            )
        if target.exists() and target.resolve() == self.path.resolve():
            raise SoiError("the copy would replace the file that it is made from", where=target, hint="name another")
        keep = np.unique(self.rows)
        with atomic.replacing(target, overwrite=overwrite) as tmp:
            if suffix == ".parquet":
                _copy_parquet(self.path, tmp, keep)
            else:
                tmp.write_bytes(_copied_text(self.path, keep).encode("utf-8"))
        return len(keep)


def match(path: str | os.PathLike[str], ids: Iterable[Any], column: str | None = None) -> Matched:
    """Find the rows of a CSV, TSV, JSONL or Parquet file that hold `ids`.

    `column` names the file's ids. Without it, a column that is called id, idx or guid is taken if it has a value in
    every row and none twice; where there is none, ids are row numbers from 0. Ids are compared as text (7 is "7"; "007"
    is not), with or without the name of a split in front, as `soi_lib.data.table_files` gives it ("train/7").
    Raises CorpusError (no such file or column, a damaged file), DuplicateIdError (a row's id stands twice in the
    file) and AlignmentError (ids that are not in the file).
    """
    source = Path(path)
    frame = read(source)
    wanted = [str(i) for i in ids]
    chosen = column if column is not None else _id_column(frame)
    if chosen is None:
        place, by = {str(row): row for row in range(len(frame))}, "row numbers from 0"
    else:
        _require(source, frame, chosen)
        place, by = _places(source, frame[chosen], chosen), f"column {chosen!r}"
    for form in (wanted, _without_split(wanted)):
        keys = [str(int(key)) if chosen is None and key.isdecimal() else key for key in form]
        if not keys or keys[0] in place:
            break
    missing = [i for i, key in enumerate(keys) if key not in place]
    if missing:
        raise _missing(source, by, wanted, missing, place, guessed=column is None)
    return Matched(source, frame, np.array([place[key] for key in keys], dtype=np.int64), by, tuple(keys))


def text_columns(frame: pd.DataFrame, path: Path) -> list[str]:
    """The columns that are called as texts are, both of a pair, else the one with the longest texts.

    Raises CorpusError where there is none.
    """
    have = {str(c).lower(): str(c) for c in frame.columns}
    for names in (*PAIRS, *((name,) for name in TEXTS)):
        if all(name in have for name in names):
            return [have[name] for name in names]
    words = {name: frame[name].astype(str).str.count(r"\S+").mean() for name in have.values() if len(frame)}
    longest = max(words, key=words.__getitem__, default=None)
    if longest is not None and words[longest] >= 2:
        return [longest]
    raise CorpusError("no column looks like the text", where=path, found=", ".join(have), hint="name it with --text")


def _require(path: Path, frame: pd.DataFrame, column: str) -> None:
    have = [str(c) for c in frame.columns]
    if column not in have:
        raise CorpusError("there is no such column", where=path, found=repr(column), hint=nearest(column, have))
    if have.count(column) > 1:
        raise CorpusError(f"the column {column!r} stands twice in the header", where=path, hint="rename one of them")


def _id_column(frame: pd.DataFrame) -> str | None:
    have = {str(c).lower(): str(c) for c in frame.columns}
    name = next((have[name] for name in ID_COLUMNS if name in have), None)
    if name is None or list(frame.columns).count(name) > 1:
        return None
    keys = [_key(value) for value in frame[name]]
    return name if None not in keys and len(set(keys)) == len(keys) else None


def _places(path: Path, column: pd.Series[Any], name: str) -> dict[str, int]:
    """The row of each id of a column; rows without an id are never matched."""
    place: dict[str, int] = {}
    for row, key in enumerate(map(_key, column)):
        if key is None:
            continue
        if key in place:
            raise DuplicateIdError(
                f"rows {place[key] + 1} and {row + 1} have the same id in column {name!r}",
                where=path,
                found=repr(key),
                expected="each id once",
                hint="remove one of them, or name another column with --id",
            )
        place[key] = row
    return place


def _key(value: Any) -> str | None:
    """An id as text (12.0 is what a table makes of 12 beside missing values); None where there is none."""
    if value is None or value != value or value == "":
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _without_split(ids: list[str]) -> list[str]:
    """Ids without the name of the split that they all begin with ("train/7" as "7")."""
    for split in SPLITS:
        if all(i.startswith(f"{split}/") for i in ids):
            return [i.removeprefix(f"{split}/") for i in ids]
    return ids


def _missing(
    path: Path, by: str, ids: list[str], missing: list[int], place: dict[str, int], *, guessed: bool
) -> AlignmentError:
    found = f"{ids[missing[0]]!r} first"
    example = next(iter(place), None)
    if len(missing) == len(ids) and example is not None:
        found = f"{ids[missing[0]]!r} in the dynamics and {example!r} in the file, for example"
    return AlignmentError(
        f"{len(missing)} of the {len(ids)} ids are not in the file ({by})",
        where=path,
        found=found,
        hint="if this is the file that was trained on, name its column of ids with --id"
        if guessed
        else "give the file that was trained on, and the column of its ids",
    )


def _copied_text(path: Path, keep: npt.NDArray[np.int64]) -> str:
    """The characters of the rows `keep` of a text file, and of its header if it has one."""
    text = path.read_bytes().decode("utf-8")
    mark, text = text[: text.startswith(_BOM)], text.removeprefix(_BOM)
    if path.suffix.lower() == ".jsonl":
        head, records = "", [line + "\n" for line in text.split("\n") if line.strip()]
    else:
        head, *records = _records(text, "\t" if path.suffix.lower() == ".tsv" else ",")
    chosen = [records[row] for row in keep]
    ends = [record for record in [head, *chosen] if record.endswith(("\n", "\r"))]
    end = "\r\n" if ends and ends[0].endswith("\r\n") else (ends[0][-1] if ends else "\n")
    # only the last record of a file may have no line end
    return mark + head + "".join(r if r.endswith(("\n", "\r")) else r + end for r in chosen)


def _records(text: str, separator: str) -> list[str]:
    """A separated text cut into its records, line ends included; a record may have several lines."""
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(iter(lines), delimiter=separator)
    out, first = [], 0
    for fields in reader:
        if fields:
            out.append("".join(lines[first : reader.line_num]))
        first = reader.line_num
    return out


def _copy_parquet(source: Path, out: Path, keep: npt.NDArray[np.int64]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    codec = pq.ParquetFile(source).metadata.row_group(0).column(0).compression.lower() if len(table) else "snappy"
    pq.write_table(table.take(pa.array(keep)), out, compression="none" if codec == "uncompressed" else codec)
