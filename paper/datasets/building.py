"""How the packaged corpora are built: repeated texts removed, rows divided by group, and the promises checked.

The promises: ids are unique, no text (and no group of related texts) occurs in two splits, no split is empty, and the
training split has at least two classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from soi_lib.data.dataset import SPLITS, Card, Corpus, Split, all_splits, fingerprint, id_order, normalise
from soi_lib.data.splits import assign
from soi_lib.errors import CorpusError

if TYPE_CHECKING:
    import pandas as pd

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}
CAPS = {"train": 5000, "validation": 1000, "test": 2000}


def deduplicate(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep one row (the smallest id) of each text, and none of a text that carries two labels.

    Returns the rows, sorted by id, and how many were left out: `repeated`, `contradictory`.
    """
    frame = frame.sort_values("id", kind="stable")
    key = frame["text"].map(normalise)
    if "text_pair" in frame:
        key = key + "\t" + frame["text_pair"].map(normalise)
    contradictory = frame["label"].groupby(key).transform("nunique") > 1
    repeated = key.duplicated() & ~contradictory
    counts = {"repeated": int(repeated.sum()), "contradictory": int(contradictory.sum())}
    return frame[~contradictory & ~repeated], counts


def cap(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """At most n rows, chosen by the hash of their ids."""
    return frame if len(frame) <= n else frame.iloc[np.sort(id_order(frame["id"])[:n])]


def divide(
    frame: pd.DataFrame, salt: str, shares: Mapping[str, float] = SHARES, caps: Mapping[str, int] = CAPS
) -> dict[str, Split]:
    """Splits of a frame with columns id, text, [text_pair], label, group: assigned by group, then capped."""
    frame = frame.sort_values("id", kind="stable")
    home = assign(frame["group"].to_numpy(), frame["label"].to_numpy(), shares, salt)
    return {name: Split.from_frame(cap(frame[home == name], caps[name])) for name in shares}


def make(
    name: str,
    comparison: str,
    labels: tuple[str, ...],
    splits: Mapping[str, Split],
    card: Card,
    extra_ood: Mapping[str, Split] | None = None,
) -> Corpus:
    """A checked corpus with its fingerprint; raises CorpusError when a promise of this module is broken."""
    extra = dict(extra_ood or {})
    validate(name, labels, splits, extra)
    ordered = {s: splits[s] for s in SPLITS if s in splits}
    found = fingerprint(labels, splits, extra, comparison)
    return Corpus(name, comparison, tuple(labels), ordered, card, found, extra)


def validate(name: str, labels: tuple[str, ...], splits: Mapping[str, Split], extra: Mapping[str, Split]) -> None:
    """Raise CorpusError, naming the split and the example, when a promise of this module is broken."""
    everything = all_splits(splits, extra)
    if "train" not in splits or len(everything) < len(splits) + len(extra):
        raise CorpusError("unknown or missing splits", where=name, found=", ".join(splits), expected=", ".join(SPLITS))
    for split_name, split in everything.items():
        _check_rows(f"{name}/{split_name}", split, len(labels), splits["train"].text_pair is not None)
    for what, part in (("id", "ids"), ("text", "keys"), ("group", "group")):
        first: dict[str, tuple[str, int]] = {}
        for split_name, split in everything.items():
            for row, value in enumerate(getattr(split, part)):
                other, at = first.setdefault(value, (split_name, row))
                if other != split_name or (what == "id" and at != row):
                    raise CorpusError(
                        f"the {what} of {split.ids[row]!r} occurs again",
                        where=f"{name}/{split_name}",
                        found=f"it also for {everything[other].ids[at]!r} in {other}",
                        expected="every id once, and no text or group in two splits",
                    )
    if len(labels) < 2 or len(np.unique(splits["train"].label)) < 2:
        raise CorpusError("the training split has one class only", where=name, expected="at least two classes")


def _check_rows(where: str, split: Split, n_labels: int, paired: bool) -> None:
    """Check that a split has rows, of one form, with labels in range and texts that are not empty."""
    if not len(split):
        raise CorpusError("the split is empty", where=where, expected="at least one example")
    if (split.text_pair is not None) != paired:
        what = "some splits hold pairs and others single texts"
        raise CorpusError(what, where=where, expected="the same form in all splits")
    for example, label in zip(split.ids, split.label.tolist(), strict=True):
        if not 0 <= label < n_labels:
            what, expected = f"the label of {example!r} is out of range", f"0 to {n_labels - 1}"
            raise CorpusError(what, where=where, found=label, expected=expected)
    for side in (split.text, split.text_pair or []):
        for example, text in zip(split.ids, side, strict=bool(side)):
            if not isinstance(text, str) or not text.strip():
                raise CorpusError(f"the text of {example!r} is empty", where=where, hint="remove the row")
