"""How repeatable example scores are: agreement between runs that differ in the seed, for every dataset and score."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pandas as pd

from paper.claims.verdicts import Evidence, Mode, codes
from soi_lib.analysis.reliability import reliability, runs_needed, spearman_brown
from soi_lib.analysis.soi import SOI

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
    """Return one row per score: mean agreement over datasets in both modes, and the seeds needed for agreement .8."""
    mean = table.pivot_table(index="score", columns="mode", values="agreement", sort=False)
    return pd.DataFrame(
        {f"agreement, {mode} mode": mean[mode] for mode in mean}
        | {f"seeds for {TARGET}, {mode} mode": mean[mode].map(lambda a: runs_needed(a, TARGET)) for mode in mean}
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

    All pairs have different seeds, so that what runs with the same seed share does not count.
    """
    rows = []
    for _, results, dataset in evidence.datasets:
        alone, together = (codes(results, dataset, setting) for setting in ((dataset,), results.members))
        pairs = list(permutations(range(len(alone)), 2))
        sides = {"alone": (alone, alone), "together": (together, together), "alone to together": (alone, together)}
        kappa = {k: np.mean([_kappa(a[s], b[t]) for s, t in pairs]) for k, (a, b) in sides.items()}
        rows.append({"dataset": dataset} | kappa)
    return pd.DataFrame(rows)


def _kappa(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> float:
    """Return Cohen's kappa of two runs, codes (N,) each; scikit-learn's takes milliseconds just to check its input."""
    kinds = len(SOI)
    shares = np.bincount(kinds * a.astype(int) + b, minlength=kinds**2).reshape(kinds, kinds) / len(a)
    chance = shares.sum(axis=1) @ shares.sum(axis=0)
    return float((np.trace(shares) - chance) / (1 - chance))
