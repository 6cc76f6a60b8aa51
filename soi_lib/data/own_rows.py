"""Rows of one's own, one split after another: read out of their columns, checked, held out, kept apart.

What is special: rows are numbered from 1 as they stand in their file, through every step, so that whatever is refused
is named by its row; and what is left out or held out adds a sentence to `said`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soi_lib.data.dataset import SPLITS, normalise
from soi_lib.data.places import Drop, Table
from soi_lib.data.splits import assign, hashed
from soi_lib.data.table_files import Columns
from soi_lib.errors import CorpusError

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = 0.2
"""The share of the rows that is held out for testing where no test rows are given."""
FEWEST = 10
"""Fewer training rows than this are refused."""
PARTS = ("text", "text_pair", "label")


def label_order(names: Iterable[Any]) -> tuple[str, ...]:
    """Label names in order: as numbers when all are whole numbers, else by the alphabet."""
    words = [str(name) for name in names]
    return tuple(sorted(words, key=int) if all(w.lstrip("-").isdecimal() for w in words) else sorted(words))


def shown(value: Any) -> str:
    """A value of a file in a message: quoted, and not endless."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def plain(value: Any) -> Any:
    """12.0 as 12: what a table makes of whole numbers beside missing ones."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def require(table: Table, columns: Columns, split: str) -> None:
    """Raise CorpusError when a split lacks a column that training has, or has it twice."""
    for name in (columns.text, columns.text_pair, columns.label):
        have = [str(c) for c in table.frame.columns]
        if name is not None and name not in have:
            raise CorpusError(
                f"the {split} rows lack a column that the training rows have",
                where=table.where,
                found=", ".join(have) or "no column",
                expected=repr(name),
                hint="rename it there",
            )
        if name is not None and have.count(name) > 1:
            raise CorpusError(f"the column {name!r} stands twice in the header", where=table.where, hint="rename one")


def rows_of(table: Table, columns: Columns, split: str) -> pd.DataFrame:
    """Columns id, text, [text_pair], label as they stand (label as text, None where there is none), row from 1."""
    import pandas as pd

    require(table, columns, split)
    frame = table.frame
    numbers = [f"{i:06d}" for i in range(len(frame))]
    ids = numbers if columns.id is None else [str(plain(v)) for v in frame[columns.id]]
    parts: dict[str, Any] = {"id": ids, "text": frame[columns.text].astype(object).tolist()}
    if columns.text_pair is not None:
        parts["text_pair"] = frame[columns.text_pair].astype(object).tolist()
    names = table.names.get(columns.label, [])
    parts["label"] = [_label(v, names) for v in frame[columns.label].astype(object)]
    return pd.DataFrame(parts, dtype=object).assign(row=range(1, len(frame) + 1))


def _label(value: Any, names: list[str]) -> str | None:
    value = plain(value)
    if value is None or value != value:
        return None
    text = str(value).strip()
    return names[int(text)] if names and text.isdecimal() and int(text) < len(names) else text or None


def whole(rows: pd.DataFrame, where: str, columns: Columns, drop: tuple[Drop, ...], said: list[str]) -> pd.DataFrame:
    """Rows that have texts and a label, with a `key` for repetitions; refuses the first other one unless dropped."""
    bad = rows["row"] < 0
    for part in [p for p in PARTS if p in rows]:
        empty = ~rows[part].map(lambda value: isinstance(value, str) and bool(value.strip()))
        if empty.any() and "empty" not in drop:
            first = rows[empty].iloc[0]
            raise CorpusError(
                f"row {first['row']} has no {part.replace('_', ' ')}",
                where=where,
                found=f"{shown(first[part])} in column {getattr(columns, part)!r}, {int(empty.sum())} such rows",
                expected="a text" if part != "label" else "a label",
                hint="fill or remove them, or leave them out with --drop empty",
            )
        bad |= empty
    if bad.all():
        raise CorpusError("no row has both text and label", where=where, found=f"{len(rows)} rows without")
    if bad.any():
        said.append(f"left out: {int(bad.sum())} rows of {Path(where).name} without text or label")
    rows = rows[~bad].copy()
    for part in [p for p in PARTS if p in rows]:
        for row, text in zip(rows["row"], rows[part], strict=True):
            try:
                text.isascii() or text.encode("utf-8")
            except UnicodeEncodeError as error:
                found = f"half a character ({text[error.start]!r}) at {error.start}"
                raise CorpusError(f"row {row} is not valid Unicode", where=where, found=found) from None
    other = rows["text_pair"] if "text_pair" in rows else [""] * len(rows)
    rows["key"] = [f"{normalise(a)}\t{normalise(b)}" for a, b in zip(rows["text"], other, strict=True)]
    return rows


def check_labels(rows: pd.DataFrame, where: str, columns: Columns) -> None:
    """Refuse what nobody can train on: hardly any rows, one class, a label of its own for every row."""
    classes = rows["label"].nunique()
    if len(rows) < FEWEST:
        raise CorpusError(
            "there are too few rows to train on", where=where, found=len(rows), expected=f"at least {FEWEST}"
        )
    if classes < 2:
        raise CorpusError(
            "all rows have the same label",
            where=where,
            found=f"{shown(rows['label'].iloc[0])} in column {columns.label!r}",
            expected="at least two classes",
            hint="choose the label column with --label",
        )
    if classes * 2 > len(rows):
        raise CorpusError(
            f"column {columns.label!r} has nearly as many values as rows, so it is hardly a label",
            where=where,
            found=f"{classes} values in {len(rows)} rows",
            expected="two rows a label or more",
            hint="choose the label column with --label",
        )


def hold_out(rows: dict[str, pd.DataFrame], where: str, said: list[str]) -> dict[str, pd.DataFrame]:
    """Training rows divided into train and test by the hash of their text; equal texts stay together."""
    train = rows["train"]
    codes = train["label"].map({name: i for i, name in enumerate(label_order(train["label"].unique()))})
    groups = train["key"].map(lambda key: hashed(key, "held out"))
    home = assign(groups.to_numpy(), codes.to_numpy(), {"train": 1 - HELD_OUT, "test": HELD_OUT}, "held out")
    parts = {split: train[home == split] for split in ("train", "test")}
    held = len(parts["test"])
    said.append(
        f"no --test: {held} of {len(train)} rows ({held / len(train):.0%}) are held out for testing, evenly over the "
        f"labels by a hash of the text: the same rows every time"
    )
    return rows | parts


def known_labels(
    rows: pd.DataFrame,
    split: str,
    labels: tuple[str, ...],
    found: Mapping[str, Table],
    drop: tuple[Drop, ...],
    said: list[str],
) -> pd.DataFrame:
    """Rows whose label training has; the first other one is refused unless dropped."""
    known = rows["label"].isin(labels)
    if known.all():
        return rows
    where = found[split].where if split in found else found["train"].where
    first = rows[~known].iloc[0]
    if "unknown-labels" not in drop or not known.any():
        raise CorpusError(
            f"row {first['row']} has a label that the training rows have not",
            where=where,
            found=f"{shown(first['label'])}, {int((~known).sum())} such rows",
            expected=", ".join(map(shown, labels[:8])) + (" ..." if len(labels) > 8 else ""),
            hint="correct them, or leave them out with --drop unknown-labels",
        )
    said.append(f"left out: {int((~known).sum())} rows of {Path(where).name} with labels that training has not")
    return rows[known]


def note_repeated(train: pd.DataFrame, said: list[str]) -> None:
    """Say how many training texts occur more than once, and with different labels."""
    labels = train.groupby("key")["label"].agg(["size", "nunique"])
    many, apart = int((labels["size"] > 1).sum()), int((labels["nunique"] > 1).sum())
    if many:
        also = f", {apart} of them with different labels" if apart else ""
        said.append(f"note: {many} training texts occur more than once{also}")


def apart(
    rows: dict[str, pd.DataFrame], found: Mapping[str, Table], drop: tuple[Drop, ...], said: list[str]
) -> dict[str, pd.DataFrame]:
    """No text in two splits: refused, or kept in the earlier one only."""
    seen: dict[str, str] = {}
    out = {}
    for split in [s for s in SPLITS if s in rows]:
        known = rows[split]["key"].map(seen)
        late = known.notna()
        if late.any():
            where = found[split].where if split in found else found["train"].where
            first = rows[split][late].iloc[0]
            if "duplicates" not in drop or late.all():
                raise CorpusError(
                    f"the text of row {first['row']} stands among the {known[late].iloc[0]} rows too",
                    where=where,
                    found=f"{int(late.sum())} such rows of {len(late)}",
                    expected="no text in two splits",
                    hint="remove them, or leave them out here with --drop duplicates",
                )
            said.append(f"left out: {int(late.sum())} rows of {Path(where).name} whose text stands in an earlier split")
        out[split] = rows[split][~late]
        seen |= dict.fromkeys(out[split]["key"], split)
    return out
