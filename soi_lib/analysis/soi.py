"""The six Subsets of Interest, computed from correctness histories alone.

A history is one 64-bit word, so a forgetting event is a set bit whose next bit is clear, and without forgetting, the
epoch of first success is E minus the number of correct epochs. There is no loop over examples or epochs. The rule is
the one on the book's method page; forgetting events are those of Toneva et al. (2019).
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soi_lib.dynamics import MAX_EPOCHS, TrainingDynamics, pack_history
from soi_lib.errors import FormatError, RangeError

if TYPE_CHECKING:
    import pandas as pd

_TABLE_EPOCHS = 16  # up to here, a lookup in a table of all 2^E histories is faster than the arithmetic
_DESCRIPTIONS = (
    "unlearned: wrong at every epoch",
    "always correct: right at every epoch",
    "early learned: wrong at first, right from an early epoch on, never forgotten",
    "late learned: wrong at first, right from a late epoch on, never forgotten",
    "forgotten once: right at some epoch and wrong at the next, one time",
    "forgotten at least twice: right and then wrong again, two times or more",
)


class SOI(IntEnum):
    """A Subset of Interest: the code that `categorize` assigns to an example."""

    UNE = 0
    ACE = 1
    ELE = 2
    LLE = 3
    FRGE_1 = 4
    FRGE_2 = 5

    @property
    def description(self) -> str:
        """What the category means, in one line."""
        return _DESCRIPTIONS[self]


def categorize(dynamics: TrainingDynamics | npt.ArrayLike, early: float = 0.5) -> npt.NDArray[np.int8]:
    """Return the SOI code of every example: (N,) int8.

    `dynamics` is a TrainingDynamics or a bool array (E, N) of correctness, E from 1 to 64. An example that is never
    forgotten and first correct at epoch k (from 0) is early learned if 0 < k < early * E, and late learned if
    k >= early * E. Raises RangeError if `early` is not in (0, 1] or E is not in 1..64, FormatError for a wrong shape.
    """
    if isinstance(dynamics, TrainingDynamics):
        return categorize_history(dynamics.history, dynamics.epochs, early)
    correct: npt.NDArray[Any] = np.asarray(dynamics)
    if correct.ndim != 2 or correct.dtype != bool:
        raise FormatError(
            "correctness is not a bool array of epochs by examples",
            found=f"{correct.dtype} {correct.shape}",
            expected="bool (E, N)",
        )
    if not 1 <= len(correct) <= MAX_EPOCHS:
        raise RangeError("the number of epochs is out of range", found=len(correct), expected="1 to 64")
    return categorize_history(pack_history(correct), len(correct), early)


def categorize_history(history: npt.NDArray[np.uint64], epochs: int, early: float = 0.5) -> npt.NDArray[np.int8]:
    """Like `categorize`, from packed histories (N,) uint64 of `epochs` epochs. Raises RangeError as it does."""
    if not 0 < early <= 1:
        raise RangeError("early is out of range", found=early, expected="more than 0 and at most 1")
    if epochs <= _TABLE_EPOCHS and len(history) > 1 << epochs:
        return _table(epochs, early)[history]
    return _codes(history, epochs, early)


@lru_cache(maxsize=8)
def _table(epochs: int, early: float) -> npt.NDArray[np.int8]:
    """Return the categories of all histories of `epochs` epochs."""
    return _codes(np.arange(1 << epochs, dtype=np.uint64), epochs, early)


def _codes(history: npt.NDArray[np.uint64], epochs: int, early: float) -> npt.NDArray[np.int8]:
    correct = np.bitwise_count(history)
    events = forgetting_events(history, epochs)
    # never forgotten means 0...01...1, so the first correct epoch is E - correct; the small number corrects
    # rounding in early * E (0.07 * 100 is slightly more than 7)
    late = epochs - correct.astype(np.int16) >= math.ceil(early * epochs - 1e-9)
    codes = np.where(late, np.int8(SOI.LLE), np.int8(SOI.ELE))
    codes[correct == epochs] = SOI.ACE
    codes[correct == 0] = SOI.UNE
    codes[events == 1] = SOI.FRGE_1
    codes[events > 1] = SOI.FRGE_2
    return codes


def forgetting_events(history: npt.NDArray[np.uint64], epochs: int) -> npt.NDArray[np.uint8]:
    """Count how often a correct epoch is followed by a wrong one: (N,) uint8, from packed histories (N,) uint64."""
    followed = np.uint64((1 << (epochs - 1)) - 1)  # the last epoch has no successor
    return np.bitwise_count(history & ~(history >> np.uint64(1)) & followed)


def soi_counts(codes: npt.ArrayLike) -> dict[str, int]:
    """Return the number of examples in each category, by name in the order of the codes; all six are always present."""
    counted = np.bincount(np.asarray(codes, dtype=np.int64), minlength=len(SOI))
    return {soi.name: int(counted[soi]) for soi in SOI}


def soi_shares(codes: npt.ArrayLike) -> dict[str, float]:
    """Return `soi_counts` of codes (N,) as fractions of all examples (they add up to 1, or are all 0 if N is 0)."""
    counts = soi_counts(codes)
    total = max(1, sum(counts.values()))
    return {name: count / total for name, count in counts.items()}


def soi_table(runs: dict[Any, TrainingDynamics], early: float = 0.5, *, shares: bool = True) -> pd.DataFrame:
    """Return one row per name in `runs` and one column per category: shares (or counts), for `plots.soi_bars`."""
    import pandas as pd

    count = soi_shares if shares else soi_counts
    return pd.DataFrame({name: count(categorize(dyn, early)) for name, dyn in runs.items()}).T


def history_string(history: int | np.uint64, epochs: int, right: str = "■", wrong: str = "□") -> str:
    """Return a history as text, first epoch first: `□□■■■□■■■■`."""
    return "".join(right if int(history) >> epoch & 1 else wrong for epoch in range(epochs))
