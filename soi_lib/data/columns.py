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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from soi_lib.data.places import DatasetSpec
from soi_lib.data.table_files import Table, some
from soi_lib.errors import CorpusError, raise_all

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
"""The parts of a row that are read from a column, and the option that names it."""


def choose_columns(table: Table, spec: DatasetSpec) -> tuple[dict[str, str], list[str]]:
    """Return the columns of the training rows by part, and how each was chosen; without `id`, ids are row numbers.

    Raises CorpusError for unusable columns.
    """
    have = [str(name) for name in table.frame.columns]
    named = {part: name for part in OPTIONS if (name := getattr(spec, part)) is not None}
    table.check_columns({name: OPTIONS[part] for part, name in named.items()})
    free = [name for name in have if name not in named.values()]
    texts = [] if "text" in named else text_columns(free)[: 1 if "text_pair" in named else 2]
    found = dict(zip(("text", "text_pair"), texts, strict=False)) | named
    free = [name for name in free if name not in found.values()]
    label = first_of(free, LABELS) or next((name for name in free if name.lower().endswith("label")), None)
    if label := label or first_of(free, OTHER_LABELS):
        found = {"label": label} | found
    raise_all([_missing(table, part, free) for part in ("text", "label") if part not in found])
    table.check_columns({name: OPTIONS[part] for part, name in found.items()})
    roles = [part for part in ("text", "text_pair", "label") if part in found]
    if len({found[part] for part in roles}) < len(roles):
        columns = ", ".join(f"{OPTIONS[part]} {found[part]}" for part in roles)
        raise CorpusError("one column has two roles", where=table.where, found=columns, expected="different columns")
    numbers = "ids: row numbers from 0 (give --id to choose a column)"
    if name := spec.id or (None if spec.strict else first_of(have, IDS)):
        try:
            ids_of(table, name)
            found["id"] = name
        except CorpusError as problem:
            if spec.id:
                raise
            numbers = f'ids: row numbers from 0, because column "{name}" cannot be used ({problem.what})'
    decisions = [
        f'{part.replace("_", " ")} column: "{found[part]}" '
        + ("(as given)" if part in named else f"(guessed; give {OPTIONS[part]} to choose)")
        for part in ("text", "text_pair", "label", "group", "id")
        if part in found
    ]
    decisions += [] if "id" in found else [numbers]
    if unused := [name for name in have if name not in found.values()]:
        decisions.append(f"unused columns: {some(unused)}")
    return {part: found[part] for part in OPTIONS if part in found}, decisions


def text_columns(have: Sequence[str]) -> list[str]:
    """Return the columns with the usual name of a text: both of a pair, one, or none."""
    lower = {name.lower(): name for name in reversed(have)}
    pair = next(([lower[a], lower[b]] for a, b in PAIRS if a in lower and b in lower), None)
    return pair or [lower[name] for name in TEXTS if name in lower][:1]


def first_of(have: Sequence[str], names: Sequence[str]) -> str | None:
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


def ids_of(table: Table, name: str, *, gaps: bool = False) -> list[str | None]:
    """Return the ids in a column as text, as they are in the file; with `gaps`, None where one is missing.

    Raises CorpusError if the column is missing or appears twice, or if an id is missing or used twice.
    """
    table.check_columns({name: "--id"})
    ids: dict[str, int] = {}
    found = []
    for row, value in enumerate(table.frame[name]):
        text = text_of(value)
        key = None if text is None or not str(text).strip() else str(text)
        if key is None and not gaps:
            raise CorpusError(f"{table.row(row)} has no id", where=table.where, hint="fill it in, or leave out --id")
        if key is not None and (first := ids.setdefault(key, row)) != row:
            what, twice = f"the id {key!r} is used twice", f"it in {table.row(first)} and {table.row(row)}"
            hint = "make them unique, or choose another column with --id"
            raise CorpusError(what, where=table.where, found=twice, expected="every id once", hint=hint)
        found.append(key)
    return found


def texts_of(table: Table, name: str) -> list[Any]:
    """Return the texts in a column, None if missing. Raises CorpusError if all of them are lists or objects."""
    return _plain(table, name, table.frame[name])


def labels_of(table: Table, name: str) -> list[str | None]:
    """Return the labels in a column as text, None if missing. A label may be in a list, also one written as text.

    Numbers that the file itself names are replaced by their names; other numbers, such as -1, then mean "no label".
    Raises CorpusError if a row has several labels, or if all of them are objects.
    """
    labels: list[Any] = []
    name_of = dict(enumerate(table.names.get(name, ())))
    for row, value in enumerate(table.frame[name].map(name_of.get) if name_of else table.frame[name]):
        if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):  # not a list after all
                value = ast.literal_eval(value)
        value = value.tolist() if hasattr(value, "tolist") else value
        every = list(value) if isinstance(value, list | tuple | set) else [value]
        if len(every) > 1:
            what, found = f"column {name!r} has several labels per row", f"{every} in {table.row(row)}"
            hint = "give another --label"
            raise CorpusError(what, where=table.where, found=found, expected="one label per row", hint=hint)
        labels += every or [None]
    texts = [None if text is None else str(text).strip() for text in _plain(table, name, labels)]
    return [None if text is None else text.strip(_INVISIBLE).strip() or None for text in texts]


def _plain(table: Table, name: str, cells: Iterable[Any]) -> list[Any]:
    """Return the values of a column, numbers as text. Raises CorpusError if all of them are lists or objects."""
    values = [value.tolist() if hasattr(value, "tolist") else value for value in cells]
    there = [value for value in values if value is not None and value == value]
    if there and all(isinstance(value, dict | list) for value in there):
        what, found = f"column {name!r} does not hold plain values", f"{str(values[0])[:60]} in {table.row(0)}"
        hint = "save one text or label per row, or choose another column"
        raise CorpusError(what, where=table.where, found=found, hint=hint)
    return [text_of(value) for value in values]


READERS = {"id": ids_of, "text": texts_of, "text_pair": texts_of, "label": labels_of, "group": texts_of}
"""How the values of each part are read."""


# --- labels ----------------------------------------------------------------------------------------------------------


def label_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return label names in order: numeric if all are integers, else alphabetical."""
    words = set(names)
    return tuple(sorted(words, key=int) if all(w.lstrip("-").isdecimal() for w in words) else sorted(words))


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


def cautions(counts: Mapping[str, int], written: Mapping[str, str]) -> Iterator[str]:
    """Yield what may be unintended about the training labels, each with the option that settles it.

    counts: rows per label name; written: the name of each label as the file writes it, except those that the user
    named.
    """
    settled = set[str]()
    forms, cases = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for form, name in written.items():
        forms[name if _NUMBER.fullmatch(form) else ""].append(form)
    for name, same in forms.items():
        if name and len(same := sorted(same)) > 1:
            option = f'--label-names "{same[-1]}=NAME" separates one of them'
            yield f'the labels {_quoted(same)} are equal numbers and form one class, "{name}"; {option}'
    for name in counts:
        cases[" ".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    for same in [same for same in cases.values() if len(same) > 1]:
        first = max(same, key=lambda name: counts[name])
        options = " ".join(f'--label-names "{name}={first}"' for name in same if name != first)
        yield f"the labels {_quoted(same)} differ only in case or spelling; {options} merges them"
        settled |= set(same)
    for name in [n for n in counts if n.casefold() in NO_LABEL and not set(counts) <= {"-1", "1"}]:
        out = f'--label-names "{name}=" --drop empty leaves these rows out'
        yield f'the label "{name}" ({counts[name]} row{"s" * (counts[name] > 1)}) often means "no label"; {out}'
        settled.add(name)
    scores = [name for name in counts if _SCORE.fullmatch(name) and Decimal(name.replace(",", ".")) % 1]
    if scores and sum(_SCORE.fullmatch(name) is not None for name in counts) * 2 > len(counts):
        options = f'choose another --label, or name groups: --label-names "{scores[0]}=low"'
        yield f"labels such as {_quoted(scores[:3])} look like scores, but each is a class; {options}"
    if single := [name for name, n in counts.items() if n == 1 and name not in settled]:
        out = f'--label-names "{single[0]}=" --drop empty leaves such a row out'
        yield f"labels that only one row has: {_quoted(single[:3])}; {out}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
