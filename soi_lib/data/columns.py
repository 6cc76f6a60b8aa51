"""Choose the columns of texts, ids and labels, and interpret their values.

Columns that the user does not name are guessed from their names, and the guesses are reported. Equal numbers are one
class, however they are written. Labels that may not be meant as classes give a caution, with the option that settles
the question.
"""

from __future__ import annotations

import ast
import json
import numbers
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

from soi_lib.data.places import DatasetSpec
from soi_lib.data.table_files import Table, some
from soi_lib.errors import CorpusError, nearest, raise_all

PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text", "text_pair"),
    ("sentence_a", "sentence_b"), ("text_a", "text_b"), ("text1", "text2"), ("q1", "q2"), ("question", "sentence"),
    ("question", "passage"),
)  # fmt: skip
TEXTS = (
    "text", "utt", "sentence", "utterance", "content", "review", "comment", "message", "tweet", "body", "v2",
    "review_text", "headline", "question", "query", "document", "description", "title",
)  # fmt: skip
LABELS = (
    "label", "gold_label", "intent", "sentiment", "airline_sentiment", "labels", "gold", "class", "category", "v1",
)  # fmt: skip
OTHER_LABELS = (
    "entailment_judgment", "is_duplicate", "target", "emotion", "polarity", "stance", "class index",
)  # fmt: skip
"""Used if no column has one of the names in LABELS or a name that ends with "label"."""
IDS = ("id", "idx", "guid", "pair_id", "pairid")
NO_LABEL = (
    "-", "--", "-1", "?", "n/a", "#n/a", "na", "<na>", "nan", "null", "none", "unlabeled", "unlabelled",
)  # fmt: skip
"""How files write "no label"; a split in which every row has one of these has hidden labels."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_SCORE = re.compile(r"[+-]?\d+([.,]\d+)?")
_INVISIBLE = "\u200b\u200e\u200f\u2060\ufeff"  # invisible characters that may surround a label
OPTIONS = {"text": "--text", "text_pair": "--text-pair", "label": "--label", "id": "--id", "group": "--group"}


@dataclass(frozen=True)
class Columns:
    """The column of each part; None if there is none (ids are then row numbers)."""

    text: str
    label: str
    text_pair: str | None = None
    id: str | None = None
    group: str | None = None

    def __str__(self) -> str:
        return ", ".join(f"{part} = {name!r}" for part, name in asdict(self).items() if name is not None)


def choose_columns(table: Table, spec: DatasetSpec) -> tuple[Columns, list[str]]:
    """Return the columns of the training rows, and how each was chosen. Raises CorpusError for unusable columns."""
    where, have = table.where, [str(name) for name in table.frame.columns]
    named = {part: name for part in OPTIONS if (name := getattr(spec, part)) is not None}
    raise_all(
        [
            CorpusError(f"there is no column {name!r}", where=where, hint=f"{nearest(name, have)} ({OPTIONS[part]})")
            for part, name in named.items()
            if name not in have
        ]
    )
    free = [name for name in have if name not in named.values()]
    texts = [] if "text" in named else text_columns(free)[: 1 if "text_pair" in named else 2]
    found = dict(zip(("text", "text_pair"), texts, strict=False)) | named
    free = [name for name in free if name not in found.values()]
    label = _first(free, LABELS) or next((name for name in free if name.lower().endswith("label")), None)
    label = label or _first(free, OTHER_LABELS)
    found = ({"label": label} if label else {}) | found
    raise_all([_missing(table, part, free) for part in ("text", "label") if part not in found])
    raise_all(
        [
            CorpusError(f"the column {name!r} appears twice", where=where, hint="rename one of them")
            for name in sorted({name for name in found.values() if have.count(name) > 1})
        ]
    )
    columns = Columns(**found)
    parts = [name for name in (columns.text, columns.text_pair, columns.label) if name is not None]
    if len(set(parts)) < len(parts):
        raise CorpusError("one column has two roles", where=where, found=str(columns), hint="name other columns")
    decisions = [
        f'{part.replace("_", " ")} column: "{found[part]}" '
        + ("(as given)" if part in named else f"(guessed; give {OPTIONS[part]} to choose)")
        for part in ("text", "text_pair", "label", "group")
        if part in found
    ]
    name = columns.id if spec.strict else columns.id or _first(have, IDS)
    problem = None if name is None else id_problem(table, name)
    if columns.id is not None and problem is not None:
        raise problem
    if name is None:
        decisions.append("ids: row numbers from 0 (give --id to choose a column)")
    elif problem is not None:
        decisions.append(f'ids: row numbers from 0, because column "{name}" cannot be used ({problem.what})')
    else:
        how = "as given" if columns.id is not None else "guessed; give --id to choose"
        decisions.append(f'id column: "{name}" ({how})')
    columns = replace(columns, id=None if problem is not None else name)
    if unused := [name for name in have if name not in asdict(columns).values()]:
        decisions.append(f"unused columns: {some(unused)}")
    return columns, decisions


def text_columns(have: Sequence[str]) -> list[str]:
    """Return the columns with the usual name of a text: both of a pair, one, or none."""
    lower = {name.lower(): name for name in reversed(have)}
    pair = next(([lower[a], lower[b]] for a, b in PAIRS if a in lower and b in lower), None)
    return pair or [name for name in (_first(have, TEXTS),) if name is not None]


def _first(have: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column with the first of these names that occurs, ignoring case."""
    lower = {name.lower(): name for name in reversed(have)}
    return next((lower[name] for name in names if name in lower), None)


def _missing(table: Table, part: str, free: Sequence[str]) -> CorpusError:
    """Return the error if no column has a usual name; it suggests the one with the longest texts or fewest labels."""
    hint = "give --separator if the file has several columns"
    if len(table.frame.columns) > 1 and (
        columns := {name: table.frame.loc[:, [name]].iloc[:, 0].astype(str) for name in free}
    ):
        if part == "text":
            best, also = longest_column(table, free), ", and --text-pair for the second text of a pair"
        else:  # few values, but at least two, and mostly filled
            counts = {name: values[~values.isin(["", "nan", "None"])] for name, values in columns.items()}
            unfit = {name: len(c) * 2 < len(columns[name]) or c.nunique() < 2 for name, c in counts.items()}
            best = min(columns, key=lambda name: (unfit[name], counts[name].nunique(), counts[name].str.len().mean()))
            also = ""
        hint = f"name it, for example {OPTIONS[part]} {json.dumps(best, ensure_ascii=False)}{also}"
        hint += "; give --no-header if the first line is already a row" if table.separator and table.header else ""
    found = some(list(table.frame.columns))
    return CorpusError(f"no column looks like the {part}", where=table.where, found=found, hint=hint)


def longest_column(table: Table, names: Sequence[str]) -> str:
    """Return the column with the longest values on average: the likeliest text."""
    return max(names, key=lambda name: table.frame.loc[:, [name]].iloc[:, 0].astype(str).str.len().mean())


def text_of(value: Any) -> Any:
    """Return a text as it is, None if missing, a number as text: 12.0 as "12", since some formats turn 12 into 12.0."""
    if value is None or value != value:
        return None
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return str(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value


def ids_of(column: Iterable[Any]) -> list[str | None]:
    """Return ids as text, as they are in the file; None where one is missing."""
    texts = [text_of(value) for value in column]
    return [None if text is None or not str(text).strip() else str(text) for text in texts]


def id_problem(table: Table, name: str, *, gaps: bool = False) -> CorpusError | None:
    """Return why a column cannot hold the ids (missing, appears twice, gaps unless `gaps`, repeated ids), or None."""
    if (n := list(table.frame.columns).count(name)) != 1:
        what = f"the column {name!r} appears twice" if n else f"there is no column {name!r}"
        return CorpusError(what, where=table.where, hint="choose another with --id")
    seen: dict[str, int] = {}
    for row, value in enumerate(ids_of(table.frame[name])):
        if value is None and gaps:
            continue
        if value is None:
            return CorpusError(f"{table.row(row)} has no id", where=table.where, hint="fill it in, or leave out --id")
        if (first := seen.setdefault(value, row)) != row:
            what, found = f"the id {value!r} is used twice", f"it in {table.row(first)} and {table.row(row)}"
            hint = "make them unique, or choose another column with --id"
            return CorpusError(what, where=table.where, found=found, expected="every id once", hint=hint)
    return None


# --- labels ----------------------------------------------------------------------------------------------------------


def label_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return label names in order: numeric if all are integers, else alphabetical."""
    words = set(names)
    return tuple(sorted(words, key=int) if all(w.lstrip("-").isdecimal() for w in words) else sorted(words))


def label_lists(values: Iterable[Any]) -> list[list[Any]]:
    """Return the labels of each row as a list of none, one or several; a list written as text is parsed."""
    out = []
    for value in values:
        if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):  # not a list after all
                value = ast.literal_eval(value)
        value = value.tolist() if hasattr(value, "tolist") else value
        out.append(list(value) if isinstance(value, list | tuple | set) else [value])
    return out


def are_nested(values: Iterable[Any], *, lists: bool) -> bool:
    """Return whether every value present is an object, or a list unless `lists` are allowed."""
    there = [v.tolist() if hasattr(v, "tolist") else v for v in values]
    there = [v for v in there if v is not None and v == v]
    return bool(there) and all(isinstance(v, dict) or (not lists and isinstance(v, list)) for v in there)


def label_texts(lists: Iterable[Sequence[Any]], names: Sequence[str] = ()) -> list[str | None]:
    """Return the first label of each row as text, None if there is none.

    `names` are the names that the file itself gives to the numbers 0, 1, ...; -1 then means "no label".
    """
    out: list[str | None] = []
    for labels in lists:
        value = text_of(labels[0]) if labels else None
        text = None if value is None else str(value).strip().strip(_INVISIBLE).strip() or None
        if names and text is not None and re.fullmatch(r"-?\d+", text):
            text = names[int(text)] if 0 <= int(text) < len(names) else None
        out.append(text)
    return out


def equal_numbers(names: Iterable[str]) -> dict[str, str]:
    """Return the name of each numeric label: one name for equal numbers (1, 1.0 and 01), and 1 for 1.0."""
    groups: dict[Decimal, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        if _NUMBER.fullmatch(name):
            groups[Decimal(name)].append(name)
    out: dict[str, str] = {}
    for number, group in groups.items():
        whole = not number % 1 and (len(group) > 1 or "." in group[0])
        out |= dict.fromkeys(group, str(int(number)) if whole else min(group, key=len))
    return out


def cautions(counts: Mapping[str, int], written: Mapping[str, str]) -> list[str]:
    """Return what may be unintended about the training labels, each with the option that settles it.

    counts: rows per label name; written: the name of each label as the file writes it, except those that the user
    named.
    """
    found = []
    settled = set[str]()
    forms, cases = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for form, name in written.items():
        forms[name if _NUMBER.fullmatch(form) else ""].append(form)
    for name, same in forms.items():
        if name and len(same := sorted(same)) > 1:
            option = f'--label-names "{same[-1]}=NAME" separates one of them'
            found.append(f'the labels {_quoted(same)} are equal numbers and form one class, "{name}"; {option}')
    for name in counts:
        cases[" ".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    for same in [same for same in cases.values() if len(same) > 1]:
        first = max(same, key=lambda name: counts[name])
        options = " ".join(f'--label-names "{name}={first}"' for name in same if name != first)
        found.append(f"the labels {_quoted(same)} differ only in case or spelling; {options} merges them")
        settled |= set(same)
    for name in [n for n in counts if n.casefold() in NO_LABEL and not set(counts) <= {"-1", "1"}]:
        out = f'--label-names "{name}=" --drop empty leaves these rows out'
        found.append(f'the label "{name}" ({counts[name]} row{"s" * (counts[name] > 1)}) often means "no label"; {out}')
        settled.add(name)
    scores = [name for name in counts if _SCORE.fullmatch(name) and Decimal(name.replace(",", ".")) % 1]
    if scores and sum(_SCORE.fullmatch(name) is not None for name in counts) * 2 > len(counts):
        options = f'choose another --label, or name groups: --label-names "{scores[0]}=low"'
        found.append(f"labels such as {_quoted(scores[:3])} look like scores, but each is a class; {options}")
    if single := [name for name, n in counts.items() if n == 1 and name not in settled]:
        out = f'--label-names "{single[0]}=" --drop empty leaves such a row out'
        found.append(f"labels that only one row has: {_quoted(single[:3])}; {out}")
    return [f"caution: {sentence}" for sentence in found]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
