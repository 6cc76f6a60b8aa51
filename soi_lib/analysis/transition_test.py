"""Which moves between categories are more than noise: every cell of a transition, held against its noise floor.

The null hypothesis is that the setting changes nothing, so the names of the two settings may be
swapped. There are two tests.

`transition_test` takes any runs, two of one setting at least. An example's categories are shuffled among all runs. Each
example is shuffled by itself, which gives thousands of different shuffles from three seeds; and examples with the same
categories are shuffled together, as one multinomial draw, so the cost does not grow with the number of examples. What a
whole run shares (one unlucky seed) is not shuffled that way. Therefore a cell is called more than noise only if,
besides, no other division of the same runs into two groups of these sizes shows as large a difference there.

`paired_transition_test` takes runs of the same seeds in both settings, three at least, and draws nothing at random.
Runs of one seed share their heads and their order of examples, so they agree more; a floor has no such pairs, and the
transition must not have them either: both sides use pairs of different seeds only. A transition minus its floor is a
mean over pairs of seeds, so removing one seed at a time (the jackknife) turns it into one value per seed and example,
and from there on it is an `Effect` like any other. A z test takes the examples as the source of chance; what a whole
run has in common is held against all ways to swap the two settings within seeds, which are enumerated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.soi import SOI
from soi_lib.analysis.statistics import Effect, benjamini_hochberg, mean_effect
from soi_lib.analysis.transitions import as_frame, common_codes
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import AlignmentError

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
_SIZE = len(SOI)
_TINY = 1e-9
_MAX_DIVISIONS = 1000  # 6 + 6 runs have 924
OFF_DIAGONAL = ~np.eye(_SIZE, dtype=bool)


@dataclass(frozen=True)
class TransitionTest:
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


def transition_test(
    single: Sequence[TrainingDynamics],
    multi: Sequence[TrainingDynamics],
    *,
    early: float = 0.5,
    level: float = 0.05,
    resamples: int = 5000,
    seed: int = 0,
) -> TransitionTest:
    """Hold the mean transition over all (single, multi) pairs of runs against the floor between the single runs.

    `single`: at least two runs of one setting with different seeds, `multi`: at least one run of another, all of the
    same dataset. Only ids that all runs share count. Raises AlignmentError on fewer runs, no common ids, other golds.
    """
    if len(single) < 2 or not multi:
        raise AlignmentError(
            "too few runs to tell a transition from noise",
            found=f"{len(single)} single and {len(multi)} multi",
            expected="at least 2 and 1",
            hint="run the single setting with another seed",
        )
    codes = common_codes([*single, *multi], early)
    hot = _one_hot(codes)
    chosen = tuple(range(len(single)))
    transition, floor = _both(hot, chosen)
    difference = transition - floor
    drawn = _shuffled(codes, len(single), resamples, seed)
    spread = drawn.std(axis=0)
    live = spread > _TINY
    p = (1 + (np.abs(drawn) >= np.abs(difference) - 1e-6).sum(axis=0)) / (resamples + 1)
    p = np.where(live, p, np.nan)
    q = benjamini_hochberg(p)
    significant = live & (q <= level) & (np.abs(difference) > _largest_elsewhere(hot, chosen) + 1e-6)
    return TransitionTest(
        transition=as_frame(transition),
        floor=as_frame(floor),
        difference=as_frame(difference),
        residual=as_frame(np.divide(difference, spread, out=np.zeros_like(difference), where=live)),
        p=as_frame(p),
        q=as_frame(q),
        significant=as_frame(significant),
        n=codes.shape[1],
        seeds=(len(single), len(multi)),
        level=level,
    )


@dataclass(frozen=True)
class PairedTransitionTest:
    """A transition beside its noise floor; arrays are 6x6, rows from, columns to, as shares of all examples.

    difference is transition minus floor. p is two-sided, NaN on the diagonal and where nothing varies; it takes
    examples as the only source of chance. swap_p is the run-level answer to that: the share of the ways to swap the
    two settings within seeds that show as large a difference. effects: the difference of every cell as an `Effect`.
    """

    transition: Array
    floor: Array
    p: Array
    swap_p: Array
    effects: tuple[tuple[Effect, ...], ...]
    n: int
    seeds: int

    @property
    def difference(self) -> Array:
        """Transition minus floor."""
        return self.transition - self.floor


def paired_transition_test(single: npt.ArrayLike, multi: npt.ArrayLike) -> PairedTransitionTest:
    """Hold the transition from `single` to `multi` against the floor between the seeds of `single`.

    Args:
        single, multi: category codes (S, N), a row a seed (row s of both from the same seed), a column an example.

    Raises:
        AlignmentError: the shapes differ, or there are fewer than three seeds.
    """
    from scipy.special import ndtr  # type: ignore[import-untyped]

    a, b = np.asarray(single, dtype=np.int8), np.asarray(multi, dtype=np.int8)
    if a.shape != b.shape or a.ndim != 2 or len(a) < 3:
        raise AlignmentError(
            "the two settings do not fit",
            found=f"{a.shape} and {b.shape}",
            expected="codes (S, N) of the same seeds and examples, at least 3 seeds",
        )
    seeds, n = a.shape
    hot = [_one_hot(side) for side in (a, b)]
    values = _pseudo_values(*hot)
    effects = tuple(tuple(mean_effect(values[:, i, j]) for j in range(_SIZE)) for i in range(_SIZE))
    pairs = _pair_shares(np.concatenate(hot))
    transition, floor = _sides(pairs, np.arange(seeds), np.arange(seeds, 2 * seeds))
    spread = np.array([[effect.by_examples for effect in row] for row in effects]) ** 0.5
    value = np.array([[effect.value for effect in row] for row in effects])
    known = OFF_DIAGONAL & (spread > 0)
    p = np.where(known, 2 * ndtr(-np.abs(np.divide(value, spread, where=known, out=np.zeros_like(value)))), np.nan)
    swap_p = _swap_p(pairs, seeds, transition - floor)
    return PairedTransitionTest(transition, floor, p, swap_p, effects, n, seeds)


def _one_hot(codes: Array) -> Array:
    """Codes (R, N) as (R, 6, N) zeros and ones."""
    return (codes[:, None, :] == np.arange(_SIZE)[:, None]).astype(np.float32)


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


def _pseudo_values(single: Array, multi: Array) -> Array:
    """Jackknife pseudo-values (S, 6, 6, N) of transition minus floor: their mean over seeds and examples is it."""
    seeds = len(single)

    def difference(leave: int | None) -> Array:
        keep = [s for s in range(seeds) if s != leave]
        a, b = single[keep], multi[keep]
        from_, to = a.sum(axis=0), b.sum(axis=0)
        across = from_[:, None] * to[None] - np.einsum("sin,sjn->ijn", a, b)
        within = from_[:, None] * from_[None]
        within[range(_SIZE), range(_SIZE)] -= from_
        return (across - within) / (len(keep) * (len(keep) - 1))

    every = difference(None)
    return np.stack([seeds * every - (seeds - 1) * difference(s) for s in range(seeds)])


def _pair_shares(hot: Array) -> Array:
    """Shares (R, R, 6, 6) of the examples that are in category i in one run and j in the other."""
    return np.einsum("rin,qjn->rqij", hot, hot, optimize=True) / hot.shape[2]


def _sides(pairs: Array, single: npt.NDArray[np.int64], multi: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Mean transition and floor over pairs of different seeds; run numbers by seed."""
    different = ~np.eye(len(single), dtype=bool)
    return (
        pairs[np.ix_(single, multi)][different].mean(axis=0, dtype=np.float64),
        pairs[np.ix_(single, single)][different].mean(axis=0, dtype=np.float64),
    )


def _swap_p(pairs: Array, seeds: int, observed: Array) -> Array:
    """Share of the swaps within seeds (this one included) whose absolute difference is as large as `observed` (6x6)."""
    seed = np.tile(np.arange(seeds), 2)
    different = np.where((seed[:, None] != seed)[:, :, None, None], pairs, 0.0)
    swap = (np.arange(2**seeds - 1)[:, None] >> np.arange(seeds)) & 1  # not all of them: that is only the other name
    is_single = np.concatenate([1 - swap, swap], axis=1).astype(np.float64)
    from_single = (is_single @ different.reshape(2 * seeds, -1)).reshape(len(swap), 2 * seeds, -1)
    difference = (from_single * (1 - 2 * is_single)[:, :, None]).sum(axis=1) / (seeds * (seeds - 1))
    larger: Array = (np.abs(difference) >= np.abs(observed).ravel() - 1e-6).mean(axis=0)
    return larger.reshape(_SIZE, _SIZE)
