"""What further training on a subset gained: over the run it started from, and over its controls.

A gain is a difference of accuracy on the same examples and the same seeds, with a 95 % interval. Only the gain over
the random control says that choosing examples helped: continuing at a low learning rate on anything may help too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from paper.recorded import Results
from paper.stage_runs import StageRun
from soi_lib.analysis.statistics import Metric, difference_interval, mean_interval, metric_interval
from soi_lib.errors import StoreError
from soi_lib.runs.config import Setting
from soi_lib.runs.results import setting_name

AGAINST = ("base", "random", "all")
"""What a stage is held against: the run it started from; as many random examples; as many updates on all data."""
SPLITS = {"test": "test", "ood": "OOD"}


def stage_gains(results: Results, metric: Metric = "accuracy") -> pd.DataFrame:
    """A row per setting, member, start, subset, split, and what it is held against.

    Columns: comparison, setting, member, start, subset, n (mean size of the member's subset over seeds), seeds (in
    which it was tested), split, against, score, difference with its 95 % interval (low, high; paired by example and
    seed), and whether the interval is without zero. A subset that was too small in every seed has seeds 0 and no
    difference. For start "pretrained" the base is training on all data with the same recipe.
    """
    rows: list[dict[str, Any]] = []
    for setting, start, subset, runs in _groups(results):
        for member in setting:
            tested = [seed for seed in results.seeds if (run := runs.get((seed, None))) and run.tested]
            sizes = [run.n[member] for (_, control), run in runs.items() if control is None]
            for split, label in SPLITS.items():
                for against in AGAINST:
                    if against != "base" and not any(control == against for _, control in runs):
                        continue
                    row: dict[str, Any] = {
                        "comparison": results.comparison,
                        "setting": setting_name(setting, results.members),
                        "member": member,
                        "start": start,
                        "subset": subset,
                        "n": round(float(np.mean(sizes))),
                        "seeds": len(tested),
                        "split": label,
                        "against": against,
                    }
                    row |= dict.fromkeys(("score", "difference", "low", "high"), np.nan)
                    row["interval without zero"] = False
                    pair = _pair(results, runs, member, setting, split, against)
                    if pair is not None:
                        gold, other, own = pair
                        found = difference_interval(gold, other, own, metric)
                        row |= {"difference": found.value, "low": found.low, "high": found.high}
                        row["score"] = metric_interval(gold, own, metric).value
                        row["interval without zero"] = found.excludes_zero
                    rows.append(row)
    return pd.DataFrame(rows).round(4)


def stage_summary(found: Sequence[Results]) -> pd.DataFrame:
    """A row per start, subset, split, and what it is held against, over all settings and members of `found`.

    difference, low, high: mean difference of accuracy over all members and settings, weighted by examples, with its
    95 % interval over examples and seeds; of the cases that were tested in every seed. An example that several cases
    evaluate (a member's own in every setting, one OOD set of several members) is drawn once, with all of them. cases:
    how many cases there are; up, down: in how many of them the interval is above or below zero; not tested: in how
    many the subset was too small in some seed. Compare only results with the same seeds; raises StoreError for others.
    """
    seeds = {results.seeds for results in found}
    if len(seeds) != 1:
        raise StoreError("the comparisons have different seeds", found=sorted(map(list, seeds)), expected="the same")
    cases: dict[tuple[str, str, str, str], list[pd.DataFrame | None]] = {}
    for results in found:
        for setting, start, subset, runs in _groups(results):
            for member in setting:
                for split, label in SPLITS.items():
                    for against in AGAINST:
                        if against != "base" and not any(control == against for _, control in runs):
                            continue
                        pair = _pair(results, runs, member, setting, split, against)
                        hits = None
                        if pair is not None and len(pair[1]) == len(results.seeds):
                            gold, other, own = pair
                            ids = results.evaluated(member, setting, split).ids
                            hits = pd.DataFrame(((own == gold).astype(np.int8) - (other == gold)).T, index=ids)
                        cases.setdefault((start, subset, label, against), []).append(hits)
    rows = []
    for key, every in cases.items():
        known = [hits for hits in every if hits is not None]
        row: dict[str, Any] = dict(zip(("start", "subset", "split", "against"), key, strict=True))
        row |= {"difference": np.nan, "low": np.nan, "high": np.nan}
        if known:
            every_case = pd.concat(known)
            together = every_case.groupby(level=0).sum()
            pooled = mean_interval(together.to_numpy().T * (len(together) / len(every_case)))
            row |= {"difference": pooled.value, "low": pooled.low, "high": pooled.high}
        each = [mean_interval(hits.to_numpy().T) for hits in known]
        row |= {"cases": len(known), "up": sum(i.low > 0 for i in each), "down": sum(i.high < 0 for i in each)}
        rows.append(row | {"not tested": len(every) - len(known)})
    return pd.DataFrame(rows).round(4)


_Runs = dict[tuple[int, str | None], StageRun]


def _groups(results: Results) -> Iterator[tuple[Setting, str, str, _Runs]]:
    """Setting, start, subset, and the stages by seed and control; settings as in `results`, subsets as planned."""
    from soi_lib.runs.second_stage import SUBSETS

    groups: dict[tuple[Setting, str, str], _Runs] = {}
    for run in results.stages:
        start, subset, control = run.kind
        runs = groups.setdefault((run.setting, start, subset), {})
        if (run.seed, control) in runs:
            raise StoreError(
                "two stages of the same subset and seed, with different recipes",
                found=f"{run.key} and {runs[run.seed, control].key}",
                hint="read the stages of one profile",
            )
        runs[run.seed, control] = run
    if not groups:
        raise StoreError(
            "these results have no stages",
            found=f"profile {results.profile.name}",
            hint="open them with stages=True, from a profile that has a field `stages`",
        )
    kinds = list(SUBSETS)
    key = [(results.settings.index(s), start, kinds.index(subset)) for s, start, subset in groups]
    for _, (setting, start, subset) in sorted(zip(key, groups, strict=True)):
        yield setting, start, subset, groups[setting, start, subset]


def _pair(
    results: Results, runs: _Runs, member: str, setting: Setting, split: str, against: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Gold (N,), predictions (S, N) of the other side and of the stage, of the seeds that have both; None without."""
    own = {seed: run for (seed, control), run in runs.items() if control is None and run.tested}
    other = {seed: run for (seed, control), run in runs.items() if control == against and run.tested}
    seeds = [seed for seed in results.seeds if seed in own and (against == "base" or seed in other)]
    if not seeds:
        return None
    _, gold, base, _ = results.evaluated(member, setting, split)
    mine = np.stack([own[seed].answers[member, split] for seed in seeds])
    if against == "base":
        theirs = base[[results.seeds.index(seed) for seed in seeds]]
    else:
        theirs = np.stack([other[seed].answers[member, split] for seed in seeds])
    if mine.shape[1] != len(gold):
        raise StoreError(
            "a stage and its run were evaluated on different examples", found=mine.shape[1], expected=len(gold)
        )
    return gold, theirs, mine


def stages_of(found: Mapping[str, Results]) -> pd.DataFrame | None:
    """The summary of all second stages in `found`, over the seeds that have them; None when there are none."""
    parts = []
    for results in found.values():
        seeds = {stage.seed for stage in results.stages}
        if seeds:
            parts.append(replace(results, runs=tuple(run for run in results.runs if run.seed in seeds)))
    return stage_summary(parts) if parts else None
