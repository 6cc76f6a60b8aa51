"""How well the scores of examples agree between runs that differ only in the seed, and how many runs they need.

All scores are treated alike. The values of a run are standardised (ranks for numbers, one indicator per category for
categories), so agreement is a mean product over examples: Spearman's correlation for numbers and, for categories, a
number that equals Cohen's kappa for two runs and extends to shares of runs. It is measured between disjoint groups of
k runs, and predicted for any k from pairs of single runs (Spearman and Brown 1910).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soi_lib.analysis.datamap import confidence_variability
from soi_lib.analysis.label_issues import margins
from soi_lib.analysis.soi import SOI, categorize, forgetting_events
from soi_lib.analysis.statistics import mean_effect, ranks
from soi_lib.dynamics import TrainingDynamics, pack_history, shared_rows
from soi_lib.errors import AlignmentError, RangeError

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
_SPLITS = 50
"""Maximum number of ways to choose two groups of k runs; they overlap so much that more add nothing."""


@dataclass(frozen=True)
class Reliability:
    """The result of `reliability`.

    table: one row per score. agreement (between two runs) with low and high; runs_needed with runs_low and runs_high:
    how many runs to average until two such averages agree by `target` (inf if runs do not agree at all); early and
    late: agreement of the score over the first and the last half of the epochs. NaN if a score is constant.
    curve: one row per score and number of runs averaged, with measured and predicted agreement.
    n, runs, epochs: the number of each.
    """

    table: pd.DataFrame
    curve: pd.DataFrame
    target: float
    n: int
    runs: int
    epochs: int

    @property
    def advice(self) -> str:
        """A sentence on what these runs are sufficient for."""
        known = self.table.dropna(subset=["agreement"]).sort_values("runs_needed", kind="stable")
        if known.empty:
            return "No score varies between the examples, so they cannot be ranked."
        enough = known["runs_needed"] <= self.runs
        if not enough.any():
            best: Any = known.iloc[0]
            low, high = best["runs_low"], best["runs_high"]
            span = f"{low:.0f} to {high:.0f}" if np.isfinite(high) else f"at least {low:.0f}"
            return (
                f"Do not select or remove examples by these {self.runs} runs: even averaged, no score reaches an "
                f"agreement of {self.target:g}. The score {best['score']} comes closest and needs "
                f"{_runs(best['runs_needed'])} ({span})."
            )
        good = _listing(known.loc[enough, "score"].tolist())
        more = [f"{row['score']} ({_runs(row['runs_needed'])})" for _, row in known[~enough].iterrows()]
        but = f", but not by {_listing(more)}" if more else ""
        return f"Averaged over these {self.runs} runs, examples may be selected or removed by {good}{but}."


def reliability(
    runs: Sequence[TrainingDynamics], *, early: float = 0.5, target: float = 0.8, level: float = 0.95
) -> Reliability:
    """Measure how well every score agrees between runs of the same examples, and how many runs it needs.

    Scores: category, confidence, variability, forgetfulness, correctness, and area under the margin (aum; Pleiss et al.
    2020) if the margins are known. Intervals combine the spread between runs with that between examples; with two runs
    they include only the latter.

    Args:
        runs: two or more dynamics of one setting that differ only in the seed.
        early: as in `categorize`.
        target: the agreement that counts as reliable, in (0, 1).
        level: level of the intervals.

    Raises:
        AlignmentError: fewer than two runs, two runs of one seed, or runs whose examples, epochs or recording differ.
        RangeError: `target` is not in (0, 1).
    """
    import pandas as pd

    if not 0 < target < 1:
        raise RangeError("target is out of range", found=target, expected="between 0 and 1")
    rows = _checked(runs)
    epochs, half = runs[0].epochs, runs[0].epochs // 2
    whole = _scores(runs, rows, slice(None), early)
    parts = [_scores(runs, rows, part, early) for part in (slice(0, half), slice(half, None))] if half else []
    table, curve = [], []
    for name, values in whole.items():
        agreement, low, high = _agreement(values, level)
        line = {"score": name, "measure": "kappa" if name == "category" else "Spearman", "agreement": agreement}
        line |= {"low": low, "high": high, "runs_needed": runs_needed(agreement, target)}
        line |= {"runs_low": runs_needed(high, target), "runs_high": runs_needed(low, target)}
        halves = [_agreement(part[name], level)[0] for part in parts] or [np.nan, np.nan]
        table.append(line | {"early": halves[0], "late": halves[1]})
        for k in range(1, len(runs) // 2 + 1):
            predicted = spearman_brown(agreement, k)
            curve.append({"score": name, "k": k, "measured": _measured(values, k), "predicted": predicted})
    return Reliability(pd.DataFrame(table), pd.DataFrame(curve), target, whole["category"].shape[2], len(runs), epochs)


def spearman_brown(agreement: float, k: float) -> float:
    """Return the agreement of means over `k` runs if single runs agree by `agreement`."""
    return k * agreement / (1 + (k - 1) * agreement)


def runs_needed(agreement: float, target: float) -> float:
    """Return the smallest number of runs whose mean reaches `target` by `spearman_brown`; inf without agreement."""
    if np.isnan(agreement) or agreement >= 1:
        return agreement
    if agreement <= 0:
        return float("inf")
    return max(1.0, float(np.ceil(target * (1 - agreement) / (agreement * (1 - target)) - 1e-9)))


def _checked(runs: Sequence[TrainingDynamics]) -> list[npt.NDArray[Any] | slice]:
    """Return the rows of the common ids in every run, in one order; raise if the runs cannot be compared."""
    if len(runs) < 2:
        raise AlignmentError("agreement needs several runs", found=len(runs), expected="at least 2")
    for what, values in (
        ("have different numbers of epochs", [run.epochs for run in runs]),
        ("were recorded in different modes", [run.meta.record for run in runs]),
    ):
        if len(set(values)) > 1:
            raise AlignmentError(f"the runs {what}", found=" and ".join(dict.fromkeys(map(str, values))))
    for keys in ([run.meta.seed for run in runs if run.meta.seed is not None], [run.fingerprint() for run in runs]):
        if len(set(keys)) < len(keys):
            raise AlignmentError("two runs are the same or have the same seed", hint="give runs with different seeds")
    return shared_rows(runs)


def _scores(
    runs: Sequence[TrainingDynamics], rows: list[npt.NDArray[Any] | slice], part: slice, early: float
) -> dict[str, Array]:
    """Return the values of all scores over a part of the epochs: (S, C, N); C is 6 for the category, otherwise 1."""
    has_margins = runs[0].meta.classes == 2 or all(run.logits is not None for run in runs)
    out = []
    for run, row in zip(runs, rows, strict=True):
        correct = run.correct[part][:, row]
        confidence, variability = confidence_variability(run.p_gold[part][:, row])
        hot = categorize(correct, early) == np.arange(len(SOI))[:, None]
        values = {"category": hot, "confidence": confidence[None], "variability": variability[None]}
        values["correctness"] = correct.mean(axis=0, keepdims=True)
        if has_margins:
            values["aum"] = margins(run)[part][:, row].mean(axis=0, keepdims=True)
        values["forgetfulness"] = forgetting_events(pack_history(correct), len(correct))[None]
        out.append(values)
    return {name: np.stack([values[name] for values in out], dtype=np.float64) for name in out[0]}


def _standardised(values: Array) -> Array:
    """Return (G, C, N) with means 0 and, in each of the G, a total variance of 1 over the C rows; NaN if it is 0.

    Numbers (C = 1) are replaced by ranks first.
    """
    x = ranks(values) if values.shape[1] == 1 else values
    x = x - x.mean(axis=2, keepdims=True)
    total = (x**2).mean(axis=2).sum(axis=1)[:, None, None]
    return np.divide(x, total**0.5, out=np.full_like(x, np.nan), where=total > 1e-12)


def _agreement(values: Array, level: float) -> tuple[float, float, float]:
    """Return agreement over all pairs of single runs, with its interval: a jackknife over runs, on Fisher's scale."""
    z = _standardised(values)
    runs, n = len(z), z.shape[2]
    if np.isnan(z).any():
        return np.nan, np.nan, np.nan
    by_run = np.zeros((runs, n))
    square = (z**2).sum(axis=1)
    for i, j in combinations(range(runs), 2):
        product = (z[i] * z[j]).sum(axis=0)
        # the first-order contribution of each example; the mean is the correlation
        pair = product - product.mean() * ((square[i] + square[j]) / 2 - 1)
        by_run[i] += pair
        by_run[j] += pair
    pairs = runs * (runs - 1) / 2
    every = by_run.sum(axis=0) / 2
    if runs > 2:
        without = (every - by_run) / (pairs - (runs - 1))
        effect = mean_effect(runs * every / pairs - (runs - 1) * without)
    else:
        effect = mean_effect(every[None])
    value = min(max(effect.value, -1 + 1e-9), 1 - 1e-9)
    reach = effect.reach(level) / (1 - value**2)
    return effect.value, float(np.tanh(np.arctanh(value) - reach)), float(np.tanh(np.arctanh(value) + reach))


def _measured(values: Array, k: int) -> float:
    """Return the mean agreement between the means of two disjoint groups of `k` runs."""
    numbers = range(len(values))
    splits = [
        (first, second)
        for first in combinations(numbers, k)
        for second in combinations([r for r in numbers if r > first[0] and r not in first], k)
    ]
    splits = splits[:: -(-len(splits) // _SPLITS)]
    sides = [_standardised(np.stack([values[list(split[side])].mean(axis=0) for split in splits])) for side in (0, 1)]
    return float((sides[0] * sides[1]).sum(axis=1).mean())


def _runs(number: float) -> str:
    if not np.isfinite(number):
        return "no number of runs"
    return "1 run" if number == 1 else f"{number:.0f} runs"


def _listing(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
