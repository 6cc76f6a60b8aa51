"""Labels as names: what a value of a label column is called, in which order, and what makes one look wrong.

What is special: numbers that are equal are one class however they are written, and whatever a person may not have
meant as a class is a caution with the option that settles it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from soi_lib.data.columns import plain

NO_LABEL = ("-", "-1", "?", "n/a", "nan", "null")
"""How files say "no label"; a split in which every row has one of them has hidden labels."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def label_order(names: Iterable[str]) -> tuple[str, ...]:
    """Label names in order: as numbers when all are whole numbers, else by the alphabet."""
    words = set(names)
    return tuple(sorted(words, key=int) if all(w.lstrip("-").isdecimal() for w in words) else sorted(words))


def label_lists(values: Sequence[Any]) -> list[list[Any]]:
    """The labels of each row as a list, also where it is written as text: one, none, or several."""
    out = []
    for value in values:
        if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):  # a label that is written so
                value = ast.literal_eval(value)
        out.append(list(value) if hasattr(value, "__len__") and not isinstance(value, str | bytes) else [value])
    return out


def label_text(value: Any, names: Sequence[str] = ()) -> str | None:
    """A label as text, by the name that the file gives to its number; None where there is none."""
    value = plain(value)
    text = "" if value is None or value != value else str(value).strip()
    if names and re.fullmatch(r"-?\d+", text):
        return names[int(text)] if 0 <= int(text) < len(names) else None  # -1: how `datasets` says "no label"
    return text or None


def equal_numbers(names: Iterable[str]) -> dict[str, str]:
    """The name of each label that is a number: one for all that are equal (1, 1.0 and 01), and 1 for 1.0."""
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
    """What about the training labels may not be meant so, each with the option that settles it.

    counts: rows of each label name; written: the name of each label that has none from the user, as the file has it.
    """
    found = []
    forms, cases = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for form, name in written.items():
        forms[name if _NUMBER.fullmatch(form) else ""].append(form)
    for name, same in forms.items():
        if name and len(same := sorted(same)) > 1:
            one = f'are equal numbers, so they are one class, "{name}"; --label-names "{same[-1]}=NAME" keeps one apart'
            found.append(f"the labels {_quoted(same)} {one}")
    for name in counts:
        cases[" ".join(name.casefold().split())].append(name)
    for same in [same for same in cases.values() if len(same) > 1]:
        first = max(same, key=lambda name: counts[name])
        options = " ".join(f'--label-names "{name}={first}"' for name in same if name != first)
        found.append(f"the labels {_quoted(same)} differ in case only; {options} makes them one")
    for name in [n for n in counts if n.casefold() in NO_LABEL and not set(counts) <= {"-1", "1"}]:
        out = f'--label-names "{name}=" --drop empty leaves these rows out'
        found.append(f'the label "{name}" of {counts[name]} rows often means "no label"; {out}')
    scores = [name for name in counts if _NUMBER.fullmatch(name) and Decimal(name) % 1]
    if len(scores) * 2 > len(counts):
        options = f'give another --label, or names: --label-names "{scores[0]}=low"'
        found.append(
            f"labels such as {_quoted(scores[:3])} look like scores, and each is a class of its own; {options}"
        )
    if single := [name for name, n in counts.items() if n == 1]:
        out = f'--label-names "{single[0]}=" --drop empty leaves such a row out'
        found.append(f"labels of one row only, from which little is learned: {_quoted(single[:3])}; {out}")
    joined = [n for n in counts if len(p := re.split(r"\s*[,;|]\s*", n)) > 1 and all(part in counts for part in p)]
    if joined:
        option = f'--label-names "{joined[0]}=NAME" gives one of them'
        found.append(f"labels such as {_quoted(joined[:3])} look like several in one row; {option}")
    return [f"caution: {sentence}" for sentence in found]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
