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
from paper.comparison import NAMES, SETS, SETTINGS, WORDS, difference_table, examples, interval, level_table, signed
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


def describe(table: pd.DataFrame) -> str:
    """Describe the result of `steps` as Markdown; `check` compares the words with the numbers."""
    test, ood = changes(table, "test"), changes(table, "OOD")
    return (
        f"**On new templates, more updates alone match the gain in English, but only part of it in Persian.** They "
        f"raise macro-F1 by {by_language(test[ALONE])}. Beyond that, training together adds nothing in "
        f"English ({test[TOGETHER]['en']}, within ±{rules.BOUND}), is inconclusive in French "
        f"({test[TOGETHER]['fr']}), and adds most of the gain in Persian ({test[TOGETHER]['fa']}). On OOD sentences, "
        f"it raises macro-F1 in all three: {by_language(ood[TOGETHER])}."
    )


def changes(table: pd.DataFrame, split: str) -> dict[str, dict[str, str]]:
    """Return the changes on one set with their intervals, by step and language."""
    rows = table[table["set"] == split]
    return {str(step): signed(part) for step, part in rows.groupby("step", sort=False)}


def by_language(found: Mapping[str, str]) -> str:
    """Write changes for a sentence: `A in English, B in French and C in Persian`."""
    return listing([f"{change} in {NAMES[language]}" for language, change in found.items()])


def check(table: pd.DataFrame) -> None:
    """Raise AssertionError if the recorded numbers no longer support the words of `describe`."""
    found = table.set_index(["set", "step", "dataset"]).sort_index()
    gain, kinds = WORDS["gain"], found["outcome"]
    assert (kinds["test", ALONE] == gain).all(), kinds
    assert kinds["test", TOGETHER].to_dict() == {"en": WORDS["negligible"], "fr": WORDS["open"], "fa": gain}, kinds
    assert (kinds["OOD", TOGETHER] == gain).all(), kinds
    value = found["value"]["test"]
    assert value[TOGETHER, "fa"] > value[BOTH, "fa"] / 2, value


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


def describe_amount(table: pd.DataFrame) -> str:
    """Describe the result of `by_amount` as Markdown; `check_amount` compares the words with the numbers."""
    over = by_source(table)
    return (
        f"**With fewer examples per source, the other sources help more.** On newspaper sentences, training on all "
        f"sources instead of tweets alone, the best single source, changes AUC by {over['tweets']} examples per "
        f"source; instead of Amazon reviews by {over['amazon']}; instead of film reviews by {over['movie']}. On the "
        f"sources' own test sets, only tweets and Amazon reviews gain, and only with the fewest examples."
    )


def by_source(table: pd.DataFrame) -> dict[str, str]:
    """Write the changes out of distribution for a sentence, by source: `A with 125, B with 250 and C with 500`."""
    ood = table[table["set"] == SETS["ood"]]
    return {
        str(dataset): listing([f"{interval(row, sign=True)} with {row['examples']}" for _, row in part.iterrows()])
        for dataset, part in ood.groupby("dataset")
    }


def check_amount(table: pd.DataFrame) -> None:
    """Raise AssertionError if the recorded numbers no longer support the words of `describe_amount`."""
    fewest = table["examples"].min()
    ood, test = (table[table["set"] == SETS[split]] for split in ("ood", "test"))
    assert (ood[ood["examples"] == fewest]["low"] > 0).all(), ood
    assert all(part.sort_values("examples")["value"].is_monotonic_decreasing for _, part in ood.groupby("dataset")), ood
    assert ood.set_index(["dataset", "examples"])["outcome"]["tweets"].iloc[-1] == "negligible", ood
    assert (test[test["outcome"] == "gain"]["examples"] == fewest).all(), test
    assert set(test[test["outcome"] == "gain"]["dataset"]) == {"tweets", "amazon"}, test
