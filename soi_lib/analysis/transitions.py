"""Transitions: how examples move between categories from one run to another, and which moves are more than noise.

Moves are always compared with the noise floor, the transition between two seeds of the same setting. The null
hypothesis of `transition_test` is that the setting changes nothing, so the names of the two settings may be swapped.
The test takes runs of the same seeds in both settings, at least three, and draws nothing at random. Runs of one seed
share their heads and their order of examples, so they agree more; a floor has no such pairs, and the transition must
not have them either: both sides use only pairs of different seeds. A transition minus its floor is a mean over pairs of
seeds, so removing one seed at a time (the jackknife) turns it into one value per seed and example, and from there on it
is an `Effect` like any other. A z test treats the examples as the source of chance; effects shared by a whole run are
compared with all ways to swap the two settings within seeds, which are enumerated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.soi import SOI, categorize
from soi_lib.analysis.statistics import Effect, benjamini_hochberg, mean_effect
from soi_lib.dynamics import TrainingDynamics, shared_rows
from soi_lib.errors import AlignmentError

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
Normalize = Literal["row", "all"] | None
_NAMES = [soi.name for soi in SOI]
_SIZE = len(SOI)
OFF_DIAGONAL = ~np.eye(_SIZE, dtype=bool)


def transition_matrix(
    single: TrainingDynamics, multi: TrainingDynamics, normalize: Normalize = None, early: float = 0.5
) -> pd.DataFrame:
    """Count examples by category in `single` (rows: from) and in `multi` (columns: to), over their common ids.

    A 6x6 DataFrame labelled by SOI: int64 counts or, with `normalize`, float64: "row" (each row adds up to 1, or is NaN
    if empty) or "all" (everything adds up to 1). Raises AlignmentError if no ids are common or gold labels differ.
    """
    rows = shared_rows((single, multi), ordered=False)
    before, after = (categorize(run, early)[row] for run, row in zip((single, multi), rows, strict=True))
    return as_frame(np.bincount(before * np.int8(6) + after, minlength=36).reshape(6, 6), normalize)


def common_codes(runs: Sequence[TrainingDynamics], early: float = 0.5) -> npt.NDArray[np.int8]:
    """Return categories (R, N) of the examples in all `runs`, sorted by id. Raises AlignmentError as `align` does."""
    return np.stack([categorize(run, early)[rows] for run, rows in zip(runs, shared_rows(runs), strict=True)])


def mean_transition(
    pairs: Iterable[tuple[TrainingDynamics, TrainingDynamics]], normalize: Normalize = None, early: float = 0.5
) -> pd.DataFrame:
    """Return the 6x6 transition averaged over pairs of runs: the mean of their counts, then normalised (float64).

    Raises AlignmentError if there is no pair, and as `transition_matrix` does.
    """
    counts = [transition_matrix(a, b, early=early).to_numpy() for a, b in pairs]
    if not counts:
        raise AlignmentError("there is no pair of runs to average", expected="at least one")
    return as_frame(np.mean(counts, axis=0), normalize)


def noise_floor(runs: Sequence[TrainingDynamics], normalize: Normalize = None, early: float = 0.5) -> pd.DataFrame:
    """Return the mean 6x6 transition over all ordered pairs of runs of one setting with different seeds (float64,
    symmetric as counts): the moves without a change of setting. Raises AlignmentError for fewer than two runs.
    """
    if len(runs) < 2:
        raise AlignmentError(
            "a noise floor needs at least two seeds of the setting",
            found=len(runs),
            hint="train the setting with another seed",
        )
    return mean_transition(permutations(runs, 2), normalize, early)


def as_frame(counts: npt.NDArray[Any], normalize: Normalize = None) -> pd.DataFrame:
    """Return a 6x6 array as a DataFrame with the categories' names, rows "single" and columns "multi"."""
    import pandas as pd

    table = pd.DataFrame(counts, index=pd.Index(_NAMES, name="single"), columns=pd.Index(_NAMES, name="multi"))
    if normalize == "all":
        return table / table.to_numpy().sum()
    if normalize == "row":
        return table.div(table.sum(axis=1).replace(0, np.nan), axis=0)
    return table


# --- comparison with noise --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TransitionTest:
    """A transition and its noise floor; arrays are 6x6, rows from, columns to, as shares of all examples.

    difference is transition minus floor. p is two-sided, NaN on the diagonal and where nothing varies; it treats
    examples as the only source of chance. swap_p treats whole runs as that source: the share of the ways to swap the
    two settings within seeds that give as large a difference. effects: the difference of every cell as an `Effect`.
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

    def beyond_chance(self, level: float = 0.05) -> npt.NDArray[np.bool_]:
        """Return the moves (6x6 bool) whose p, adjusted over all of them, and swap_p are at most `level`.

        With few seeds swap_p cannot be that small (three seeds: 7 swaps); then no other swap may differ as much.
        """
        least = 1 / (2**self.seeds - 1)
        found: npt.NDArray[np.bool_] = np.nan_to_num(benjamini_hochberg(self.p), nan=1.0) <= level
        return found & (self.swap_p <= max(level, least + 1e-9))


def transition_test(single: npt.ArrayLike, multi: npt.ArrayLike) -> TransitionTest:
    """Compare the transition from `single` to `multi` with the floor between the seeds of `single`.

    Args:
        single, multi: category codes (S, N), one row per seed (the same seed in both) and one column per example.

    Raises:
        AlignmentError: the shapes differ, or there are fewer than three seeds.
    """
    from scipy.special import ndtr  # type: ignore[import-untyped]

    a, b = np.asarray(single, dtype=np.int8), np.asarray(multi, dtype=np.int8)
    if a.shape != b.shape or a.ndim != 2 or len(a) < 3:
        raise AlignmentError(
            "the two settings do not match",
            found=f"{a.shape} and {b.shape}",
            expected="codes (S, N) of the same seeds and examples, at least 3 seeds",
        )
    seeds, n = a.shape
    hot = _one_hot(np.concatenate([a, b]))
    values = _pseudo_values(hot[:seeds], hot[seeds:])
    effects = tuple(tuple(mean_effect(values[:, i, j]) for j in range(_SIZE)) for i in range(_SIZE))
    # the shares of the examples that are in category i in one run and j in the other, (2 S, 2 S, 6, 6)
    pairs = np.einsum("rin,qjn->rqij", hot, hot, optimize=True) / n
    different = ~np.eye(seeds, dtype=bool)
    transition = pairs[:seeds, seeds:][different].mean(axis=0, dtype=np.float64)
    floor = pairs[:seeds, :seeds][different].mean(axis=0, dtype=np.float64)
    spread = np.array([[effect.by_examples for effect in row] for row in effects]) ** 0.5
    value = np.array([[effect.value for effect in row] for row in effects])
    known = OFF_DIAGONAL & (spread > 0)
    p = 2 * ndtr(-np.abs(np.divide(value, spread, where=known, out=np.full_like(value, np.nan))))
    swap_p = _swap_p(pairs, seeds, transition - floor)
    return TransitionTest(transition, floor, p, swap_p, effects, n, seeds)


def mean_move(single: npt.ArrayLike, multi: npt.ArrayLike, weights: npt.ArrayLike) -> Effect:
    """Return the mean weight of the moves from `single` to `multi`, minus that of the moves between seeds of `single`.

    The codes (S, N) are those of `transition_test`. `weights` (6x6, rows from, columns to) says what a move counts:
    with 1 for moves to an easier category and -1 for moves to a harder one, the mean is the net share that becomes
    easier.
    """
    values = _pseudo_values(*(_one_hot(np.asarray(codes)) for codes in (single, multi)))
    return mean_effect(np.einsum("sijn,ij->sn", values, np.asarray(weights, dtype=np.float64)))


def _one_hot(codes: Array) -> Array:
    """Return float32 (S, 6, N): 1 where an example of a run is in a category."""
    return (codes[:, None, :] == np.arange(_SIZE)[:, None]).astype(np.float32)


def _pseudo_values(single: Array, multi: Array) -> Array:
    """Return jackknife pseudo-values (S, 6, 6, N) of transition minus floor, which is their mean over S and N."""
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


def _swap_p(pairs: Array, seeds: int, observed: Array) -> Array:
    """Return the share of swaps within seeds, including none, whose absolute difference reaches `observed` (6x6)."""
    seed = np.tile(np.arange(seeds), 2)
    different = np.where((seed[:, None] != seed)[:, :, None, None], pairs, 0.0)
    swap = (np.arange(2**seeds - 1)[:, None] >> np.arange(seeds)) & 1  # not all swapped: that only exchanges the names
    is_single = np.concatenate([1 - swap, swap], axis=1).astype(np.float64)
    from_single = (is_single @ different.reshape(2 * seeds, -1)).reshape(len(swap), 2 * seeds, -1)
    difference = (from_single * (1 - 2 * is_single)[:, :, None]).sum(axis=1) / (seeds * (seeds - 1))
    larger: Array = (np.abs(difference) >= np.abs(observed).ravel() - 1e-6).mean(axis=0)
    return larger.reshape(_SIZE, _SIZE)
