"""How repeatable example scores are: agreement between runs that differ in the seed, for every dataset and score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from paper.claims.judge import Array, measured
from paper.claims.verdicts import Evidence, Mode, codes
from soi_lib.analysis.reliability import reliability, runs_needed, spearman_brown
from soi_lib.analysis.soi import SOI
from soi_lib.analysis.statistics import mean_effect

MODES: dict[Mode, str] = {"eval": "evaluation", "train": "train"}
TARGET = 0.8
SEEDS = 12
"""The largest number of seeds in the curves."""


def agreements(evidence: Evidence) -> pd.DataFrame:
    """Return one row per dataset trained alone, recording mode and score: agreement of two runs, and runs needed.

    Agreement is Cohen's kappa for the category and Spearman's rank correlation for other scores, with 95 % intervals.
    """
    rows = []
    for _, results, dataset in evidence.datasets:
        for mode, name in MODES.items():
            found = reliability([results.run((dataset,), seed).dynamics(dataset, mode) for seed in results.seeds])
            rows.append(found.table.assign(dataset=dataset, mode=name, seeds=found.runs))
    return pd.concat(rows, ignore_index=True)


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return the agreement of averages over 1 to 12 seeds by score, predicted by Spearman-Brown from dataset means."""
    mean = table[table["mode"] == "evaluation"].groupby("score", sort=False)["agreement"].mean()
    return pd.DataFrame(
        {"score": score, "seeds": k, "agreement": spearman_brown(float(value), k)}
        for score, value in mean.items()
        for k in range(1, SEEDS + 1)
    )


def needed(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per score: mean agreement in both modes, and how many runs an agreement of .8 needs.

    The runs to average are predicted for every dataset in evaluation mode: the number of datasets in which one is
    enough, the median, and the most.
    """
    mean = table.pivot_table(index="score", columns="mode", values="agreement", sort=False)
    runs = table[table["mode"] == "evaluation"].groupby("score", sort=False)["runs_needed"]
    return pd.DataFrame(
        {f"agreement, {mode} mode": mean[mode] for mode in mean}
        | {"datasets": runs.count(), "one run is enough": runs.agg(lambda n: int((n == 1).sum()))}
        | {"median runs": runs.median(), "most runs": runs.max()}
    ).reset_index()


def held_out(known: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Compare the `agreements` of new datasets with those predicted from known ones, in evaluation mode.

    One row per new dataset and score: its agreement (value, with low and high) and the seeds needed for .8; the seeds
    predicted from the mean over known datasets; their lowest and highest agreement, and whether value lies between.
    """
    spread = known[known["mode"] == "evaluation"].groupby("score")["agreement"].agg(["mean", "min", "max"])
    rows = new[(new["mode"] == "evaluation") & ~new["dataset"].isin(known["dataset"])].dropna(subset=["agreement"])
    of = spread.loc[rows["score"]].set_index(rows.index)
    return pd.DataFrame(
        {"score": rows["score"], "dataset": rows["dataset"], "value": rows["agreement"]}
        | {"low": rows["low"], "high": rows["high"], "seeds": rows["runs_needed"]}
        | {"predicted": of["mean"].map(lambda a: runs_needed(a, TARGET)), "lowest": of["min"], "highest": of["max"]}
        | {"inside": rows["agreement"].between(of["min"], of["max"])}
    )


def averages(evidence: Evidence) -> pd.DataFrame:
    """Return how two averages agree in evaluation mode, measured and predicted by Spearman-Brown from single runs.

    One row per dataset trained alone, score, and number k of runs averaged on each side, as far as the seeds allow.
    """
    tables = [
        reliability([results.run((d,), seed).dynamics(d, "eval") for seed in results.seeds]).curve.assign(dataset=d)
        for _, results, d in evidence.datasets
    ]
    return pd.concat(tables, ignore_index=True)


def kappas(evidence: Evidence) -> pd.DataFrame:
    """Return one row per dataset: kappa of the categories between seeds (alone, together), and from alone to together.

    The change is kappa from alone to together minus the mean of the two others, with its 95 % interval over seeds
    (value, low, high). All pairs have different seeds, so that what runs with the same seed share does not count.
    """
    rows = []
    for _, results, dataset in evidence.datasets:
        alone, together = (codes(results, dataset, setting) for setting in ((dataset,), results.members))
        sides = {"alone": (alone, alone), "together": (together, together), "alone to together": (alone, together)}
        pairs = {name: np.array([[_kappa(x, y) for y in b] for x in a]) for name, (a, b) in sides.items()}
        effect = mean_effect(_jackknife(*pairs.values())[:, None])
        kappa = {name: _off_diagonal(values) for name, values in pairs.items()}
        rows.append(measured(effect, dataset=dataset, **kappa))
    return pd.DataFrame(rows)


def _jackknife(alone: Array, together: Array, across: Array) -> Array:
    """Return the change of kappa as one pseudo-value per seed, from the kappas (S, S) of all pairs of runs.

    With few seeds the jackknife is conservative: its intervals are too wide rather than too narrow.
    """

    def change(keep: list[int]) -> float:
        within, between, crossed = (_off_diagonal(k[np.ix_(keep, keep)]) for k in (alone, together, across))
        return crossed - (within + between) / 2

    seeds = list(range(len(alone)))
    left_out = [change([s for s in seeds if s != out]) for out in seeds]
    return len(seeds) * change(seeds) - (len(seeds) - 1) * np.array(left_out)


def _off_diagonal(kappa: Array) -> float:
    return float(kappa[~np.eye(len(kappa), dtype=bool)].mean())


def _kappa(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> float:
    """Return Cohen's kappa of two runs, codes (N,) each; scikit-learn's takes milliseconds just to check its input."""
    kinds = len(SOI)
    shares = np.bincount(kinds * a.astype(int) + b, minlength=kinds**2).reshape(kinds, kinds) / len(a)
    chance = shares.sum(axis=1) @ shares.sum(axis=0)
    return float((np.trace(shares) - chance) / (1 - chance))
