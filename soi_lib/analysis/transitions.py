"""Transitions: how examples move between categories from one run to another, and how much of that is noise.

Nothing is said about a move before it has been held against the noise floor, which is the
transition between two seeds of the same setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.soi import SOI, categorize
from soi_lib.dynamics import TrainingDynamics, shared_rows
from soi_lib.errors import AlignmentError

if TYPE_CHECKING:
    import pandas as pd

Normalize = Literal["row", "all"] | None
_NAMES = [soi.name for soi in SOI]


def transition_matrix(
    single: TrainingDynamics, multi: TrainingDynamics, normalize: Normalize = None, early: float = 0.5
) -> pd.DataFrame:
    """Counts of examples by category in `single` (rows: from) and in `multi` (columns: to), over their common ids.

    A 6x6 DataFrame named by SOI; int64 counts, or with `normalize` "row" (each row adds up to 1; NaN where a row is
    empty) or "all" (everything adds up to 1) float64. Raises AlignmentError on no common ids or other gold labels.
    """
    rows = shared_rows((single, multi), ordered=False)
    before, after = (categorize(run, early)[row] for run, row in zip((single, multi), rows, strict=True))
    return as_frame(np.bincount(before * np.int8(6) + after, minlength=36).reshape(6, 6), normalize)


def common_codes(runs: Sequence[TrainingDynamics], early: float = 0.5) -> npt.NDArray[np.int8]:
    """Categories (R, N) of the examples that all `runs` share, sorted by id. Raises AlignmentError as `align` does."""
    return np.stack([categorize(run, early)[rows] for run, rows in zip(runs, shared_rows(runs), strict=True)])


def mean_transition(
    pairs: Iterable[tuple[TrainingDynamics, TrainingDynamics]], normalize: Normalize = None, early: float = 0.5
) -> pd.DataFrame:
    """The 6x6 transition averaged over pairs of runs: the mean of their counts, normalised afterwards (float64).

    Raises AlignmentError when there is no pair, and as `transition_matrix` does.
    """
    counts = [transition_matrix(a, b, early=early).to_numpy() for a, b in pairs]
    if not counts:
        raise AlignmentError("there is no pair of runs to average", expected="at least one")
    return as_frame(np.mean(counts, axis=0), normalize)


def noise_floor(runs: Sequence[TrainingDynamics], normalize: Normalize = None, early: float = 0.5) -> pd.DataFrame:
    """The mean 6x6 transition over all ordered pairs of runs of one setting with other seeds (float64, symmetric
    as counts): what moves without any change of setting. Raises AlignmentError with fewer than two runs.
    """
    if len(runs) < 2:
        raise AlignmentError(
            "a noise floor needs two seeds of the setting",
            found=len(runs),
            hint="run the setting with another seed",
        )
    return mean_transition(permutations(runs, 2), normalize, early)


def as_frame(counts: npt.NDArray[Any], normalize: Normalize = None) -> pd.DataFrame:
    """A 6x6 array as a DataFrame with the categories' names, rows "single" and columns "multi"."""
    import pandas as pd

    table = pd.DataFrame(counts, index=pd.Index(_NAMES, name="single"), columns=pd.Index(_NAMES, name="multi"))
    if normalize == "all":
        return table / table.to_numpy().sum()
    if normalize == "row":
        return table.div(table.sum(axis=1).replace(0, np.nan), axis=0)
    return table
