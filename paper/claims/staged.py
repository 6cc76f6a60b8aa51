"""From finished second stages to the input of claim C5: one case per stage, with its run and its controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from paper.claims import rules
from paper.claims.judge import MORE, RANDOM, RUN, SUBSET, Evaluation, Stage, measured
from paper.recorded import Results, StageRun, is_recorded, open_results, recorded_profile
from soi_lib.analysis.selection import select
from soi_lib.analysis.statistics import Interval, mean_effect
from soi_lib.runs.config import Setting, parts_of

ARMS = {"second_stage": "labels as they are", "second_stage_flipped": "a tenth flipped"}
"""The recorded folders of second stages, with a description of their training labels."""
CONTROLS = {SUBSET: None, RANDOM: "random", MORE: "all"}
"""The control of a stage, by the judge's name for its predictions."""

Stages = Mapping[int, Mapping[str | None, StageRun]]
"""The stages of one run's setting and one subset: by seed, then by control."""


def open_stages(recorded: Path) -> dict[str, dict[str, Stage]]:
    """Return the second stages in a folder of recorded profiles, by subset and case. Raises StoreError if damaged."""
    out: dict[str, dict[str, Stage]] = {}
    for name, arm in ARMS.items():
        folder = recorded / name
        if not is_recorded(folder):
            continue
        for comparison in recorded_profile(folder).comparisons:
            for subset, cases in by_case(open_results(comparison, runs=folder, stages=True), arm).items():
                out.setdefault(subset, {}).update(cases)
    return out


def by_case(results: Results, arm: str) -> dict[str, dict[str, Stage]]:
    """Return the stages of a comparison by subset, then by case: a dataset, alone or together, in an arm."""
    found: dict[tuple[Setting, str], dict[int, dict[str | None, StageRun]]] = {}
    for stage in results.stages:
        subset, control = stage.kind
        found.setdefault((stage.setting, subset), {}).setdefault(stage.seed, {})[control] = stage
    out: dict[str, dict[str, Stage]] = {}
    for (setting, subset), stages in found.items():
        for dataset in setting:
            name = dataset.removesuffix("-flipped")
            case = f"{name}, {'alone' if len(setting) == 1 else 'together'}, {arm}"
            out.setdefault(subset, {})[case] = _stage(results, dataset, setting, subset, stages)
    return out


def _stage(results: Results, dataset: str, setting: Setting, subset: str, stages: Stages) -> Stage:
    if not all(stage.tested for found in stages.values() for stage in found.values()):
        return Stage((), np.zeros(1), np.zeros(1), np.zeros(1), {})
    about = [stages[seed][None].about["stage"] for seed in results.seeds]
    left = np.array([stage["left"][dataset] for stage in about])
    dynamics = (results.run(setting, seed).dynamics(dataset) for seed in results.seeds)
    return Stage(
        [frozenset(select(one, parts_of(subset)).tolist()) for one in dynamics],
        np.array([stage["n"][dataset] for stage in about]),
        left[:, 0],
        left[:, 1],
        {split: _evaluation(results, dataset, setting, split, stages) for split in results.splits(dataset)},
    )


def _evaluation(results: Results, dataset: str, setting: Setting, split: str, stages: Stages) -> Evaluation:
    """Return what the run and the stages on the subset and its controls predict on one set of a dataset."""
    run = results.evaluated(dataset, setting, split)
    predicted, positive = {RUN: run.predicted}, {RUN: run.positive}
    for name, control in CONTROLS.items():
        found = [stages[seed][control] for seed in results.seeds]
        predicted[name] = np.stack([stage.answers[dataset, split] for stage in found])
        odds = np.stack([stage.odds[dataset, split] for stage in found]).astype(np.float64)
        positive[name] = np.where(run.gold == 1, odds, -odds)  # ranks as the probability of class 1
    return Evaluation(run.gold, predicted, positive if run.gold.max() == 1 else None)


def checks(stages: Mapping[str, Stage]) -> pd.DataFrame:
    """Return the manipulation check, one row per case: subset size before and after balancing, shares left, outcome."""
    rows = []
    for case, stage in stages.items():
        row: dict[str, object] = {"case": case, "check": "passed" if stage.manipulated else "failed"}
        if not stage.evaluations:
            row["check"] = "too few examples"
        else:
            row["chosen"] = float(np.mean([len(ids) for ids in stage.ids]))
            row["trained on"] = float(stage.trained.mean())
            row |= {"left at start": float(stage.start.mean()), "left at end": float(stage.end.mean())}
            row["flips"] = stage.flips
        rows.append(row)
    columns = ["case", "chosen", "trained on", "left at start", "left at end", "flips", "check"]
    return pd.DataFrame(rows, columns=columns).sort_values("case", ignore_index=True)


def levels(stages: Mapping[str, Stage], split: str) -> pd.DataFrame:
    """Return the deciding score on one set for the run and each of its stages, mean over seeds, one row per case."""
    rows = []
    for case, stage in stages.items():
        if split in stage.evaluations:
            one = stage.evaluations[split]
            scores = {name: float(one.values(name).mean()) for name in (RUN, SUBSET, RANDOM, MORE)}
            rows.append({"case": case, "score": rules.NAMES[one.scores[0]]} | scores)
    return pd.DataFrame(rows)


def by_arm(stages: Mapping[str, Stage]) -> pd.DataFrame:
    """Return the gain over the random control, pooled over an arm's cases that passed the check, per arm and set.

    paired is the same over the cases that passed in every arm only, so that arms can be compared.
    """
    rows = []
    passed = {arm: {case.removesuffix(f", {arm}") for case in _passed(stages, arm)} for arm in ARMS.values()}
    both = set.intersection(*passed.values())
    for arm in ARMS.values():
        good = _passed(stages, arm)
        for split in ("test", "ood"):
            tables = {
                case: s.evaluations[split].gain(RANDOM, SUBSET) for case, s in good.items() if split in s.evaluations
            }
            if tables:
                each = [mean_effect(table).interval(rules.LEVEL) for table in tables.values()]
                below, above = sum(one.high < 0 for one in each), sum(one.low > 0 for one in each)
                paired = [table for case, table in tables.items() if case.removesuffix(f", {arm}") in both]
                counts = {"cases": len(tables), "below": below, "above": above, "paired cases": len(paired)}
                row = measured(mean_effect(list(tables.values())), labels=arm, set=split, **counts)
                rows.append(row | {"paired": mean_effect(paired).value if paired else np.nan})
    return pd.DataFrame(rows)


def _passed(stages: Mapping[str, Stage], arm: str) -> dict[str, Stage]:
    return {case: stage for case, stage in stages.items() if case.endswith(arm) and stage.manipulated}


def over_cases(stages: Mapping[str, Stage], split: str) -> Interval:
    """Return the mean gain over the random control in the cases that passed, with the cases as the unit of chance."""
    tested = [stage for stage in stages.values() if stage.manipulated and split in stage.evaluations]
    gains_ = [stage.evaluations[split].gain(RANDOM, SUBSET).mean() for stage in tested]
    return mean_effect(np.array(gains_)[:, None]).interval(rules.LEVEL)


def wrong_labels(stages: Mapping[str, Stage], flipped: Results, clean: Results) -> pd.DataFrame:
    """Return the share of wrong labels among the chosen examples and among all, one row per case of the flipped arm."""
    rows = []
    for dataset in flipped.members:
        name = dataset.removesuffix("-flipped")
        given, right = flipped.run((dataset,)).dynamics(dataset), clean.run((name,)).dynamics(name)
        label = dict(zip(right.ids, right.gold, strict=True))
        wrong = {i for i, gold in zip(given.ids, given.gold, strict=True) if label[i] != gold}
        for how in ("alone", "together"):
            case = f"{name}, {how}, {ARMS['second_stage_flipped']}"
            chosen = [len(wrong & ids) / len(ids) for ids in stages[case].ids]
            row = {"case": f"{name}, {how}", "wrong among the chosen": float(np.mean(chosen))}
            rows.append(row | {"wrong among all": len(wrong) / len(given.ids)})
    return pd.DataFrame(rows)


def over_random(stages: Mapping[str, Stage]) -> pd.DataFrame:
    """Return the rows of `gains` on the test sets over the random control."""
    return gains(stages, "test").query("measure == 'change from random'")


def gains(stages: Mapping[str, Stage], split: str) -> pd.DataFrame:
    """Return the gain of the subset by the deciding score, one row per case and comparison, for `interval_plot`."""
    rows = []
    for case, stage in stages.items():
        for against in (RUN, RANDOM, MORE) if split in stage.evaluations else ():
            effect = mean_effect(stage.evaluations[split].gain(against, SUBSET))
            name = case if stage.manipulated else f"{case} (check failed)"
            rows.append(measured(effect, case=name, measure=f"change from {against}"))
    return pd.DataFrame(rows)
