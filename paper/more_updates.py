"""Whether languages gain from one another or from more updates: alone with as many updates as together.

Exploratory: the profile `updates` was committed before its runs, but no rule of the claims reads them.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from paper.claims import rules
from paper.claims.judge import ALL, SINGLE, Array, Evaluation
from paper.claims.verdicts import alone_and_together
from paper.comparison import SETS, SETTINGS, WORDS
from soi_lib.analysis.statistics import mean_effect
from soi_lib.runs.results import Results

LONGER = "alone, as many updates"
STEPS = {
    "more updates, alone": (SINGLE, LONGER),
    "together, as many updates": (LONGER, ALL),
    "both": (SINGLE, ALL),
}


def with_longer(results: Results, longer: Results, split: str) -> dict[str, Evaluation]:
    """The evaluations of every dataset alone and together, and those of `longer`, alone with as many updates."""
    found = {}
    for dataset, one in alone_and_together(results, split).items():
        more = longer.evaluated(dataset, (dataset,), split).predicted
        found[dataset] = replace(one, predicted={**one.predicted, LONGER: more})
    return found


def levels(results: Results, longer: Results) -> pd.DataFrame:
    """The deciding score alone, alone with as many updates, and together: a row per dataset, set and setting."""
    names = {SINGLE: SETTINGS[SINGLE], LONGER: LONGER, ALL: SETTINGS[ALL]}
    return pd.DataFrame(
        [
            {"dataset": dataset, "set": SETS[split], "setting": name} | _interval(one.values(setting))
            for split in SETS
            for dataset, one in with_longer(results, longer, split).items()
            for setting, name in names.items()
        ]
    )


def steps(results: Results, longer: Results) -> pd.DataFrame:
    """By how much macro-F1 changes from alone to more updates, from there to together, and in all."""
    return pd.DataFrame(
        [
            {"dataset": dataset, "set": SETS[split], "step": step}
            | _interval(one.gain(before, after))
            | {"outcome": WORDS[rules.outcome(mean_effect(one.gain(before, after)))]}
            for split in SETS
            for dataset, one in with_longer(results, longer, split).items()
            for step, (before, after) in STEPS.items()
        ]
    )


def _interval(values: Array) -> dict[str, float]:
    found = mean_effect(values).interval(rules.LEVEL)
    return {"value": found.value, "low": found.low, "high": found.high}
