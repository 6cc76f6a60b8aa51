"""A corpus: the splits of one dataset of a comparison, and a card that describes its origin.

Nothing here is random. A subset is chosen by the hash of the ids, so the first 100 examples are always among the first
300, whatever the order of the rows; `assign` divides rows by the hash of their group.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib.errors import CorpusError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test", "ood")


def normalise(text: str) -> str:
    """Return the form in which two texts count as equal: case-folded, with runs of white space as single spaces."""
    return " ".join(text.casefold().split())


def is_text(value: object) -> bool:
    """Return whether a value is a string that can be encoded, without lone surrogates."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def id_order(ids: Iterable[str]) -> np.ndarray:
    """Return the positions of `ids` in the order of their sha256, int64 (N,): a shuffle that needs no seed."""
    digests = [hashlib.sha256(str(i).encode("utf-8")).digest() for i in ids]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """Examples of one split, sorted by id.

    ids: (N,) str in an object array; text: N strings; text_pair: N strings for pairs, else None;
    label: (N,) int16 index into the corpus's label names; group: (N,) str in an object array, the unit that is
    never divided between splits.
    """

    ids: np.ndarray
    text: list[str]
    text_pair: list[str] | None
    label: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def keys(self) -> list[str]:
        """The normalised text of each example (both sides of a pair), used to find duplicates."""
        left = [normalise(t) for t in self.text]
        if self.text_pair is None:
            return left
        return [f"{a}\t{normalise(b)}" for a, b in zip(left, self.text_pair, strict=True)]

    @property
    def mean_words(self) -> float:
        """The mean number of words per example, counting both texts of a pair."""
        return sum(len(key.split()) for key in self.keys) / len(self)

    def rows(self, index: np.ndarray) -> Split:
        """Return the examples at positions `index`, in id order."""
        index = np.asarray(sorted(index, key=lambda i: self.ids[i]), dtype=np.int64)
        pair = None if self.text_pair is None else [self.text_pair[i] for i in index]
        return Split(self.ids[index], [self.text[i] for i in index], pair, self.label[index], self.group[index])

    def take(self, n: int | None) -> Split:
        """Return a subset of n examples that depends only on their ids; nested: take(100) is part of take(300).

        If n is None or at least N, all examples are returned. The result is sorted by id.
        """
        if n is None or n >= len(self):
            return self if list(self.ids) == sorted(self.ids) else self.rows(np.arange(len(self)))
        if n < 1:
            raise CorpusError("a subset of a split must hold examples", found=n, expected="at least 1")
        return self.rows(id_order(self.ids)[:n])

    @staticmethod
    def from_frame(frame: pd.DataFrame) -> Split:
        """Make a split, sorted by id, from the columns id, text, label, group and, for pairs, text_pair."""
        frame = frame.sort_values("id", kind="stable")
        pair = frame["text_pair"].astype(object).tolist() if "text_pair" in frame else None
        if pair is not None and any(p is None or p != p for p in pair):
            pair = None
        return Split(
            ids=frame["id"].astype(object).to_numpy(),
            text=frame["text"].astype(object).tolist(),
            text_pair=pair,
            label=frame["label"].to_numpy(dtype=np.int16),
            group=frame["group"].astype(object).to_numpy(),
        )


@dataclass(frozen=True)
class Card:
    """What a reader must know about a corpus to interpret results on it."""

    title: str
    question: str
    origin: str
    licence: str
    language: str
    construction: str
    group_by: str
    ood: str
    caveats: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)  # how `soi_lib.data.load` read it: columns, labels, options


@dataclass(frozen=True)
class Corpus:
    """One dataset of a comparison: label names, splits, card, and a fingerprint of every row.

    splits holds at least `train`; extra_ood holds further out-of-distribution sets by name.
    """

    name: str
    comparison: str
    labels: tuple[str, ...]
    splits: dict[str, Split]
    card: Card
    fingerprint: str
    extra_ood: dict[str, Split] = field(default_factory=dict)


def all_splits(splits: Mapping[str, Split], extra_ood: Mapping[str, Split]) -> dict[str, Split]:
    """Return the splits in their usual order, then the further out-of-distribution sets as `ood:NAME`."""
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return ordered | {f"ood:{name}": extra_ood[name] for name in sorted(extra_ood)}


def fingerprint(
    labels: tuple[str, ...], splits: Mapping[str, Split], extra_ood: Mapping[str, Split], comparison: str = ""
) -> str:
    """Return the sha256, in hex, over the label names, the split names and all rows sorted by id.

    Ids of a user's rows are unique only within a split, so for the comparison `user` each is hashed with its split.
    """
    digest = hashlib.sha256(json.dumps(list(labels)).encode())
    for name, split in sorted(all_splits(splits, extra_ood).items()):
        digest.update(f"\n{name}\n".encode())
        pairs = split.text_pair if split.text_pair is not None else [None] * len(split)
        ids = [f"{name}/{i}" for i in split.ids] if comparison == "user" else split.ids
        rows = sorted(zip(ids, split.text, pairs, split.label.tolist(), split.group, strict=True))
        digest.update(json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


# --- dividing rows ---------------------------------------------------------------------------------------------------


def hashed(text: str, salt: str) -> str:
    """Return the sha256, in hex, of a text with a salt: the order in which groups are assigned."""
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()


def assign(groups: np.ndarray, label: np.ndarray, shares: Mapping[str, float], salt: str) -> np.ndarray:
    """Return the split name of each row, object (N,): no group is divided, shares count rows, classes stay balanced.

    Groups are assigned in order of size, then of hash, each to the split that lacks its classes most.
    groups: (N,) str; label: (N,) int. Raises CorpusError if there are fewer groups than splits.
    """
    names, member = np.unique(groups.astype(str), return_inverse=True)
    if len(names) < len(shares):
        raise CorpusError(
            "there are too few groups to split", where=salt, found=len(names), expected=f"at least {len(shares)}"
        )
    counts = np.zeros((len(names), int(label.max()) + 1))
    np.add.at(counts, (member, label), 1)
    sizes = counts.sum(1)
    order = sorted(range(len(names)), key=lambda g: (-sizes[g], hashed(str(names[g]), salt)))
    wanted = np.array(list(shares.values()))
    target = np.outer(wanted / wanted.sum(), np.maximum(counts.sum(0), 1))
    filled = np.zeros_like(target)
    home = np.empty(len(names), dtype=np.int64)
    for g in order:
        need = ((target - filled) / target) @ counts[g]
        home[g] = int(np.argmax(need))
        filled[home[g]] += counts[g]
    return np.array(list(shares), dtype=object)[home[member]]
