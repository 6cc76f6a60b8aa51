"""The tables on a comparison's page: scores, gains, moves between categories, shifts on the data map.

Every number is a mean over the seeds with an interval, and the settings differ in one thing at a time. From alone to
together at equal budget, only the other datasets are new (diversity); from there to together, each dataset has all its
examples again (quantity).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from paper.claims import rules
from paper.claims.judge import ALL, CONTRASTS, EQUAL, SINGLE, Array, Evaluation, differences, measured
from paper.claims.verdicts import Mode, alone_and_together, codes, evaluation
from paper.tables import listing, texts, words
from soi_lib.analysis.datamap import confidence_variability
from soi_lib.analysis.soi import SOI, categorize, history_string
from soi_lib.analysis.statistics import mean_effect
from soi_lib.analysis.transitions import OFF_DIAGONAL, common_codes, mean_move, transition_test
from soi_lib.data.baselines import BagOfWords
from soi_lib.dynamics import TrainingDynamics, align
from soi_lib.plots import Moves
from soi_lib.plots.style import ORDER, span
from soi_lib.plots.transition_plots import SEEDS
from soi_lib.runs.config import Setting
from soi_lib.runs.results import Results

SETTINGS = {SINGLE: "alone", EQUAL: "together, equal budget", ALL: "together"}
SCORES = rules.NAMES
SETS = {"test": "test", "ood": "OOD"}
NAMES = {
    "en": "English",
    "fr": "French",
    "fa": "Persian",
    "tweets": "tweets",
    "amazon": "Amazon reviews",
    "movie": "film reviews",
}
WORDS = {"gain": "gain", "loss": "loss", "negligible": f"within ±{rules.BOUND}", "open": "open"}
"""Names of the outcomes; open: the interval contains zero and reaches beyond the equivalence bounds."""
_RANK = np.array([ORDER.index(soi) for soi in SOI])
EASIER = np.sign(_RANK[:, None] - _RANK)
"""1 for moves to an easier category, -1 for moves to a harder one; rows from, columns to."""


def facts(results: Results) -> str:
    """Describe what was trained: encoder, examples, epochs, learning rate, and the note on the runs."""
    about = results.runs[0].manifest["identity"]
    training = about["training"]
    few = (
        "**One seed:** differences mix the effect of the setting with chance, and intervals cover only the choice of "
        "test examples. Treat this page as a demonstration. "
        if len(results.seeds) == 1
        else ""
    )
    sizes = {examples(results, dataset) for dataset in results.members}
    trained = f"{span(sizes)} training examples per dataset, {training['epochs']} epochs"
    return f"{few}Encoder {about['encoder']}; {trained}, learning rate {training['learning_rate']:g}. {results.note}."


def examples(results: Results, dataset: str = "") -> int:
    """Return the number of training examples of a dataset alone, by default of the first one."""
    dataset = dataset or results.members[0]
    return int(results.run((dataset,)).metrics[dataset]["n"])


def score_of(results: Results, dataset: str) -> str:
    """Return the name of the score that decides for a dataset: AUC for two classes, macro-F1 for more."""
    return SCORES[rules.scores_for(results.classes(dataset))[0]]


def effects(results: Results) -> pd.DataFrame:
    """Return one row per dataset, set, score and contrast: the difference, its 95 % interval, and its outcome."""
    return difference_table(_evaluations(results), CONTRASTS)


def difference_table(
    evaluations: Mapping[tuple[str, str], Evaluation], contrasts: Mapping[str, tuple[str, str]]
) -> pd.DataFrame:
    """Return the table of `effects` for evaluations by dataset and set, and contrasts between any two settings."""
    return pd.DataFrame(
        measured(effect, dataset=dataset, set=SETS[split], contrast=contrast, score=SCORES[score])
        | {"outcome": WORDS[rules.outcome(effect)]}
        for (dataset, split), contrast, score, effect in differences(evaluations, contrasts)
    )


def describe_parts(deciding: pd.DataFrame) -> str:
    """Describe where diversity and quantity are a gain or a loss, from the deciding rows of `effects`."""
    lines = []
    for contrast in ("diversity", "quantity"):
        rows = deciding[deciding["contrast"] == contrast]
        found = []
        for kind in ("gain", "loss"):
            part = rows[rows["outcome"] == kind]
            named = [f"{r['dataset']} on {r['set']} ({r['value']:+.3f})" for _, r in part.iterrows()]
            found += [f"a {kind} for {listing(named)}"] if named else []
        lines.append(f"{contrast.capitalize()} is {' and '.join(found) or 'neither a gain nor a loss'}.")
    return " ".join(lines)


def levels(results: Results) -> pd.DataFrame:
    """Return one row per dataset, set and setting: the deciding score and its 95 % interval, for curves and tables."""
    return level_table(_evaluations(results), SETTINGS)


def level_table(evaluations: Mapping[tuple[str, str], Evaluation], names: Mapping[str, str]) -> pd.DataFrame:
    """Return the table of `levels` for evaluations by dataset and set, and the settings in `names`."""
    rows = []
    for (dataset, split), one in evaluations.items():
        for setting, name in names.items():
            if setting in one.predicted:
                what = {"dataset": dataset, "set": SETS[split], "setting": name, "score": SCORES[one.scores[0]]}
                rows.append(measured(mean_effect(one.values(setting)), **what))
    table = pd.DataFrame(rows)
    return table.assign(low=table["low"].clip(lower=0.0), high=table["high"].clip(upper=1.0))


def seed_spread(results: Results) -> pd.DataFrame:
    """Return the standard deviation over seeds (sd) of the deciding score of every dataset alone, per set."""
    return pd.DataFrame(
        {"dataset": dataset, "set": SETS[split], "score": SCORES[one.scores[0]]}
        | {"sd": float(one.values(SINGLE).mean(axis=1).std(ddof=1))}
        for (dataset, split), one in _evaluations(results).items()
    )


def results_table(results: Results) -> pd.DataFrame:
    """Return one row per dataset and set: the score in every setting, the gain, and the bag of words.

    The bag of words is scored by accuracy or macro-F1; for two classes, the accuracy of training alone is added.
    """
    gains: Any = effects(results)
    gains = gains[gains["contrast"] == "gain"].set_index(["dataset", "set", "score"])
    rows = []
    parts: Any = levels(results).groupby(["dataset", "set"], sort=False)
    for (dataset, split), part in parts:
        metrics = results.run((dataset,)).metrics[dataset]
        score = part["score"].iloc[0]
        row: dict[str, Any] = {"dataset": dataset, "set": split, "score": score}
        row |= {r["setting"]: interval(r) for _, r in part.iterrows()}
        gain = gains.loc[(dataset, split, score)]
        row |= {"gain": interval(gain, sign=True), "": gain["outcome"]}
        kind = "macro_f1" if score == SCORES["macro_f1"] else "accuracy"
        row[f"bag of words, {SCORES[kind]}"] = f"{metrics['bag_of_words'][split.lower()][kind]:.2f}"
        if kind == "accuracy":
            seeds = [results.run((dataset,), s).metrics[dataset][split.lower()]["accuracy"] for s in results.seeds]
            row["accuracy alone"] = f"{np.mean(seeds):.2f}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def pair_gains(results: Results) -> pd.DataFrame:
    """Return the gain of each dataset from training in a pair over training alone: one row per pair, dataset and set.

    Gains and losses are corrected over all these rows, as claim C3 corrects over all its cases.
    """
    rows, found = [], []
    for pair in [setting for setting in results.settings if len(setting) == 2 < len(results.members)]:
        for dataset, partner in (pair, pair[::-1]):
            for split in results.splits(dataset):
                one = evaluation(results, dataset, split, {SINGLE: Setting((dataset,)), ALL: pair})
                found.append(mean_effect(one.gain(SINGLE, ALL)))
                what = {"pair": "+".join(pair), "case": f"{dataset} with {partner}", "measure": f"gain, {SETS[split]}"}
                rows.append(measured(found[-1], **what))
    return pd.DataFrame(rows).assign(beyond=[outcome in ("gain", "loss") for outcome in rules.corrected(found)])


def similarity_and_gain(similarities: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair of tasks: similarity by each measure, and gain on test and OOD (mean of both tasks)."""
    named = similarities.assign(pair=similarities["first"] + "+" + similarities["second"])
    values = pd.concat([named[["pair", "measure", "value"]], pairs[["pair", "measure", "value"]]])
    table = values.pivot_table(index="pair", columns="measure", values="value", sort=False)
    return table.loc[pairs["pair"].unique(), values["measure"].unique()].round(3)


def curves(results: Results) -> pd.DataFrame:
    """Return the accuracy per epoch on the training and validation examples, by dataset, setting and seed."""
    tables = [
        table.assign(split=split, accuracy=table[f"{split}_accuracy"]).dropna(subset=["accuracy"])
        for setting, name in settings(results).items()
        for seed in results.seeds
        for table in [results.run(setting, seed).curves().assign(setting=name, seed=seed)]
        for split in ("train", "validation")
    ]
    out = pd.concat(tables, ignore_index=True)
    return out.assign(epoch=out["epoch"] + 1)


def moves(results: Results, mode: Mode | None = None, skip: int = 0) -> dict[str, Moves]:
    """Return the moves of every dataset from alone to together with their floor; empty with fewer than three seeds.

    Moves beyond chance follow the rule of claim C4, here corrected only over the cells of this comparison. `mode` and
    `skip` are as for `codes`.
    """
    if len(results.seeds) < SEEDS:
        return {}
    tests = {
        dataset: transition_test(*(codes(results, dataset, s, mode, skip) for s in ((dataset,), results.members)))
        for dataset in results.members
    }
    beyond = rules.moving(list(tests.values()))
    return {
        dataset: Moves(test.transition, test.floor, cells, test.n, test.seeds)
        for (dataset, test), cells in zip(tests.items(), beyond, strict=True)
    }


def moves_otherwise(results: Results) -> pd.DataFrame:
    """Compare the moves measured in evaluation mode, in train mode, and without the first epoch.

    One row per dataset: how many moves are beyond chance, and how much more often ELE to ACE happens than between
    seeds, as a share of the examples. Empty with fewer than three seeds or one recording mode.
    """
    if {run.record for run in results.runs} != {"both"}:
        return pd.DataFrame()
    ways: dict[str, dict[str, Moves]] = {
        "evaluation mode": moves(results),
        "train mode": moves(results, mode="train"),
        "without the first epoch": moves(results, skip=1),
    }
    rows = []
    for dataset in results.members if ways["evaluation mode"] else ():
        row: dict[str, Any] = {"dataset": dataset}
        for way, found in ways.items():
            shift: Any = found[dataset].table("transition") - found[dataset].table("floor")
            row |= {f"moves, {way}": int(found[dataset].table("beyond").to_numpy().sum())}
            row |= {f"ELE to ACE, {way}": f"{shift.loc['ELE', 'ACE']:+.3f}"}
        rows.append(row)
    return pd.DataFrame(rows)


def moves_at_budgets(results: Results) -> pd.DataFrame:
    """Compare the moves from alone to together at equal budget with those to together, over the same examples.

    One row per dataset and setting, for the n examples that the dataset has at equal budget: the shares that become
    easier and harder, the share that changes category between two seeds alone (floor), and the net share that becomes
    easier (value) with its 95 % interval. Empty with fewer than three seeds or no runs at equal budget.
    """
    budgets = {EQUAL: Setting(results.members, "equal"), ALL: Setting(results.members)}
    rows = []
    for dataset in results.members if len(results.seeds) >= SEEDS and budgets[EQUAL] in results.settings else ():
        runs = [
            results.run(setting, seed).dynamics(dataset)
            for setting in ((dataset,), *budgets.values())
            for seed in results.seeds
        ]
        alone, *together = np.split(common_codes(runs), 3)
        for name, codes_together in zip(budgets, together, strict=True):
            test = transition_test(alone, codes_together)
            row = {
                "dataset": dataset,
                "setting": SETTINGS[name],
                "n": test.n,
                "floor": (test.floor * OFF_DIAGONAL).sum(),
            }
            row |= {way: (test.transition * (sign == EASIER)).sum() for way, sign in (("easier", 1), ("harder", -1))}
            rows.append(row | measured(mean_move(alone, codes_together, EASIER)))
    return pd.DataFrame(rows)


def map_shifts(results: Results) -> pd.DataFrame:
    """Return the data map's shifts: changes in mean confidence, variability and share of ACE of the shared examples.

    One row per dataset, contrast and measure; the 95 % interval is over seeds, and missing with one.
    """
    rows = []
    shared = {ALL: Setting(results.members), EQUAL: Setting(results.members, "equal")}
    for dataset in results.members:
        for contrast, pair in CONTRASTS.items():
            sides = [shared.get(name, Setting((dataset,))) for name in pair]
            if not set(sides) <= set(results.settings):
                continue
            found = np.array(
                [_shift(*(results.run(side, seed).dynamics(dataset) for side in sides)) for seed in results.seeds]
            )
            for measure, values in zip(("confidence", "variability", "share of ACE"), found.T, strict=True):
                row = measured(mean_effect(values[:, None]), dataset=dataset, contrast=contrast, measure=measure)
                rows.append(row | ({} if len(values) > 1 else {"low": np.nan, "high": np.nan}))
    return pd.DataFrame(rows)


def contents(results: Results) -> pd.DataFrame:
    """Return what each category contains when a dataset is trained alone: share, words, and bag-of-words accuracy.

    The bag of words predicts each training example from the other four fifths (five-fold cross-validation), so its
    accuracy shows how hard the examples of a category are without a language model.
    """
    rows = []
    for dataset in results.members:
        every = codes(results, dataset, (dataset,), None)
        dynamics = results.run((dataset,)).dynamics(dataset)
        split = results.corpus(dataset).splits["train"]
        split = split.rows(np.searchsorted(split.ids.astype(str), dynamics.ids.astype(str)))
        count = words(split)
        right = _bag_of_words(split)
        for soi in SOI:
            chosen = every == soi
            weight = chosen.mean(axis=0) / (chosen.mean() or np.nan) / chosen.shape[1]
            row = {"dataset": dataset, "category": soi.name, "share": chosen.mean()}
            row |= {"examples": chosen.sum() / len(every), "mean words": weight @ count}
            rows.append(row | {"right by bag of words": weight @ right})
    return pd.DataFrame(rows)


def moved_furthest(results: Results, dataset: str, n: int = 8, width: int = 120) -> pd.DataFrame:
    """Return the examples whose confidence changed most from alone to together, relative to the spread over seeds.

    Ranked by the mean over seeds divided by its standard error; with one seed, by the change itself.
    """
    pairs = [
        [results.run(setting, seed).dynamics(dataset) for setting in ((dataset,), results.members)]
        for seed in results.seeds
    ]
    change = np.array([together.p_gold.mean(axis=0) - alone.p_gold.mean(axis=0) for alone, together in pairs])
    mean = change.mean(axis=0)
    error = change.std(axis=0, ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.ones_like(mean)
    order = np.argsort(-np.abs(mean) / (error + 1e-3), kind="stable")[:n]
    alone, together = pairs[0]
    known = texts(results.corpus(dataset))
    rows = []
    for i in order:
        text, label = known[str(alone.ids[i])]
        row: dict[str, Any] = {"text": text if len(text) <= width else text[: width - 1] + "…", "gold": label}
        row |= {
            name: f"{history_string(dyn.history[i], dyn.epochs)} {SOI(categorize(dyn)[i]).name}"
            for name, dyn in (("alone", alone), ("together", together))
        }
        row["change"] = f"{mean[i]:+.2f}" + (f" ± {error[i]:.2f}" if len(change) > 1 else "")
        rows.append(row)
    return pd.DataFrame(rows)


def settings(results: Results) -> dict[Setting, str]:
    """Return every setting of the contrasts with its name: each dataset alone, all at equal budget, all together."""
    named = {Setting((dataset,)): SETTINGS[SINGLE] for dataset in results.members}
    named |= {Setting(results.members, "equal"): SETTINGS[EQUAL], Setting(results.members): SETTINGS[ALL]}
    return {setting: name for setting, name in named.items() if setting in results.settings}


def interval(row: Mapping[Any, Any] | pd.Series, *, sign: bool = False) -> str:
    """Format a value and its interval for a table cell: `0.87 [0.85, 0.89]`."""
    shape = "+.3f" if sign else ".2f"
    return f"{row['value']:{shape}} [{row['low']:{shape}}, {row['high']:{shape}}]"


def signed(table: pd.DataFrame) -> dict[str, str]:
    """Return the change in every row with its interval, for a sentence, by dataset."""
    return {row["dataset"]: interval(row, sign=True) for row in table.to_dict("records")}


def _evaluations(results: Results) -> dict[tuple[str, str], Evaluation]:
    found = {split: alone_and_together(results, split) for split in SETS}
    return {(d, split): found[split][d] for d in results.members for split in SETS if d in found[split]}


def _shift(before: TrainingDynamics, after: TrainingDynamics) -> Array:
    """Return the mean change (3,) of confidence, variability and share of ACE over examples that both runs share."""
    first, second = (
        np.array([*confidence_variability(side.p_gold), categorize(side) == SOI.ACE]) for side in align(before, after)
    )
    return (second - first).mean(axis=1)


def _bag_of_words(split: Any) -> Array:
    """Return whether a bag of words fitted on the other four fifths is right, (N,) bool."""
    fold = np.arange(len(split)) % 5
    right = np.zeros(len(split), dtype=bool)
    for k in range(5):
        rest, held = (split.rows(np.flatnonzero(mask)) for mask in (fold != k, fold == k))
        bag = BagOfWords(rest)
        right[fold == k] = bag.model.predict(bag.features(held)) == held.label
    return right
