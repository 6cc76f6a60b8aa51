"""Rows of one's own, from where they are kept to checked splits, with every guess and every choice said in words.

What is special: a person gives a file, a folder or a data set of the hub and hardly anything else. What was guessed
(columns, ids), chosen (the rows held out for testing) or left out stands as a sentence in `OwnMember.said`, for the
command to print before anything is trained; what cannot be right is refused with its file and row. Nothing is written
here but what the hub's library keeps in its own cache.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from soi_lib.data.dataset import SPLITS, Card, Corpus, Split, make
from soi_lib.data.own_rows import (
    PARTS,
    apart,
    check_labels,
    hold_out,
    known_labels,
    label_order,
    note_repeated,
    plain,
    rows_of,
    whole,
)
from soi_lib.data.places import Drop, Place, Source, Table, tables, unreachable
from soi_lib.data.splits import hashed
from soi_lib.data.table_files import ID_COLUMNS, SUFFIXES, Columns, find, guess, read
from soi_lib.errors import CorpusError, SoiError

if TYPE_CHECKING:
    import pandas as pd

_HUB = re.compile(r"[\w.-]+/[\w.-]+(@\w+)?")


@dataclass(frozen=True)
class Given:
    """A member as a person describes it: where its rows are, and the columns (None: to be guessed).

    `train` is a file (CSV, TSV, JSONL, Parquet), a folder with a file a split, or a data set of the hub
    (`owner/name`, or `owner/name@commit`); `test` and `ood` are files. `drop` as in `soi_lib.data.sources.Source`.
    """

    name: str
    train: str
    test: str | None = None
    ood: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    id: str | None = None
    drop: tuple[Drop, ...] = ()


@dataclass(frozen=True)
class OwnMember:
    """A member that was read: its corpus, its rows (columns id, text, [text_pair], label) by split, what was decided.

    `origin` says where the rows come from, with the commit for a data set of the hub.
    """

    name: str
    corpus: Corpus
    rows: dict[str, pd.DataFrame]
    columns: Columns
    said: tuple[str, ...]
    origin: str


def read_own(given: Given, *, known_commit: str | None = None) -> OwnMember:
    """Read and check a member. Raises CorpusError naming the file, the row, and the option that helps.

    `known_commit` is taken for a data set of the hub that is given without a commit.
    """
    found, origin = _tables(given, known_commit)
    said: list[str] = []
    for table in found.values():
        if not len(table.frame):
            raise CorpusError(
                "there are no rows",
                where=table.where,
                found="a header only" if len(table.frame.columns) else "an empty file",
                expected="a header and rows, or a JSON object a line",
            )
    columns = _columns(given, found["train"], said)
    ids = _id_column(given, found, said)
    columns = Columns(columns.text, columns.label, columns.text_pair, ids)
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
        said.append(f"no test rows: those of {Path(found['test'].where).name} are the test split")
    rows = {}
    for split, table in found.items():
        rows[split] = whole(rows_of(table, columns, split), table.where, columns, given.drop, said)
    check_labels(rows["train"], found["train"].where, columns)
    if "test" not in rows:
        rows = hold_out(rows, found["train"].where, said)
    labels = label_order(rows["train"]["label"].unique())
    for split in list(rows):
        rows[split] = known_labels(rows[split], split, labels, found, given.drop, said)
    note_repeated(rows["train"], said)
    rows = apart(rows, found, given.drop, said)
    corpus = _corpus(given, rows, labels, columns, origin)
    kept = {split: part.drop(columns=["row", "key"]).reset_index(drop=True) for split, part in rows.items()}
    return OwnMember(given.name, corpus, kept, columns, tuple(said), origin)


def pinned(hub: str, kind: Literal["dataset", "model"], error: type[SoiError]) -> str:
    """The newest commit of a repository of the hub, in full. Asks the hub; raises `error` when that fails."""
    try:
        from huggingface_hub import HfApi

        return str(HfApi().repo_info(hub, repo_type=kind).sha)
    except Exception as failure:  # the library lets through whatever its own libraries raise
        place = Place.model_construct(hub=hub, revision="its newest commit")
        raise unreachable(place, failure, error) from failure


def hub_name(text: str) -> tuple[str, str | None] | None:
    """(name, commit or None) when `text` reads as `owner/name` or `owner/name@commit` and not as a path; else None."""
    path = Path(text).expanduser()
    if not _HUB.fullmatch(text) or path.exists() or path.suffix.lower() in (*SUFFIXES, ".txt", ".json", ".xlsx"):
        return None
    hub, _, commit = text.partition("@")
    return None if hub.startswith(".") or path.parent.is_dir() else (hub, commit or None)


# --- where the rows are ---------------------------------------------------------------------------------------------


def _tables(given: Given, known_commit: str | None) -> tuple[dict[str, Table], str]:
    """The rows of each split as they stand, and a description of where they come from."""
    path = Path(given.train).expanduser()
    hub = hub_name(given.train)
    if hub is not None:
        name, commit = hub
        commit = commit or known_commit or pinned(name, "dataset", CorpusError)
        if not re.fullmatch(r"[0-9a-f]{7,40}", commit):
            raise CorpusError("a commit has 7 to 40 hex digits", where=given.train, found=repr(commit))
        source = Source(hub=name, revision=commit, splits={"test": ("test", "validation", "valid", "val", "dev")})
        found, origin = tables(given.name, source), f"{name}@{commit}"
        if found.get("validation") is not None and found["validation"].where == found["test"].where:
            del found["validation"]
    elif path.is_dir():
        found, origin = _folder(given.name, path), path.name
    else:
        found, origin = {"train": _file(path)}, path.name
    for split, file in (("test", given.test), ("ood", given.ood)):
        if file is not None:
            found[split] = _file(Path(file).expanduser())
            origin += f", {split} {Path(file).name}"
    return {split: found[split] for split in SPLITS if split in found}, origin


def _file(path: Path) -> Table:
    if path.is_dir():
        raise CorpusError(
            "a directory stands where a file is expected",
            where=path,
            expected=" or ".join(SUFFIXES),
            hint="give the file itself",
        )
    return Table(read(path), str(path), {})


def _folder(name: str, folder: Path) -> dict[str, Table]:
    if (folder / "dataset_dict.json").is_file():
        return tables(name, Source(path=str(folder)))
    return {split: _file(path) for split, path in find(folder).items()}


# --- which columns --------------------------------------------------------------------------------------------------


def _columns(given: Given, table: Table, said: list[str]) -> Columns:
    """Text, pair and label of the training rows; what was not named is guessed and said."""
    named = {part: getattr(given, part) for part in PARTS}
    found = guess(table.frame, Path(table.where), named)
    chosen = [name for name in (found.text, found.text_pair, found.label) if name is not None]
    if len(set(chosen)) < len(chosen):
        raise CorpusError("one column cannot be two things", where=table.where, found=str(found), hint="name others")
    for part, option in (("text", "--text"), ("text_pair", "--text-pair"), ("label", "--label")):
        column = getattr(found, part)
        if column is not None:
            how = "as given" if named[part] is not None else f"guessed; give {option} to choose"
            said.append(f'{part.replace("_", " ")} column: "{column}" ({how})')
    return found


def _id_column(given: Given, found: Mapping[str, Table], said: list[str]) -> str | None:
    """The column of ids: as named, or one that is called so and can serve; else row numbers."""
    if given.id is not None:
        for table in found.values():
            if given.id not in table.frame.columns:
                have = ", ".join(map(str, table.frame.columns))
                raise CorpusError("there is no column for 'id'", where=table.where, found=have, expected=repr(given.id))
            if (trouble := _unfit(table, given.id)) is not None:
                raise trouble
        said.append(f'id column: "{given.id}" (as given)')
        return given.id
    lowered = {str(c).lower(): str(c) for c in found["train"].frame.columns}
    for name in [lowered[n] for n in ID_COLUMNS if n in lowered]:
        trouble = next((t for f in found.values() if (t := _unfit(f, name)) is not None), None)
        if trouble is None:
            said.append(f'id column: "{name}" (guessed; give --id to choose)')
            return name
        said.append(f'ids: row numbers from 0, as column "{name}" cannot serve ({trouble.what})')
        return None
    said.append("ids: row numbers from 0 (give --id to choose a column)")
    return None


def _unfit(table: Table, name: str) -> CorpusError | None:
    """What is wrong with a column as ids: not there, a gap, several types, a repetition."""
    if name not in table.frame.columns:
        return CorpusError("it is not in every file", where=table.where)
    if list(table.frame.columns).count(name) > 1:
        return CorpusError(f"the column {name!r} stands twice in the header", where=table.where, hint="rename one")
    values = [plain(v) for v in table.frame[name]]
    first: dict[str, int] = {}
    seen: dict[Any, int] = {}
    for row, value in enumerate(values, start=1):
        kind = "text" if isinstance(value, str) else "whole number" if _whole(value) else type(value).__name__
        if value is None or value != value or (kind == "text" and not value.strip()):
            return CorpusError(f"row {row} has no id", where=table.where, hint="fill it, or leave out --id")
        first.setdefault(kind, row)
        if len(first) > 1 or kind not in ("text", "whole number"):
            kinds = " and ".join(f"{kind} in row {row}" for kind, row in first.items())
            return CorpusError(
                f"the ids in column {name!r} are of several types",
                where=table.where,
                found=kinds,
                expected="all text or all whole numbers",
                hint="make them one type, or leave out --id",
            )
        if seen.setdefault(value, row) != row:
            return CorpusError(
                f"the id {value!r} is used twice",
                where=table.where,
                found=f"it in rows {seen[value]} and {row}",
                expected="every id once",
                hint="make them unique, or leave out --id",
            )
    return None


def _whole(value: Any) -> bool:
    import numbers

    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _corpus(
    given: Given, rows: dict[str, pd.DataFrame], labels: tuple[str, ...], columns: Columns, origin: str
) -> Corpus:
    codes = {label: i for i, label in enumerate(labels)}
    splits = {}
    for split, frame in rows.items():
        group = [hashed(key, "file")[:16] for key in frame["key"]]  # as `corpora.hub` has it
        named = frame.assign(id=split + "/" + frame["id"], label=frame["label"].map(codes), group=group)
        splits[split] = Split.from_frame(named)
    card = Card(
        title=given.name,
        question=f"Which label does {columns.label!r} have?",
        origin=origin,
        licence="as the owner says",
        language="as the owner says",
        construction=f"columns {columns}",
        group_by="the text",
        ood="as given" if "ood" in splits else "none",
    )
    return make(given.name, "user", labels, splits, card)
