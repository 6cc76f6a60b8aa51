"""Which transitions are more than noise: a transition held against its floor, cell by cell.

Special about it: under the null hypothesis the setting changes nothing, so an example's categories in all runs, single
and multi, may be shuffled among the runs. Each example is shuffled by itself, which gives thousands of different
shuffles from three seeds; and examples with the same categories are shuffled together, as one multinomial draw, so
the cost does not grow with the number of examples. What a whole run shares (one unlucky seed) is not shuffled that
way. Therefore a cell is called more than noise only if, besides, no other division of the same runs into two groups
of these sizes shows as large a difference there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.soi import SOI, categorize
from soi_lib.analysis.statistics import benjamini_hochberg
from soi_lib.analysis.transitions import as_frame
from soi_lib.dynamics import TrainingDynamics, common_rows
from soi_lib.errors import AlignmentError

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
_SIZE = len(SOI)
_TINY = 1e-9
_MAX_DIVISIONS = 1000  # 6 + 6 runs have 924


@dataclass(frozen=True)
class Excess:
    """A mean transition beside its noise floor; all frames are 6x6, rows = from, columns = to.

    transition and floor: mean counts. difference: transition minus floor. residual: the difference divided by its
    standard deviation over shuffles. p, q: two-sided, and adjusted over the cells in which anything can differ (NaN
    in the others). significant: q at most `level`, and no other division of the runs shows as much. `n` examples,
    `seeds` = numbers of single and multi runs.
    """

    transition: pd.DataFrame
    floor: pd.DataFrame
    difference: pd.DataFrame
    residual: pd.DataFrame
    p: pd.DataFrame
    q: pd.DataFrame
    significant: pd.DataFrame
    n: int
    seeds: tuple[int, int]
    level: float


def excess_transition(
    single: Sequence[TrainingDynamics],
    multi: Sequence[TrainingDynamics],
    *,
    early: float = 0.5,
    level: float = 0.05,
    resamples: int = 5000,
    seed: int = 0,
) -> Excess:
    """Hold the mean transition over all (single, multi) pairs of runs against the floor between the single runs.

    `single`: at least two runs of one setting with different seeds, `multi`: at least one run of another, all of the
    same member. Only ids that all runs share count. Raises AlignmentError on fewer runs, no common ids, other golds.
    """
    if len(single) < 2 or not multi:
        raise AlignmentError(
            "too few runs to tell a transition from noise",
            found=f"{len(single)} single and {len(multi)} multi",
            expected="at least 2 and 1",
            hint="run the single setting with another seed",
        )
    codes = common_codes([*single, *multi], early)
    hot = (codes[:, None, :] == np.arange(_SIZE)[:, None]).astype(np.float32)  # (R, 6, N)
    chosen = tuple(range(len(single)))
    transition, floor = _both(hot, chosen)
    observed = transition - floor
    drawn = _shuffled(codes, len(single), resamples, seed)
    spread = drawn.std(axis=0)
    live = spread > _TINY
    p = (1 + (np.abs(drawn) >= np.abs(observed) - 1e-6).sum(axis=0)) / (resamples + 1)
    p = np.where(live, p, np.nan)
    residual = np.divide(observed, spread, out=np.zeros_like(observed), where=live)
    q = benjamini_hochberg(p)
    significant = live & (q <= level) & (np.abs(observed) > _largest_elsewhere(hot, chosen) + 1e-6)
    frames = {
        "transition": transition,
        "floor": floor,
        "difference": observed,
        "residual": residual,
        "p": p,
        "q": q,
        "significant": significant,
    }
    named = {name: as_frame(values) for name, values in frames.items()}
    return Excess(n=codes.shape[1], seeds=(len(single), len(multi)), level=level, **named)


def common_codes(runs: Sequence[TrainingDynamics], early: float = 0.5) -> npt.NDArray[np.int8]:
    """Categories (R, N) of what all `runs` share, sorted by id. Raises AlignmentError: none common, or other golds."""
    first = runs[0]
    for other in runs[1:]:
        common_rows(first, other)  # refuses other gold labels and foreign ids with a message that names them
    ids = reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), [run.ids for run in runs])
    if not len(ids):
        raise AlignmentError("no id is in all the runs", hint="compare runs of the same member")
    rows = []
    for run in runs:
        order = np.argsort(run.ids, kind="stable")
        rows.append(categorize(run, early)[order[np.searchsorted(run.ids[order], ids)]])
    return np.stack(rows)


def _both(hot: Array, chosen: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean counts between `chosen` runs and the others, and between two different chosen ones: two 6x6."""
    s, m = len(chosen), len(hot) - len(chosen)
    inside = hot[list(chosen)].sum(axis=0)
    outside = hot.sum(axis=0) - inside
    transition = (inside @ outside.T) / (s * m)
    floor = (inside @ inside.T - np.diag(inside.sum(axis=1))) / (s * (s - 1))
    return transition.astype(np.float64), floor.astype(np.float64)


def _shuffled(codes: Array, s: int, resamples: int, seed: int) -> Array:
    """Transition minus floor (B, 6, 6) with every example's categories shuffled among the runs."""
    runs = len(codes)
    kinds, counts = np.unique(np.sort(codes, axis=0), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, _SIZE * _SIZE))
    for kind, count in zip(kinds.T, counts, strict=True):
        if kind[0] == kind[-1]:
            continue  # the same category in every run: both sides are equal in every shuffle
        sides = np.array([np.bincount(kind[list(u)], minlength=_SIZE) for u in combinations(range(runs), s)])
        inside, ways = np.unique(sides, axis=0, return_counts=True)
        outside = np.bincount(kind, minlength=_SIZE) - inside
        across = np.einsum("ui,uj->uij", inside, outside) / (s * (runs - s))
        within = np.einsum("ui,uj->uij", inside, inside).astype(np.float64)
        within[:, range(_SIZE), range(_SIZE)] -= inside
        effect = (across - within / (s * (s - 1))).reshape(len(ways), -1)
        total += rng.multinomial(count, ways / ways.sum(), size=resamples) @ effect
    return total.reshape(resamples, _SIZE, _SIZE)


def _largest_elsewhere(hot: Array, chosen: tuple[int, ...]) -> Array:
    """The largest absolute difference, cell by cell, over the other divisions of the runs (6x6)."""
    others = set(range(len(hot))) - set(chosen)
    largest = np.zeros((_SIZE, _SIZE))
    for division in islice(combinations(range(len(hot)), len(chosen)), _MAX_DIVISIONS):
        if set(division) in (set(chosen), others):  # the same two groups
            continue
        transition, floor = _both(hot, division)
        largest = np.maximum(largest, np.abs(transition - floor))
    return largest
