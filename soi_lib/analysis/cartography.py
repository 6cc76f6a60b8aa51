"""Data maps: where every example lies between easy, ambiguous and hard to learn (Swayamdipta et al. 2020).

Special about it: computed in blocks that stay in the processor's cache, on all cores, in double precision, so that a
million examples take some ten milliseconds and agree with the direct formulas to 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.categories import categorize_history, forgetting_events
from soi_lib.dynamics import TrainingDynamics
from soi_lib.dynamics_file import workers
from soi_lib.errors import FormatError, RangeError

if TYPE_CHECKING:
    import pandas as pd

_BLOCK = 8192  # columns: E = 10 in double precision is 640 KB
_SHARE = 16 * _BLOCK  # columns that a thread takes at once
REGIONS = ("easy", "ambiguous", "hard")


def data_map(dynamics: TrainingDynamics, early: float = 0.5) -> pd.DataFrame:
    """The data map of all examples, a row each, in the order of `dynamics`.

    Columns: id; confidence (mean over epochs of p_gold) and variability (population standard deviation of the
    same), float64; correctness (fraction of epochs that were right) float64; forgetfulness (number of forgetting
    events, Toneva et al. 2019) int16; never_learned bool; soi int8 (codes of SOI, with `early`).
    """
    import pandas as pd

    columns = {"id": dynamics.ids.copy(), **metrics(dynamics.p_gold, dynamics.history, dynamics.epochs, early)}
    return pd.DataFrame(columns, copy=False)


def metrics(
    p_gold: npt.NDArray[Any], history: npt.NDArray[np.uint64], epochs: int, early: float = 0.5
) -> dict[str, npt.NDArray[Any]]:
    """The columns of `data_map` but the id, as arrays (N,), from p_gold (E, N) and packed histories (N,) uint64."""
    _check(p_gold)
    confidence, variability = (np.empty(len(history)) for _ in range(2))
    columns = _empty_history_columns(len(history))

    def part(rows: slice) -> None:
        _mean_spread(p_gold[:, rows], confidence[rows], variability[rows])
        _fill_history_columns(history[rows], epochs, early, {name: out[rows] for name, out in columns.items()})

    _in_parts(part, len(history))
    return {"confidence": confidence, "variability": variability, **columns}


def history_metrics(history: npt.NDArray[np.uint64], epochs: int, early: float = 0.5) -> dict[str, npt.NDArray[Any]]:
    """The columns of `data_map` that come from packed histories (N,) uint64 alone."""
    columns = _empty_history_columns(len(history))
    _fill_history_columns(history, epochs, early, columns)
    return columns


def confidence_variability(
    p_gold: npt.NDArray[Any], jobs: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and population standard deviation over epochs of (E, N) probabilities: two (N,) float64.

    Large arrays are divided among `jobs` threads (one a core); the bits do not depend on how many. Raises FormatError
    for another shape.
    """
    _check(p_gold)
    n = p_gold.shape[1]
    mean, spread = np.empty(n), np.empty(n)
    _in_parts(lambda rows: _mean_spread(p_gold[:, rows], mean[rows], spread[rows]), n, jobs)
    return mean, spread


def _check(p_gold: npt.NDArray[Any]) -> None:
    if p_gold.ndim != 2 or not len(p_gold):
        raise FormatError("probabilities have a wrong shape", found=p_gold.shape, expected="(E, N) with E >= 1")


def _in_parts(work: Callable[[slice], None], n: int, jobs: int | None = None) -> None:
    """Do `work` on shares of n examples, on `jobs` threads (one a core) when there are several shares."""
    shares = [slice(start, start + _SHARE) for start in range(0, n, _SHARE)]
    if len(shares) <= 1 or jobs == 1:
        work(slice(0, n))
        return
    with ThreadPoolExecutor(max_workers=jobs or workers(len(shares))) as pool:
        list(pool.map(work, shares))


def _empty_history_columns(n: int) -> dict[str, npt.NDArray[Any]]:
    kinds = {"correctness": np.float64, "forgetfulness": np.int16, "never_learned": np.bool_, "soi": np.int8}
    return {name: np.empty(n, dtype=kind) for name, kind in kinds.items()}


def _fill_history_columns(
    history: npt.NDArray[np.uint64], epochs: int, early: float, out: dict[str, npt.NDArray[Any]]
) -> None:
    np.divide(np.bitwise_count(history), epochs, out=out["correctness"])
    out["forgetfulness"][:] = forgetting_events(history, epochs)
    np.equal(history, 0, out=out["never_learned"])
    out["soi"][:] = categorize_history(history, epochs, early)


def _mean_spread(p_gold: npt.NDArray[Any], mean: npt.NDArray[np.float64], spread: npt.NDArray[np.float64]) -> None:
    """Mean and deviation of every column of (E, N), into two (N,). Numpy lets go of the interpreter meanwhile."""
    epochs, n = p_gold.shape
    for start in range(0, n, _BLOCK):
        block = p_gold[:, start : start + _BLOCK].astype(np.float64)
        m, s = mean[start : start + _BLOCK], spread[start : start + _BLOCK]
        np.add.reduce(block, axis=0, out=m)
        m /= epochs
        block -= m
        block *= block
        np.add.reduce(block, axis=0, out=s)
        s /= epochs
        np.sqrt(s, out=s)


def regions(data: pd.DataFrame, fraction: float = 1 / 3) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks (N,) of the three regions of a data map; each holds round(fraction * N) examples, at least one.

    ambiguous: highest variability. easy: highest confidence, hard: lowest confidence, both by low variability
    among equal confidence. As in Swayamdipta et al. each is ranked by itself, so regions may overlap. Ties go by
    position.
    Raises RangeError when `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise RangeError("fraction is out of range", found=fraction, expected="more than 0 and at most 1")
    confidence, variability = data["confidence"].to_numpy(), data["variability"].to_numpy()
    size = max(1, round(fraction * len(data)))
    order = {
        "easy": np.lexsort((variability, -confidence)),
        "ambiguous": np.argsort(-variability, kind="stable"),
        "hard": np.lexsort((variability, confidence)),
    }
    masks = {}
    for name in REGIONS:
        masks[name] = np.zeros(len(data), dtype=bool)
        masks[name][order[name][:size]] = True
    return masks
