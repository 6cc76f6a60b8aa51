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

from soi_lib.analysis.datamap import confidence_variability
from soi_lib.analysis.soi import SOI, categorize, history_string
from soi_lib.dynamics import TrainingDynamics, align, shared_rows
from soi_lib.errors import AlignmentError, SelectionError

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


def movers(single: TrainingDynamics, multi: TrainingDynamics, n: int = 12, early: float = 0.5) -> pd.DataFrame:
    """The `n` common examples whose confidence changed most, largest absolute change first, equal ones by id.

    Columns: id, gold, change (multi minus single), confidence_single, confidence_multi, soi_single, soi_multi
    (labels), history_single, history_multi (text, first epoch first). Raises SelectionError when `n` is less than 1.
    """
    import pandas as pd

    if n < 1:
        raise SelectionError("no example was asked for", found=n, expected="at least 1")
    a, b = align(single, multi)
    confidence = [confidence_variability(d.p_gold)[0] for d in (a, b)]
    change = confidence[1] - confidence[0]
    rows = np.argsort(-np.abs(change), kind="stable")[:n]  # ids are sorted already, so stable means by id
    out: dict[str, Any] = {"id": a.ids[rows], "gold": a.gold[rows], "change": change[rows]}
    sides = {"single": (a, confidence[0]), "multi": (b, confidence[1])}
    out |= {f"confidence_{side}": value[rows] for side, (_, value) in sides.items()}
    out |= {f"soi_{side}": [SOI(c).name for c in categorize(d, early)[rows]] for side, (d, _) in sides.items()}
    out |= {f"history_{side}": [history_string(h, d.epochs) for h in d.history[rows]] for side, (d, _) in sides.items()}
    return pd.DataFrame(out)


def as_frame(counts: npt.NDArray[Any], normalize: Normalize = None) -> pd.DataFrame:
    """A 6x6 array as a DataFrame with the categories' names, rows "single" and columns "multi"."""
    import pandas as pd

    table = pd.DataFrame(counts, index=pd.Index(_NAMES, name="single"), columns=pd.Index(_NAMES, name="multi"))
    if normalize == "all":
        return table / table.to_numpy().sum()
    if normalize == "row":
        return table.div(table.sum(axis=1).replace(0, np.nan), axis=0)
    return table
