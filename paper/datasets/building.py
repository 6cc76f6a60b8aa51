"""Build the packaged corpora: remove repeated texts, split the rows by group, and check the guarantees.

The guarantees: ids are unique, no text (and no group of related texts) occurs in two splits, no split or text is
empty, labels are in range, and the training split has at least two classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib.data.dataset import SPLITS, Card, Corpus, Split, all_splits, assign, fingerprint, id_order, normalise
from soi_lib.errors import CorpusError

if TYPE_CHECKING:
    import pandas as pd

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}
CAPS = {"train": 5000, "validation": 1000, "test": 2000}


def table(rows: Sequence[tuple[Any, ...]]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return `deduplicate` of rows (id, text, [text_pair,] label, group)."""
    import pandas as pd

    pair = ["text_pair"] if len(rows[0]) == 5 else []
    return deduplicate(pd.DataFrame(rows, columns=["id", "text", *pair, "label", "group"]))


def deduplicate(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep one row per text (with the smallest id), and none of a text that has two labels.

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


def divide(frame: pd.DataFrame, salt: str) -> dict[str, Split]:
    """Split a frame with columns id, text, [text_pair], label, group: assign rows by group, then cap each split."""
    frame = frame.sort_values("id", kind="stable")
    home = assign(frame["group"].to_numpy(), frame["label"].to_numpy(), SHARES, salt)
    parts = {name: frame[home == name] for name in SHARES}
    chosen = {name: np.sort(id_order(part["id"])[: CAPS[name]]) for name, part in parts.items()}  # by the hash of ids
    return {name: Split.from_frame(part.iloc[chosen[name]]) for name, part in parts.items()}


def card(name: str, counts: dict[str, int], **facts: Any) -> Card:
    """Return a card of `cards.yaml`, with `facts` in the places of their names."""
    import yaml

    texts = yaml.safe_load(Path(__file__).with_name("cards.yaml").read_text(encoding="utf-8"))[name]
    caveats = [caveat.format(**facts) for caveat in texts.pop("caveats")]
    return Card(**{key: text.format(**facts) for key, text in texts.items()}, caveats=caveats, counts=counts)


def make(
    name: str,
    comparison: str,
    labels: tuple[str, ...],
    splits: Mapping[str, Split],
    card: Card,
    extra_ood: Mapping[str, Split] | None = None,
) -> Corpus:
    """Return a corpus with its fingerprint.

    Raises CorpusError, naming the split and the example, if a guarantee of this module is violated.
    """
    import pandas as pd

    everything = all_splits(splits, extra_ood or {})
    for split_name, split in everything.items():
        if not len(split):
            raise CorpusError("the split is empty", where=f"{name}/{split_name}", expected="at least one example")
    rows = pd.concat(
        pd.DataFrame({"split": s, "id": part.ids, "text": part.keys, "group": part.group, "label": part.label})
        for s, part in everything.items()
    )
    for what in ("id", "text", "group"):
        first = rows.drop_duplicates(what).set_index(what)
        again = rows["split"] != rows[what].map(first["split"])
        if what == "id":
            again |= rows.duplicated("id")
        if again.any():
            row = rows[again].iloc[0]
            other = rows[rows[what] == row[what]].iloc[0]
            raise CorpusError(
                f"the {what} of {row['id']!r} occurs more than once",
                where=f"{name}/{row['split']}",
                found=f"it also for {other['id']!r} in {other['split']}",
                expected="unique ids, and no text or group in two splits",
            )
    wrong = {"text": rows["text"].str.strip() == "", "label": ~rows["label"].between(0, len(labels) - 1)}
    for what, found in wrong.items():
        if found.any():
            row = rows[found].iloc[0]
            problem = f"the {what} of {row['id']!r} is empty or out of range"
            raise CorpusError(problem, where=f"{name}/{row['split']}", found=row[what])
    if splits["train"].label.min() == splits["train"].label.max():
        raise CorpusError("the training split has only one class", where=name, expected="at least two classes")
    ordered = {s: splits[s] for s in SPLITS if s in splits}
    digest = fingerprint(labels, splits, extra_ood or {}, comparison)
    return Corpus(name, comparison, tuple(labels), ordered, card, digest, dict(extra_ood or {}))
