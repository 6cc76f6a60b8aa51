"""Which column is the text, the second text, the label, the id: as named, or guessed by its name and said."""

from __future__ import annotations

import json
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from soi_lib.data.places import DatasetSpec
from soi_lib.data.table_files import Table, some
from soi_lib.errors import CorpusError, nearest, raise_all

if TYPE_CHECKING:
    import pandas as pd

PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text", "text_pair"),
    ("sentence_a", "sentence_b"), ("text_a", "text_b"), ("text1", "text2"), ("q1", "q2"),
)  # fmt: skip
TEXTS = ("text", "utt", "sentence", "utterance", "content", "review", "comment", "message", "tweet", "body", "v2")
LABELS = (
    "label",
    "gold_label",
    "intent",
    "sentiment",
    "airline_sentiment",
    "labels",
    "gold",
    "class",
    "category",
    "v1",
)
IDS = ("id", "idx", "guid", "pair_id", "pairid")
OPTIONS = {"text": "--text", "text_pair": "--text-pair", "label": "--label", "id": "--id", "group": "--group"}


@dataclass(frozen=True)
class Columns:
    """The column of each part; None where there is none (ids are row numbers then)."""

    text: str
    label: str
    text_pair: str | None = None
    id: str | None = None
    group: str | None = None

    def __str__(self) -> str:
        return ", ".join(f"{part} = {name!r}" for part, name in asdict(self).items() if name is not None)


def choose_columns(table: Table, spec: DatasetSpec) -> tuple[Columns, list[str]]:
    """The columns of the training rows, and how each was found. Raises CorpusError for all that cannot serve."""
    where, have = table.where, [str(name) for name in table.frame.columns]
    named = {part: name for part in OPTIONS if (name := getattr(spec, part)) is not None}
    raise_all(
        CorpusError(f"there is no column {name!r}", where=where, hint=f"{nearest(name, have)} ({OPTIONS[part]})")
        for part, name in named.items()
        if name not in have
    )
    free = [name for name in have if name not in named.values()]
    texts = [] if "text" in named else text_columns(free)[: 1 if "text_pair" in named else 2]
    found = dict(zip(("text", "text_pair"), texts, strict=False)) | named
    free = [name for name in free if name not in found.values()]
    label = _first(free, LABELS) or next((name for name in free if name.lower().endswith("label")), None)
    found = ({"label": label} if label else {}) | found
    raise_all(_missing(table, part, free) for part in ("text", "label") if part not in found)
    raise_all(
        CorpusError(f"the column {name!r} appears twice", where=where, hint="rename one of them")
        for name in sorted({name for name in found.values() if have.count(name) > 1})
    )
    columns = Columns(**found)
    parts = [name for name in (columns.text, columns.text_pair, columns.label) if name is not None]
    if len(set(parts)) < len(parts):
        raise CorpusError("one column cannot be two things", where=where, found=str(columns), hint="name others")
    said = [
        f'{part.replace("_", " ")} column: "{found[part]}" '
        + ("(as given)" if part in named else f"(guessed; give {OPTIONS[part]} to choose)")
        for part in ("text", "text_pair", "label", "group")
        if part in found
    ]
    name = columns.id if spec.strict else columns.id or _first(have, IDS)
    trouble = None if name is None else id_trouble(table, name)
    if columns.id is not None and trouble is not None:
        raise trouble
    how = "as given" if columns.id is not None else "guessed; give --id to choose"
    if name is None:
        said.append("ids: row numbers from 0 (give --id to choose a column)")
    elif trouble is not None:
        said.append(f'ids: row numbers from 0, as column "{name}" cannot serve ({trouble.what})')
    else:
        said.append(f'id column: "{name}" ({how})')
    return replace(columns, id=None if trouble is not None else name), said


def text_columns(have: Iterable[str]) -> list[str]:
    """The columns that are called as texts are: both of a pair, one, or none."""
    lower = {name.lower(): name for name in reversed(list(have))}
    pair = next(([lower[a], lower[b]] for a, b in PAIRS if a in lower and b in lower), None)
    return pair or [lower[name] for name in TEXTS if name in lower][:1]


def _first(have: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(have)}
    return next((lower[name] for name in names if name in lower), None)


def _missing(table: Table, part: str, free: Sequence[str]) -> CorpusError:
    """That no column looks like the text or the label, and which may be it: the longest, or that of fewest values."""
    hint = "give --separator if the file has several columns"
    if columns := {name: table.frame.loc[:, [name]].iloc[:, 0].astype(str) for name in free}:
        length = {name: values.str.len().mean() * (1 if part == "text" else -1) for name, values in columns.items()}
        best = max(columns, key=lambda name: (0 if part == "text" else -columns[name].nunique(), length[name]))
        hint = f"name it, such as {OPTIONS[part]} {json.dumps(best, ensure_ascii=False)}"
        hint += "; give --no-header if the first line is a row already" if table.spans and table.spans[0][0] else ""
    found = some(list(table.frame.columns))
    return CorpusError(f"no column looks like the {part}", where=table.where, found=found, hint=hint)


def plain(value: Any) -> Any:
    """12.0 as 12: what a table makes of whole numbers beside missing ones."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def text_of(value: Any) -> Any:
    """A text as it is; a number as a table of text has it; None where there is none."""
    value = plain(value)
    if value is None or value != value:
        return None
    return str(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value


def ids_of(column: pd.Series[Any]) -> list[str | None]:
    """Ids as text, as they are in the file; None where there is none."""
    values = [plain(value) for value in column]
    return [None if v is None or v != v or not str(v).strip() else str(v) for v in values]


def id_trouble(table: Table, name: str, *, gaps: bool = False) -> CorpusError | None:
    """Why a column cannot hold the ids: it is not there once, has gaps (unless these may be), or has a value twice."""
    if (n := list(table.frame.columns).count(name)) != 1:
        what = f"the column {name!r} appears twice" if n else f"there is no column {name!r}"
        return CorpusError(what, where=table.where, hint="choose another with --id")
    seen: dict[str, int] = {}
    for row, value in enumerate(ids_of(table.frame[name])):
        if value is None and gaps:
            continue
        if value is None:
            return CorpusError(f"{table.row(row)} has no id", where=table.where, hint="fill it, or leave out --id")
        if (first := seen.setdefault(value, row)) != row:
            what, found = f"the id {value!r} is used twice", f"it in {table.row(first)} and {table.row(row)}"
            hint = "make them unique, or leave out --id"
            return CorpusError(what, where=table.where, found=found, expected="every id once", hint=hint)
    return None
