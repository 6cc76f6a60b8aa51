"""How far examples fall into the same category again: agreement of categories between runs, corrected for chance.

Special about it: chance is what two runs with these shares would agree on if they sorted the examples independently.
Members are never thrown together for that, because members with different shares would look like agreement; they are
compared each by itself and then averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.soi import SOI
from soi_lib.analysis.statistics import RESAMPLES, Interval
from soi_lib.errors import FormatError

Array = npt.NDArray[Any]


def repeat_kappa(
    codes: npt.ArrayLike | Sequence[npt.ArrayLike],
    category: SOI | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Cohen's kappa between the runs of one setting, averaged over all pairs of runs, with an interval over examples.

    codes: (S, N) as `categorize` gives them, a row a seed, the same examples in the same order; or a list of such
    arrays, one a member, with equally many rows. 0 is chance, 1 perfect repetition. `category` asks for one category
    against all others. Value and interval are NaN where nothing can repeat: with one run, or when every example is in
    one category. Raises FormatError on codes that are no categories or have different numbers of runs.
    """
    groups = [np.atleast_2d(np.asarray(g)) for g in (codes if isinstance(codes, list | tuple) else [codes])]
    seeds, n = len(groups[0]), sum(g.shape[1] for g in groups)
    for g in groups:
        if g.ndim != 2 or g.dtype.kind not in "iu" or not g.size or g.min() < 0 or g.max() >= len(SOI):
            raise FormatError("these are no categories", found=f"{g.dtype} {g.shape}", expected="codes 0 to 5, (S, N)")
        if len(g) != seeds:
            raise FormatError("the members have different numbers of runs", found=len(g), expected=seeds)
    if seeds < 2:
        return Interval(np.nan, np.nan, np.nan, level, n, seeds)
    rng = np.random.default_rng(seed)
    above = np.zeros(resamples + 1)  # the first is the sample itself
    room = np.zeros(resamples + 1)
    for g in groups:
        chosen = g if category is None else (g == category).astype(np.int8)
        kinds, counts = np.unique(chosen, axis=1, return_counts=True)
        weights = np.vstack([counts, rng.multinomial(counts.sum(), counts / counts.sum(), size=resamples)])
        observed, chance = _agreement(kinds, weights / counts.sum())
        above += counts.sum() * (observed - chance)
        room += counts.sum() * (1 - chance)
    kappa = np.divide(above, room, out=np.full_like(above, np.nan), where=room > 1e-12)
    if np.isnan(kappa[0]):
        return Interval(np.nan, np.nan, np.nan, level, n, seeds)
    low, high = np.nanquantile(kappa[1:], ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(kappa[0]), float(low), float(high), level, n, seeds)


def _agreement(kinds: Array, weights: Array) -> tuple[Array, Array]:
    """Observed and chance agreement (B,) over pairs of runs; kinds (S, K) codes, weights (B, K) that add up to 1."""
    seeds = len(kinds)
    pairs = seeds * (seeds - 1)
    hot = (kinds[:, None, :] == np.unique(kinds)[:, None]).astype(np.float64)  # (S, C, K)
    together = hot.sum(axis=0)  # (C, K): in how many runs this kind of example is in category c
    same = (together * (together - 1)).sum(axis=0) / pairs
    shares = np.einsum("bk,sck->bsc", weights, hot)
    chance = ((shares.sum(axis=1) ** 2 - (shares**2).sum(axis=1)).sum(axis=1)) / pairs
    return weights @ same, chance


def change_rates(codes: npt.ArrayLike, single: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Per example, how often its category differs: between two settings (N,), and between runs of each (2, N).

    codes: (S, N) as `categorize` gives them, the first `single` rows runs of one setting, the others of the other.
    The first minus the mean of the other two is 0 on average when the setting changes nothing for the example, and
    above 0 when it does (an energy distance); the floor of one setting alone would not do, since the categories may
    vary less in the other. A setting of one run has no floor (NaN).
    """
    g = np.asarray(codes)
    hot = g[:, None, :] == np.arange(len(SOI))[:, None]
    sides = [(hot[:single].sum(axis=0), single), (hot[single:].sum(axis=0), len(g) - single)]
    across = 1 - (sides[0][0] * sides[1][0]).sum(axis=0) / (sides[0][1] * sides[1][1])
    floors = [
        1 - (count * (count - 1)).sum(axis=0) / (runs * (runs - 1)) if runs > 1 else np.full(g.shape[1], np.nan)
        for count, runs in sides
    ]
    return across, np.stack(floors)
