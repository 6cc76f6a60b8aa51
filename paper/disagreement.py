"""Disagreement or error? Compare examples on which raters disagree with examples whose label was flipped.

The corpora leave out texts whose mean rating is close to zero. The further it is from zero, the more raters agree; the
rarer class is harder, and raters disagree on it more. So contested examples are chosen among those with the same label
and a similar distance from zero, and correlations with disagreement are partial correlations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from paper.claims.judge import measured
from paper.claims.verdicts import Mode
from paper.comparison import interval
from paper.datasets.flipped import RATE, flip
from paper.datasets.sentiment import THRESHOLD, ratings
from soi_lib.analysis.datamap import confidence_variability
from soi_lib.analysis.label_issues import TINY, label_issues, margins
from soi_lib.analysis.soi import SOI, categorize, forgetting_events
from soi_lib.analysis.statistics import Effect, contributions, mean_effect, ranks
from soi_lib.dynamics import TrainingDynamics
from soi_lib.runs.results import Results

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Shares = dict[tuple[str, str], dict[str, Array]]
"""Contributions by measure and score, then by dataset."""
ORDER = (SOI.ACE, SOI.ELE, SOI.LLE, SOI.FRGE_1, SOI.FRGE_2, SOI.UNE)
"""The categories from the least to the most doubtful."""
MEASURES = {"entropy": "correlation with entropy", "opposed": "correlation with other side"}
OVER_REST, FLIPPED_OVER_REST, APART = "AUROC, contested", "AUROC, flipped", "AUROC, flipped over contested"
MEAN = "mean"
"""The name of the row for all datasets, which count equally."""


def disagreement(ratings: pd.DataFrame) -> pd.DataFrame:
    """Return how much raters disagree on each example, from the columns id and ratings (a list of integers).

    Columns: id; raters, their number; distance of the mean rating from zero; entropy of the ratings in bits, with the
    Miller-Madow correction, since few ratings underestimate it; opposed, the share of ratings whose sign is opposite to
    the mean's.
    """
    rows = []
    for key, given in zip(ratings["id"], ratings["ratings"], strict=True):
        values = np.asarray(given)
        mean, n = float(values.mean()), len(values)
        counts = np.unique(values, return_counts=True)[1]
        bits = float(-(counts / n) @ np.log2(counts / n) + (len(counts) - 1) / (2 * n * np.log(2)))
        opposed = float((np.sign(values) == -np.sign(mean)).mean()) if mean else 0.5
        # rounded so that equal ratings are ties on every processor, however it rounds logarithms
        rows.append({"id": key, "raters": n, "distance": abs(mean), "entropy": round(bits, 9), "opposed": opposed})
    return pd.DataFrame(rows)


def contested(table: pd.DataFrame, share: float = 0.2, bins: int = 5) -> Mask:
    """Return a mask (N,) of the `share` with the highest entropy among rows of the same `gold` and similar distance.

    Similar means: in the same of `bins` equally large bins of the distance within a label.
    """
    place = table.groupby("gold")["distance"].rank(method="first", pct=True).mul(bins).apply(np.ceil)
    height = table.groupby([table["gold"], place])["entropy"].rank(method="first", pct=True, ascending=False)
    return np.asarray(height <= share + 1e-9)


def rated(dataset: str, ids: Sequence[str], gold: npt.NDArray[Any]) -> pd.DataFrame:
    """Return one row per example of `ids`, in their order: the columns of `disagreement`, gold, and contested."""
    given = ratings(dataset).set_index("id").loc[list(ids)].reset_index()
    table = disagreement(given).assign(gold=gold)
    return table.assign(contested=contested(table))


def trained(results: Results, dataset: str) -> pd.DataFrame:
    """Return `rated` for the examples that `dataset` alone was trained on, in the order of the dynamics."""
    dynamics = results.run((dataset,)).dynamics(dataset)
    return rated(dataset, list(dynamics.ids), dynamics.gold)


def what_raters_said(results: Results) -> pd.DataFrame:
    """Return one row per dataset: the share of texts left out of the corpus, and how often a rating has the other sign.

    The latter is the mean of `opposed` over the texts left out, those trained on, and the contested ones among these.
    """
    rows = []
    for dataset in results.members:
        every, kept = disagreement(ratings(dataset)), trained(results, dataset)
        out = every["distance"] < THRESHOLD
        parts = {"left out": every[out], "trained on": kept, "contested": kept[kept["contested"]]}
        rows.append(
            {"dataset": dataset, "texts left out": float(out.mean()), "contested": int(kept["contested"].sum())}
            | {f"other side, {name}": float(part["opposed"].mean()) for name, part in parts.items()}
        )
    return pd.DataFrame(rows)


def doubts(dynamics: TrainingDynamics) -> dict[str, Array]:
    """Return scores that are larger the more an example's label is in doubt: (N,) each, by name."""
    confidence, variability = confidence_variability(dynamics.p_gold)
    place = np.argsort(ORDER)
    return {
        "confidence": -confidence,
        "mean loss": -np.log(np.clip(dynamics.p_gold, TINY, 1)).mean(axis=0, dtype=np.float64),
        "AUM": -margins(dynamics).mean(axis=0),
        "variability": variability,
        "correctness": -dynamics.correct.mean(axis=0),
        "forgetting": forgetting_events(dynamics.history, dynamics.epochs).astype(np.float64),
        "category": place[categorize(dynamics)].astype(np.float64),
    }


def doubts_by_seed(results: Results, dataset: str, mode: Mode = "eval") -> dict[str, Array]:
    """Return the `doubts` of a dataset trained alone: (S, N) each, one row per seed."""
    found = [doubts(results.run((dataset,), seed).dynamics(dataset, mode)) for seed in results.seeds]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def correlations(results: Results, mode: Mode = "eval") -> pd.DataFrame:
    """Return how closely each score follows disagreement: value, low, high per measure, score and dataset, and `MEAN`.

    Values are partial rank correlations, controlling for distance, label and number of raters.
    """
    shares: Shares = {}
    for dataset in results.members:
        table, scores = trained(results, dataset), doubts_by_seed(results, dataset, mode)
        controls = table[["distance", "gold", "raters"]].to_numpy(dtype=np.float64).T
        for key, name in MEASURES.items():
            for score, values in scores.items():
                found = partial_correlation(table[key].to_numpy(), values, controls)
                shares.setdefault((name, score), {})[dataset] = found
    return _summary(shares)


def contested_auroc(results: Results) -> pd.DataFrame:
    """Return the AUROC of each score for contested examples against the rest: rows as in `correlations`."""
    shares: Shares = {}
    for dataset in results.members:
        chosen = trained(results, dataset)["contested"].to_numpy()
        for score, values in doubts_by_seed(results, dataset).items():
            shares.setdefault((OVER_REST, score), {})[dataset] = separation(values[:, chosen], values[:, ~chosen])
    return _summary(shares)


def held_out_auroc(results: Results) -> pd.DataFrame:
    """Return the AUROC of cleanlab's self-confidence on test examples, a tenth of which are given the other label.

    The self-confidence of an example is the probability of its label under a model that was not trained on it.
    Rows as in `correlations`, with the three comparisons as measure.
    """
    shares: Shares = {}
    for dataset in results.members:
        found = results.evaluated(dataset, (dataset,), "test")
        _, wrong = flip(found.gold, 2, RATE, seed=0)
        chosen = rated(dataset, list(found.ids), found.gold)["contested"].to_numpy()
        doubt = -np.where(wrong, 1 - found.p_gold, found.p_gold)
        for name, auroc in comparisons(doubt, chosen, wrong).items():
            shares.setdefault((name, "self-confidence"), {})[dataset] = auroc
    return _summary(shares)


def flipped_auroc(flipped: Results, clean: Results) -> pd.DataFrame:
    """Return the AUROC of each score in runs that were trained on the examples of `clean` with some labels flipped.

    Rows as in `correlations`, with the three comparisons as measure.
    """
    shares: Shares = {}
    for name, dataset in zip(flipped.members, clean.members, strict=True):
        disputed, wrong = _kinds(flipped, name, clean, dataset)
        for score, values in doubts_by_seed(flipped, name).items():
            for measure, auroc in comparisons(values, disputed, wrong).items():
                shares.setdefault((measure, score), {})[dataset] = auroc
    return _summary(shares)


def comparisons(doubt: Array, disputed: Mask, wrong: Mask) -> dict[str, Array]:
    """Return the AUROC of a score (S, N) for contested and flipped examples, and for flipped against contested ones.

    Contested examples (N,) whose label was flipped (N,) count as flipped. Contributions as in `separation`.
    """
    disputed = disputed & ~wrong
    rest = ~(disputed | wrong)
    sides = {OVER_REST: (disputed, rest), FLIPPED_OVER_REST: (wrong, rest), APART: (wrong, disputed)}
    return {name: separation(doubt[:, high], doubt[:, low]) for name, (high, low) in sides.items()}


def suspects(results: Results, clean: Results, share: float = 0.1) -> pd.DataFrame:
    """Return the shares of flipped and of contested examples among the `share` with the most suspect labels.

    Rows as in `correlations`, followed by the shares among all examples. `results` may be `clean` itself, in which no
    label was flipped.
    """
    shares: Shares = {}
    for name, dataset in zip(results.members, clean.members, strict=True):
        disputed, wrong = _kinds(results, name, clean, dataset)
        runs = [results.run((name,), seed).dynamics(name) for seed in results.seeds]
        found = [label_issues(run)["id"][: round(share * len(run))] for run in runs]
        top = np.stack([np.isin(run.ids, first) for run, first in zip(runs, found, strict=True)])
        for kind, mask in {"flipped": wrong, "contested": disputed & ~wrong}.items():
            shares.setdefault((kind, "label_issues"), {})[dataset] = (top & mask) / top.mean(axis=1, keepdims=True)
            shares.setdefault((kind, "all examples"), {})[dataset] = np.tile(mask, (len(top), 1)).astype(np.float64)
    return _summary(shares)


def _kinds(results: Results, name: str, clean: Results, dataset: str) -> tuple[Mask, Mask]:
    """Return which training examples are contested, and which have a different label in `clean`: (N,) each."""
    run, other = results.run((name,)).dynamics(name), clean.run((dataset,)).dynamics(dataset)
    gold = pd.Series(other.gold, index=other.ids).loc[run.ids].to_numpy()
    return rated(dataset, list(run.ids), gold)["contested"].to_numpy(), run.gold != gold


def over_chance(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of AUROC with .5 subtracted, for `interval_plot`, whose line is at zero."""
    ends = table[["value", "low", "high"]] - 0.5
    return table.assign(**ends, measure=table["measure"].str.replace("AUROC", "AUROC − 0.5"))


def by_dataset(*tables: pd.DataFrame, score: str = "confidence") -> pd.DataFrame:
    """Return one row per dataset and one column per measure: the value of `score` with its interval, as text."""
    table = pd.concat(tables)
    table = table[table["score"] == score]
    shown = table.assign(text=[interval(row) for row in table.to_dict("records")])
    return shown.pivot_table(
        index="dataset", columns="measure", values="text", aggfunc="first", sort=False
    ).reset_index()


def separation(high: Array, low: Array) -> Array:
    """Compute the AUROC with which a score separates examples (S, N) from others (S, M), one row per seed.

    Returns contributions (S, N + M), whose mean is the AUROC; .5 is chance.
    """
    gold = np.repeat([1, 0], [high.shape[1], low.shape[1]])
    return contributions("auc", gold, np.concatenate([high, low], axis=1))


def partial_correlation(first: Array, second: Array, controls: Array) -> Array:
    """Compute the rank correlation of `first` (N,) with `second` (S, N), one row per seed, controlling for `controls`.

    The ranks of both are replaced by their residuals from a linear fit on the ranks of the controls (K, N). A score
    that does not vary has correlation zero. Returns contributions (S, N), whose mean is the correlation.
    """
    left, right = _residual_ranks(first[None], controls), _residual_ranks(second, controls)
    product = left * right
    correlation = product.mean(axis=1, keepdims=True)
    # the first-order share of an example in a correlation; its mean is the correlation
    varies = (right**2).mean(axis=1, keepdims=True)
    return product - correlation * ((left**2 + right**2) / 2 - (1 + varies) / 2)


def _residual_ranks(values: Array, controls: Array) -> Array:
    known = np.vstack([np.ones(values.shape[1]), ranks(controls)]).T
    ranked = ranks(values).T
    rest = (ranked - known @ np.linalg.lstsq(known, ranked, rcond=None)[0]).T
    size = np.sqrt((rest**2).mean(axis=1, keepdims=True))
    return np.divide(rest, size, out=np.zeros_like(rest), where=size > 1e-6)


def _summary(shares: Shares) -> pd.DataFrame:
    """Return effects with 95 % intervals from contributions by measure, score and dataset, and over all datasets."""
    rows = []
    for (measure, score), parts in shares.items():
        effects: dict[str, Effect] = {name: mean_effect(part) for name, part in parts.items()}
        for name, effect in (effects | {MEAN: mean_effect(list(parts.values()))}).items():
            rows.append(measured(effect, measure=measure, score=score, dataset=name))
    return pd.DataFrame(rows)
