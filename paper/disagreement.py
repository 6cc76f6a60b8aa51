"""Disagreement or error? Examples on which raters disagree, held against examples whose label was flipped.

The corpora were cut at a distance of the mean rating from zero, and raters agree more the further it
is. So disagreement is compared among examples of equal distance: contested examples are chosen within narrow bins of
it, and a correlation with disagreement is a partial one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from soi_lib.analysis.datamap import confidence_variability
from soi_lib.analysis.label_issues import margins
from soi_lib.analysis.soi import SOI, categorize, forgetting_events
from soi_lib.analysis.statistics import Effect, contributions, mean_effect
from soi_lib.dynamics import TrainingDynamics

Array = npt.NDArray[np.float64]
ORDER = (SOI.ACE, SOI.ELE, SOI.LLE, SOI.FRGE_1, SOI.FRGE_2, SOI.UNE)
"""The categories from the least to the most doubtful."""


def disagreement(ratings: pd.DataFrame) -> pd.DataFrame:
    """How far raters disagree on each example, from the columns id and ratings (a list of whole numbers).

    Columns: id; distance, of the mean rating from zero; entropy of the ratings in bits; opposed, the share of ratings
    with another sign than the mean.
    """
    from scipy.stats import entropy  # type: ignore[import-untyped]

    rows = []
    for key, given in zip(ratings["id"], ratings["ratings"], strict=True):
        values = np.asarray(given)
        mean = float(values.mean())
        bits = float(entropy(np.unique(values, return_counts=True)[1], base=2))
        opposed = float((np.sign(values) == -np.sign(mean)).mean()) if mean else 0.5
        rows.append({"id": key, "distance": abs(mean), "entropy": bits, "opposed": opposed})
    return pd.DataFrame(rows)


def contested(table: pd.DataFrame, share: float = 0.2, bins: int = 10) -> npt.NDArray[np.bool_]:
    """The `share` of the rows with the highest entropy within each of `bins` equally large bins of distance: (N,)."""
    place = table["distance"].rank(method="first", pct=True).mul(bins).apply(np.ceil)
    height = table["entropy"].groupby(place).rank(method="first", pct=True, ascending=False)
    return np.asarray(height <= share + 1e-9)


def doubts(dynamics: TrainingDynamics) -> dict[str, Array]:
    """Scores that are larger the more an example's label is in doubt: (N,) each, by name."""
    confidence, variability = confidence_variability(dynamics.p_gold)
    place = np.argsort(ORDER)
    return {
        "confidence": -confidence,
        "variability": variability,
        "aum": -margins(dynamics).mean(axis=0),
        "correctness": -dynamics.correct.mean(axis=0),
        "forgetfulness": forgetting_events(dynamics.history, dynamics.epochs).astype(np.float64),
        "category": place[categorize(dynamics)].astype(np.float64),
    }


def separation(flipped: Array, disputed: Array) -> Effect:
    """AUROC by which a score tells flipped labels (S, N) from contested ones (S, M), a row a seed; .5 is chance."""
    gold = np.repeat([1, 0], [flipped.shape[1], disputed.shape[1]])
    return mean_effect(contributions("auc", gold, np.concatenate([flipped, disputed], axis=1)))


def partial_correlation(first: Array, second: Array, control: Array) -> Effect:
    """Rank correlation of `first` (N,) with `second` (S, N), a row a seed, without what both share with `control` (N,).

    Ranks of both are replaced by what a line in the ranks of `control` leaves of them.
    """
    left = _residual_ranks(first[None], control)
    right = _residual_ranks(second, control)
    product = left * right
    correlation = product.mean(axis=1, keepdims=True)
    # the first-order share of an example in a correlation; its mean is the correlation
    return mean_effect(product - correlation * ((left**2 + right**2) / 2 - 1))


def _residual_ranks(values: Array, control: Array) -> Array:
    from scipy.stats import rankdata

    def ranks(x: npt.NDArray[Any]) -> Array:
        r: Array = rankdata(x, axis=1)
        return r - r.mean(axis=1, keepdims=True)

    y, c = ranks(values), ranks(control[None])
    rest = y - (y * c).sum(axis=1, keepdims=True) / (c**2).sum() * c
    return rest / np.sqrt((rest**2).mean(axis=1, keepdims=True))
