"""How much the categories depend on what was chosen: the number of epochs, `early`, the seed, the recording mode.

No run is trained again for the first two. A history of E epochs holds its first e epochs, so the
categories of a shorter record are read off the longer one. That is a shorter look at the same training, not a
shorter training: its learning rate would have fallen faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from paper.recorded import Results
from soi_lib.analysis.reliability import repeat_kappa
from soi_lib.analysis.soi import SOI, categorize, categorize_history, soi_shares
from soi_lib.analysis.statistics import share_intervals
from soi_lib.analysis.transitions import common_codes
from soi_lib.dynamics import TrainingDynamics, align
from soi_lib.errors import RangeError, StoreError
from soi_lib.runs.config import Setting
from soi_lib.runs.results import setting_name

EARLY = tuple(round(0.1 * k, 1) for k in range(1, 10))
NAMES = [soi.name for soi in SOI]
FORGOTTEN = ("FRGE_1", "FRGE_2")
LEAST_DIFFERENCE = 0.01
"""Differences of shares below one in a hundred have no sign worth speaking of."""


def truncated(dynamics: TrainingDynamics, epochs: int, early: float = 0.5) -> np.ndarray:
    """The SOI codes (N,) int8 that the first `epochs` epochs alone would give. Raises RangeError beyond the record."""
    if not 1 <= epochs <= dynamics.epochs:
        raise RangeError("there are not so many epochs", found=epochs, expected=f"1 to {dynamics.epochs}")
    kept = np.uint64((1 << epochs) - 1)
    return categorize_history(dynamics.history & kept, epochs, early)


def by_epochs(results: Results, *, early: float = 0.5, settings: Sequence[Setting] | None = None) -> pd.DataFrame:
    """Shares by the number of epochs looked at: a row per member, setting, seed and epochs (from 2).

    Columns: member, setting, seed, epochs, n, the six shares, and `settled`, the share of examples that are already
    in the category in which the whole record puts them. `settings` keeps some; by default alone and all together.
    """
    rows = []
    for member, setting, seed, dyn in _runs(results, settings):
        last = categorize(dyn, early)
        for epochs in range(min(2, dyn.epochs), dyn.epochs + 1):
            codes = truncated(dyn, epochs, early)
            rows.append(
                {"member": member, "setting": setting, "seed": seed, "epochs": epochs, "n": len(dyn)}
                | soi_shares(codes)
                | {"settled": float((codes == last).mean())}
            )
    return pd.DataFrame(rows)


def by_early(
    results: Results, *, values: Sequence[float] = EARLY, settings: Sequence[Setting] | None = None
) -> pd.DataFrame:
    """Shares by `early`: a row per member, setting, seed and value. Only early and late learned can differ.

    Columns: member, setting, seed, early, n, the six shares.
    """
    return pd.DataFrame(
        {"member": member, "setting": setting, "seed": seed, "early": early, "n": len(dyn)}
        | soi_shares(categorize(dyn, early))
        for member, setting, seed, dyn in _runs(results, settings)
        for early in values
    )


def by_seed(results: Results, *, early: float = 0.5, settings: Sequence[Setting] | None = None) -> pd.DataFrame:
    """Shares by seed: a row per member, setting and seed, with n and the six shares."""
    return pd.DataFrame(
        {"member": member, "setting": setting, "seed": seed, "n": len(dyn)} | soi_shares(categorize(dyn, early))
        for member, setting, seed, dyn in _runs(results, settings)
    )


def seed_agreement(results: Results, *, early: float = 0.5, settings: Sequence[Setting] | None = None) -> pd.DataFrame:
    """How far seeds agree on examples: a row per member and setting.

    Columns: member, setting, n, seeds, same (share of examples in the same category in every seed), kappa with its
    95 % interval over examples (low, high), and spread, the largest difference between seeds of any category's share.
    Empty numbers with one seed.
    """
    rows = []
    for member in results.members:
        for setting in _chosen(results, member, settings):
            codes = common_codes([results.run(setting, seed).dynamics(member) for seed in results.seeds], early)
            kappa = repeat_kappa(codes)
            shares = np.array([list(soi_shares(row).values()) for row in codes])
            several = len(codes) > 1
            rows.append(
                {
                    "member": member,
                    "setting": setting_name(setting, results.members),
                    "n": codes.shape[1],
                    "seeds": len(codes),
                    "same": float((codes == codes[0]).all(axis=0).mean()) if several else np.nan,
                    "kappa": kappa.value,
                    "low": kappa.low,
                    "high": kappa.high,
                    "spread": float(np.ptp(shares, axis=0).max()) if several else np.nan,
                }
            )
    return pd.DataFrame(rows).round(4)


def effect(results: Results, *, early: float = 0.5, epochs: Iterable[int] | None = None) -> pd.DataFrame:
    """What all together changes in the shares, by the number of epochs looked at and by category.

    A row per member, epochs and category: the share together minus alone, its 95 % interval (low, high; paired by
    example and seed), and whether the interval is without zero. This shows whether a finding depends on E.
    """
    together = results.settings[-1]
    rows: list[dict[str, Any]] = []
    for member in results.members:
        if member not in together or together == (member,):
            continue
        found = [results.run(s, seed).dynamics(member) for s in ((member,), together) for seed in results.seeds]
        runs = [align(found[0], dyn)[1] for dyn in found]  # the same examples, sorted by id
        longest = min(dyn.epochs for dyn in runs)
        for count in range(min(2, longest), longest + 1) if epochs is None else epochs:
            alone, both = np.split(np.stack([truncated(dyn, count, early) for dyn in runs]), 2)
            for name, row in share_intervals(both, alone).iterrows():
                change: dict[str, Any] = {"difference": row["value"], "low": row["low"], "high": row["high"]}
                change["interval without zero"] = bool(row["low"] > 0 or row["high"] < 0)
                rows.append({"member": member, "epochs": count, "category": name} | change)
    return pd.DataFrame(rows).round(4)


def record_modes(trained: Results, evaluated: Results, *, early: float = 0.5) -> pd.DataFrame:
    """Shares recorded in the training pass beside those recorded in evaluation mode, of runs that differ in it only.

    A row per member, setting and mode ("train", "eval"): n, seeds, the six shares (means over the seeds that both
    have), and on the second row `same`, the share of examples in the same category, and kappa between the modes.
    Raises StoreError when the two do not hold one mode each, or share no setting and seed.
    """
    for results, mode in ((trained, "train"), (evaluated, "eval")):
        found = {str(run.manifest["identity"]["training"]["record"]) for run in results.runs}
        if found != {mode}:
            raise StoreError("these runs were recorded in another mode", found=sorted(found), expected=mode)
    have = {(run.setting, run.seed) for run in evaluated.runs}
    rows = []
    for member in trained.members:
        for setting in trained.settings_with(member):
            seeds = [seed for seed in trained.seeds if (setting, seed) in have]
            if not seeds:
                continue
            pairs = [
                common_codes([r.run(setting, seed).dynamics(member) for r in (trained, evaluated)], early)
                for seed in seeds
            ]
            codes = np.stack(pairs, axis=1)  # (2, S, N)
            name = setting_name(setting, trained.members)
            for mode, side in zip(("train", "eval"), codes, strict=True):
                row = {"member": member, "setting": name, "mode": mode, "n": codes.shape[2], "seeds": len(seeds)}
                rows.append(row | soi_shares(side.ravel()) | {"same": np.nan, "kappa": np.nan})
            rows[-1] |= {"same": float((codes[0] == codes[1]).mean()), "kappa": repeat_kappa(pairs).value}
    if not rows:
        raise StoreError("no setting and seed was recorded in both modes", expected="runs that differ in it only")
    return pd.DataFrame(rows)


# --- sentences ---------------------------------------------------------------------------------------------------


def describe_epochs(table: pd.DataFrame) -> str:
    """What `by_epochs` shows: how early categories settle, and how forgetting grows with the number of epochs."""
    mean = table.groupby(["member", "setting", "epochs"], sort=False)[[*NAMES, "settled"]].mean().reset_index()
    last = int(mean["epochs"].max())
    half = max(2, last // 2)
    at = mean[mean["epochs"] == half]
    lines = [
        f"- After {half} of {last} epochs, {at['settled'].min():.0%} to {at['settled'].max():.0%} of the examples "
        f"(depending on member and setting) are in the category in which {last} epochs put them."
    ]
    for label, names in (("forgotten at least once", FORGOTTEN), ("always correct", ("ACE",)), ("unlearned", ("UNE",))):
        first, end = (mean[mean["epochs"] == e][list(names)].sum(axis=1).mean() for e in (half, last))
        lines.append(f"- {label[0].upper()}{label[1:]}: {first:.1%} with {half} epochs, {end:.1%} with {last} (mean).")
    lines.append("- Always correct and unlearned can only become fewer with every epoch, forgotten only more.")
    return "\n".join(lines)


def describe_early(table: pd.DataFrame) -> str:
    """What `by_early` shows: between which shares early and late learned move."""
    mean = table.groupby(["member", "setting", "early"], sort=False)[NAMES].mean().reset_index()
    low, high = (mean[mean["early"] == v] for v in (mean["early"].min(), mean["early"].max()))
    both = (low["ELE"] + low["LLE"]).to_numpy()
    return (
        f"Early and late learned together hold {both.min():.1%} to {both.max():.1%} of the examples, whatever `early` "
        f"is; the other four categories do not depend on it. With `early` {low['early'].iloc[0]:g} early learned are "
        f"{low['ELE'].mean():.1%} and late learned {low['LLE'].mean():.1%} (mean), with {high['early'].iloc[0]:g} they "
        f"are {high['ELE'].mean():.1%} and {high['LLE'].mean():.1%}."
    )


def describe_seeds(table: pd.DataFrame) -> str:
    """What `seed_agreement` shows: shares agree between seeds, single examples less."""
    known = table.dropna(subset=["kappa"])
    if known.empty:
        return "**One seed.** How far seeds agree cannot be seen here."
    order: Any = known.sort_values("same", kind="stable")
    low, high = order.iloc[0], order.iloc[-1]
    return (
        f"Between {known['seeds'].min()} seeds of one setting no share differs by more than "
        f"{known['spread'].max() * 100:.1f} points (that is the largest, the median is "
        f"{known['spread'].median() * 100:.1f}). As to single examples, in the same category in every "
        f"seed are {low['same']:.0%} ({low['member']}, {low['setting']}) to {high['same']:.0%} "
        f"({high['member']}, {high['setting']}); kappa is {known['kappa'].min():.2f} to {known['kappa'].max():.2f}, "
        "where 0 is chance and 1 perfect repetition."
    )


def describe_effect(table: pd.DataFrame) -> str:
    """What `effect` shows: of the differences that the whole record tells apart from zero, how many keep their sign."""
    last = table[table["epochs"] == table["epochs"].max()]
    sure = last[last["interval without zero"] & (last["difference"].abs() >= LEAST_DIFFERENCE)]
    if sure.empty:
        return "With all epochs no share differs between alone and together by more than its interval."
    turned: list[str] = []
    tuples: Any = sure.itertuples()
    for row in tuples:
        own = table[(table["member"] == row.member) & (table["category"] == row.category)]
        sign = np.sign(float(row.difference))
        against = own[own["interval without zero"] & (np.sign(own["difference"]) == -sign)]
        turned += [f"{SOI[str(row.category)].name} of {row.member}"] if len(against) else []
    text = (
        f"With all {int(last['epochs'].max())} epochs, {len(sure)} of {len(last)} shares differ between alone and "
        "together by at least a point and more than their interval. With fewer epochs "
    )
    if turned:
        return f"{text}{len(turned)} of them have the opposite sign beyond the interval: {', '.join(turned)}."
    return f"{text}none of them has the opposite sign beyond its interval."


def describe_modes(table: pd.DataFrame) -> str:
    """What `record_modes` shows: how many examples change category with the mode of recording, and which way."""
    same = table["same"].dropna()
    mean = table.groupby("mode", sort=False)[NAMES].mean()
    moves: Any = (mean.loc["eval"] - mean.loc["train"]) * 100
    order = moves.abs().sort_values(ascending=False, kind="stable").index[:3]
    told = ", ".join(f"{SOI[str(name)].name} {moves[name]:+.1f}" for name in order)
    return (
        f"Recorded in evaluation mode (no dropout, after the epoch's updates), {same.min():.0%} to {same.max():.0%} of "
        f"the examples are in the same category as when recorded in the training pass. Mean change of the shares, in "
        f"points: {told}."
    )


# --- which runs --------------------------------------------------------------------------------------------------


def _chosen(results: Results, member: str, settings: Sequence[Setting] | None) -> list[Setting]:
    """The wanted settings that train `member`; by default alone and the largest."""
    having = results.settings_with(member)
    return list(dict.fromkeys([having[0], having[-1]])) if settings is None else [s for s in having if s in settings]


def _runs(results: Results, settings: Sequence[Setting] | None) -> list[tuple[str, str, int, TrainingDynamics]]:
    """Member, setting's name, seed and dynamics of every wanted run."""
    wanted = None if settings is None else list(settings)
    return [
        (member, setting_name(setting, results.members), seed, results.run(setting, seed).dynamics(member))
        for member in results.members
        for setting in _chosen(results, member, wanted)
        for seed in results.seeds
    ]
