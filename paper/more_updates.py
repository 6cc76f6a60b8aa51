"""What the gain from training together depends on: updates for the languages, amount of data for the sources.

Exploratory: the profiles `updates`, `sources_125` and `sources_250` were committed before their runs, but no rule of
the claims uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from paper.claims import rules
from paper.claims.judge import ALL, SINGLE, Evaluation, measured
from paper.claims.verdicts import alone_and_together
from paper.comparison import NAMES, SETS, SETTINGS, difference_table, examples, interval, level_table, signed
from paper.tables import listing
from soi_lib.analysis.statistics import mean_effect
from soi_lib.runs.results import Results

LONGER = "alone, as many updates"
ALONE, TOGETHER, BOTH = "more updates, alone", "together, as many updates", "both"
STEPS = {ALONE: (SINGLE, LONGER), TOGETHER: (LONGER, ALL), BOTH: (SINGLE, ALL)}


def with_longer(results: Results, longer: Results) -> dict[tuple[str, str], Evaluation]:
    """Return the evaluations by dataset and set: alone, together, and those of `longer`: alone, as many updates."""
    return {
        (dataset, split): replace(one, predicted={**one.predicted, LONGER: more})
        for split in SETS
        for dataset, one in alone_and_together(results, split).items()
        for more in [longer.evaluated(dataset, (dataset,), split).predicted]
    }


def levels(results: Results, longer: Results) -> pd.DataFrame:
    """Return the deciding score alone, alone with as many updates, and together, per dataset, set and setting."""
    names = {SINGLE: SETTINGS[SINGLE], LONGER: LONGER, ALL: SETTINGS[ALL]}
    return level_table(with_longer(results, longer), names).drop(columns="score")


def steps(results: Results, longer: Results) -> pd.DataFrame:
    """Return how much macro-F1 changes from alone to more updates, from there to together, and overall."""
    table = difference_table(with_longer(results, longer), STEPS).rename(columns={"contrast": "step"})
    return table[table["score"] == "macro-F1"].drop(columns="score").reset_index(drop=True)


def changes(table: pd.DataFrame, split: str) -> dict[str, dict[str, str]]:
    """Return the changes on one set with their intervals, by step and language."""
    rows = table[table["set"] == split]
    return {str(step): signed(part) for step, part in rows.groupby("step", sort=False)}


def by_language(found: Mapping[str, str]) -> str:
    """Write changes for a sentence: `A in English, B in French and C in Persian`."""
    return listing([f"{change} in {NAMES[language]}" for language, change in found.items()])


def by_amount(every: Sequence[Results]) -> pd.DataFrame:
    """Return the gain in AUC from one source to all of them: one row per dataset, set and number of training examples.

    `every`: the same comparison of sources, each with a different number of examples.
    """
    rows = []
    for results in every:
        for split in SETS:
            for dataset, one in alone_and_together(results, split).items():
                effect = mean_effect(one.gain(SINGLE, ALL))
                what = {"dataset": dataset, "set": SETS[split], "examples": examples(results, dataset)}
                rows.append(measured(effect, **what, seeds=effect.seeds) | {"outcome": rules.outcome(effect)})
    return pd.DataFrame(rows)


def by_source(table: pd.DataFrame) -> dict[str, str]:
    """Write the changes out of distribution for a sentence, by source: `A with 125, B with 250 and C with 500`."""
    ood = table[table["set"] == SETS["ood"]]
    return {
        str(dataset): listing([f"{interval(row, sign=True)} with {row['examples']}" for _, row in part.iterrows()])
        for dataset, part in ood.groupby("dataset")
    }
