"""Which moves between categories are more than noise: every cell of a transition, held against its noise floor.

Special about it: both sides use pairs of different seeds only. Runs of one seed share their heads and their order of
examples, so they agree more; a floor has no such pairs, and a transition must not have them either. A transition minus
its floor is a mean over pairs of seeds, so removing one seed at a time (the jackknife) turns it into one value per seed
and example, and from there on it is an `Effect` like any other. Nothing is drawn at random: a z test takes the
examples as the source of chance, and what a whole run has in common (one unlucky seed) is held against all ways to swap
the two settings within seeds, which are enumerated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.effects import Effect, mean_effect
from soi_lib.analysis.soi import SOI
from soi_lib.errors import AlignmentError

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]
_SIZE = len(SOI)
OFF_DIAGONAL = ~np.eye(_SIZE, dtype=bool)


@dataclass(frozen=True)
class TransitionTest:
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


def transition_excess(single: npt.ArrayLike, multi: npt.ArrayLike) -> TransitionTest:
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
    hot = [(side[:, None, :] == np.arange(_SIZE)[:, None]).astype(np.float32) for side in (a, b)]
    values = _pseudo_values(*hot)
    effects = tuple(tuple(mean_effect(values[:, i, j]) for j in range(_SIZE)) for i in range(_SIZE))
    pairs = _pair_shares(np.concatenate(hot))
    transition, floor = _sides(pairs, np.arange(seeds), np.arange(seeds, 2 * seeds))
    z = np.array([[_z(effect) for effect in row] for row in effects])
    p = np.where(np.isnan(z) | np.eye(_SIZE, dtype=bool), np.nan, 2 * ndtr(-np.abs(z)))
    swap_p = _swap_p(pairs, seeds, transition - floor)
    return TransitionTest(transition, floor, p, swap_p, effects, n, seeds)


def _z(effect: Effect) -> float:
    return effect.value / effect.by_examples**0.5 if effect.by_examples > 0 else np.nan


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
