"""Labels that a person has reviewed, back into their file: a corrected copy, with everything else as it was."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from soi_lib.data.columns import equal_numbers, ids_of, label_texts
from soi_lib.data.match import TrainedRows, labels_of, match, trained_rows
from soi_lib.data.table_files import Table, read_table, some
from soi_lib.errors import CorpusError, SoiError, nearest, raise_all

COLUMN = "corrected"
"""The column of a reviewed list that has the label that the reviewer decided on."""


def write_corrected(
    source: Path,
    reviewed: Path,
    dynamics: Path,
    out: str | os.PathLike[str],
    *,
    id_column: str | None = None,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Write a copy of the file `source` with the labels of a reviewed list.

    `reviewed` is a file with the columns id and `COLUMN`, as `soi label-issues --out` writes it with the last one
    added; `dynamics` is of the run that was trained on `source`. Returns how many rows were reviewed, and how many of
    these have another label now. Raises SoiError for dynamics from elsewhere, for ids and labels that are unknown, for
    rows without a corrected label, and as `match` and `Matched.copy` do.
    """
    trained = trained_rows(dynamics)
    if trained is None:
        what = "it is not known which column these dynamics have their labels from"
        raise SoiError(what, where=dynamics, expected="dynamics in a folder that soi train made")
    table = read_table(reviewed)
    have = [str(name) for name in table.frame.columns]
    raise_all(
        CorpusError(f"there is no column {name!r}", where=reviewed, found=some(have), hint=f"add a column {name}")
        for name in ("id", COLUMN)
        if name not in have
    )
    numbered = trained.reading["columns"]["id"] is None  # shown as 7, recorded as 000007
    ids = [f"{int(i):06d}" if numbered and i and i.isdecimal() else i for i in ids_of(table.frame["id"])]
    names = {name for _, name in trained.rows.values()}
    texts = label_texts([value] for value in table.frame[COLUMN])
    equal = equal_numbers([*names, *(text for text in texts if text is not None)])  # a spreadsheet writes 1.0 for 1
    labels = [equal.get(str(text), text) for text in texts]
    raise_all(_problems(table, trained, names, ids, labels))
    found = match(source, ids, id_column, trained)
    now, column = labels_of(found.table, trained), trained.reading["columns"]["label"]
    if now is None:
        raise CorpusError(f"there is no column {column!r}", where=source, hint="give the file that was trained on")
    row_with = {name: row for row, name in reversed(list(enumerate(now)))}
    if lost := sorted({str(label) for label in labels} - set(row_with)):
        raise CorpusError("no row of the file has this label", where=source, found=some(lost))
    changed = {int(row): row_with[name] for row, name in zip(found.rows, labels, strict=True) if now[row] != name}
    found.copy_with_values(out, column, changed, overwrite=overwrite)
    return len(ids), len(changed)


def _problems(
    table: Table, trained: TrainedRows, names: set[str], ids: Sequence[str | None], labels: Sequence[str | None]
) -> Iterator[CorpusError]:
    """Whatever keeps a reviewed list from being used, each kind once."""
    if not ids:
        yield CorpusError("there are no rows", where=table.where)
    if open_rows := [row for row, label in enumerate(labels) if label is None]:
        found = f"none in {some([table.row(row) for row in open_rows[:6]], len(open_rows))}"
        hint = "fill them (with the given label where it is right), or delete the rows"
        yield CorpusError(f"not every row has a {COLUMN} label", where=table.where, found=found, hint=hint)
    if unknown := [str(shown) for shown, key in zip(table.frame["id"], ids, strict=True) if key not in trained.rows]:
        hint = "give the list that soi label-issues made of this run"
        yield CorpusError("ids were not trained on", where=table.where, found=some(unknown), hint=hint)
    if repeated := [str(key) for key, n in Counter(ids).items() if n > 1]:
        yield CorpusError("ids appear twice", where=table.where, found=some(repeated), expected="every id once")
    if other := sorted({label for label in labels if label is not None} - names):
        yield CorpusError(
            "labels are not among the classes", where=table.where, found=some(other), hint=nearest(other[0], names)
        )
