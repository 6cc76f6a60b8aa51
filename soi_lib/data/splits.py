"""Dividing rows between splits by group, the same way on every machine.

Nothing is drawn at random: groups are ordered by size and then by the sha256 of their name with a salt, and each
goes to the split that lacks its classes most. So related rows stay together, the shares by rows come out as asked,
and every split keeps about the class balance of the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from soi_lib.data.dataset import Split, id_order, normalise
from soi_lib.errors import CorpusError

if TYPE_CHECKING:
    import pandas as pd

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}
CAPS = {"train": 5000, "validation": 1000, "test": 2000}


def hashed(text: str, salt: str) -> str:
    """sha256 hex of the text with a salt: the order in which groups are dealt."""
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()


def assign(groups: np.ndarray, label: np.ndarray, shares: Mapping[str, float], salt: str) -> np.ndarray:
    """The split name of each row, object (N,): no group is divided, shares hold by rows, classes stay balanced.

    groups: (N,) str; label: (N,) int. Raises CorpusError when there are fewer groups than splits.
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
