"""What the first page says, in numbers of the recorded runs, and the check that they still bear it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paper import comparison, more_updates, repeat
from paper.claims import rules, staged
from paper.claims.judge import Finding
from paper.claims.verdicts import Evidence, alone_and_together, open_evidence, task_cases
from paper.comparison import NAMES
from paper.tables import listing
from soi_lib.files import replacing
from soi_lib.plots import Moves, gain_curves
from soi_lib.runs.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def abstract(evidence: Evidence, found: Mapping[str, Finding], moves: Moves) -> str:
    """What was found, in three sentences with sizes and intervals, as Markdown, from verdicts and `all_moves`."""
    sources, languages = evidence.comparisons["source"], evidence.comparisons["lingual"]
    ranked = _effects(sources, "ood", "auc")["gain"].to_dict("records")
    better = {row["dataset"]: comparison.interval(row, sign=True) for row in ranked}
    rises = sorted(_effects(languages, "test", "macro_f1")["gain"].to_dict("records"), key=lambda row: row["value"])
    cases = task_cases(found["C3"])
    gains, losses = ((cases["outcome"] == kind).sum() for kind in ("gain", "loss"))
    moved, floor = _moved(moves)
    epochs = sources.runs[0].manifest["identity"]["training"]["epochs"]
    low, high = (comparison.interval(row, sign=True) for row in (rises[0], rises[-1]))
    return (
        f"**In short.** Fine-tuned on several sources or languages instead of one, a small encoder does better on text "
        f"that is new to it: it ranks the sentiment of a new source better than after training on Amazon reviews "
        f"(AUC {better['amazon']}) or film reviews ({better['movie']}) and as well as after training on tweets, and "
        f"its macro-F1 on new sentence templates rises in every language, by {low} to {high}, though in English more "
        f"updates on English alone do as much. Several tasks change little that these runs can see ({gains} gain and "
        f"{losses} losses among {len(cases)} changes of a score), and whether a second stage on forgotten examples "
        f"helps could not be tested. {moved:.0%} of the training examples change subset from alone to together, but "
        f"{floor:.0%} do when only the seed changes, and most of what lies beyond chance comes with more updates.\n\n"
        f"*{_examples(languages)} to {_examples(sources)} training examples a dataset, {epochs} epochs, "
        f"{len(languages.seeds)} to {len(sources.seeds)} seeds; brackets are 95 % intervals.*"
    )


def details(evidence: Evidence, found: Mapping[str, Finding], moves: Moves, steps: pd.DataFrame) -> str:
    """What was found, a paragraph a comparison, as Markdown; `steps`: those of `more_updates`, for the languages."""
    parts = [_sources(evidence), _languages(evidence, steps), _tasks(found["C3"])]
    return "\n\n".join([*parts, _moves(evidence, found["C1"], found["C4"], moves), _second_stage(evidence)])


def _sources(evidence: Evidence) -> str:
    results = evidence.comparisons["source"]
    tables = {name: table.set_index("dataset") for name, table in _effects(results, "ood", "auc").items()}
    by_accuracy = _effects(results, "ood", "accuracy")["gain"].set_index("dataset").to_dict("index")
    gained = tables["gain"].index[tables["gain"]["outcome"] == "gain"]
    rises = listing([f"{comparison.interval(tables['gain'].loc[d], sign=True)} for {NAMES[d]}" for d in gained])
    parts = listing([f"{tables['diversity'].loc[d, 'value']:+.3f}" for d in gained])
    sizes = f"MiniLM, {_examples(results)} texts a source, {len(results.seeds)} seeds"
    return (
        f"**Several sources: as good on a new one as the best of them alone.** A model of sentiment ({sizes}) that is "
        f"trained on tweets, Amazon reviews and film reviews instead of one of them ranks newspaper sentences better: "
        f"AUC rises by {rises} (95 % intervals). Tweets alone rank them as well (the change stays within "
        f"±{rules.BOUND}; with the threshold at one half, accuracy still rises by "
        f"{comparison.interval(by_accuracy['tweets'], sign=True)}). On the new source the amount does not matter: "
        f"with as many examples in all as one source has, AUC already rises by {parts}."
    )


def _languages(evidence: Evidence, steps: pd.DataFrame) -> str:
    results = evidence.comparisons["lingual"]
    found = more_updates.changes(steps, "test")
    together = found[more_updates.TOGETHER]
    groups = alone_and_together(results, "test")["fa"].groups
    assert groups is not None
    falls = -_effects(results, "test", "macro_f1")["diversity"]["value"].mean()
    sizes = f"multilingual-e5-small, {_examples(results)} commands a language, {len(results.seeds)} seeds"
    return (
        f"**Several languages: better on new sentences, in English by more updates alone.** A model of intents "
        f"({sizes}) that is trained on three languages instead of one recognises new sentence templates better: "
        f"macro-F1 rises by {more_updates.by_language(found[more_updates.BOTH])} (Persian has only "
        f"{len(np.unique(groups))} templates to test on; by accuracy English stays open). Together, a model is updated "
        f"three times as often. Against a language that is trained alone for as many updates, together adds nothing in "
        f"English ({together['en']}), perhaps something in French ({together['fr']}), and most of the gain in Persian "
        f"({together['fa']}). With as many examples in all as one language has, macro-F1 falls by {falls:.3f} on "
        f"average."
    )


def _tasks(finding: Finding) -> str:
    cases = task_cases(finding)
    counts = cases["outcome"].value_counts()
    rho, p = finding.numbers["rank correlation"], finding.numbers["p"]
    return (
        f"**Several tasks: few changes are large enough to see.** Five tasks in pairs and all together "
        f"({finding.seeds} seeds) give {len(cases)} changes of a score, on test sets and out of distribution. After "
        f"the correction over all of them {counts.get('gain', 0)} is a gain and {counts.get('loss', 0)} are losses; "
        f"{counts.get('negligible', 0)} stay within ±{rules.BOUND}, and {counts.get('open', 0)} are open. There is no "
        f"sign that tasks gain more that are similar before training (rank correlation over ten pairs {rho:+.2f}, "
        f"one-sided p = {p:.2f})."
    )


def _moves(evidence: Evidence, six: Finding, finding: Finding, moves: Moves) -> str:
    moved, floor = _moved(moves)
    shares = _always_correct(evidence)
    rises = (shares["low"] > 0).groupby(shares["contrast"]).sum()
    repeated = repeat.needed(repeat.agreements(evidence)).set_index("score")
    seeds, agreement = repeated["seeds for 0.8, evaluation mode"], repeated["agreement, evaluation mode"]
    datasets = shares["dataset"].nunique()
    return (
        f"**Examples move between the subsets beyond chance, but mostly with the number of updates.** "
        f"{_occurring(six)} {moved:.0%} of the training examples change subset from alone to together, and {floor:.0%} "
        f"when only the seed changes. Moves beyond chance exist in {finding.table['dataset'].nunique()} of {datasets} "
        f"datasets, most of them from early learned to always correct. With as many updates as alone, the share of "
        f"always correct rises in {rises['diversity']} datasets instead of {rises['gain']}. Two runs rank examples by "
        f"confidence with a correlation of {agreement['confidence']:.2f}, but agree on the subsets with a kappa of "
        f"only {agreement['category']:.2f}; {seeds['category']:.0f} runs would have to be averaged for an "
        f"agreement of 0.8."
    )


def _occurring(finding: Finding) -> str:
    """How many of the six subsets occur in every dataset, and which do in the fewest."""
    occurs = finding.table.groupby("category")["occurs"].agg(["sum", "size"])
    rare = occurs[occurs["sum"] < rules.LEAST_DATASETS * occurs["size"]]
    named = listing([f"{name} in {row['sum']} of {row['size']} datasets" for name, row in rare.iterrows()])
    return f"All six subsets occur, but {named} only."


def _second_stage(evidence: Evidence) -> str:
    cases = evidence.stages[rules.MAIN_SUBSET]
    passed = sum(stage.manipulated for stage in cases.values())
    against = staged.over_random(cases)
    below, above = (against["high"] < 0).sum(), (against["low"] > 0).sum()
    return (
        f"**A second stage: not tested.** Going on with the examples that were forgotten or never learned ends, on the "
        f"test sets, below a random control in {below} of {len(against)} cases and above it in {above}. But the stages "
        f"learned what they were shown in only {passed} of {len(cases)} cases ({len(cases) - len(against)} had too few "
        f"examples), and our rule then gives no verdict."
    )


def check(evidence: Evidence, found: Mapping[str, Finding], moves: Moves) -> None:
    """Raise AssertionError when the recorded numbers no longer bear the sentences of `abstract` and `details`."""
    expected = {
        "C1": "mixed",
        "C2": "mixed",
        "C3": "inconclusive",
        "C4": "supported",
        "C5": "not tested",
        "L": "supported",
    }
    assert {name: found[name].verdict for name in expected} == expected
    effects = _effects(evidence.comparisons["source"], "ood", "auc")
    sources = {name: table.set_index("dataset")["outcome"] for name, table in effects.items()}
    assert sources["gain"].to_dict() == {"tweets": comparison.WORDS["negligible"], "amazon": "gain", "movie": "gain"}
    assert (sources["diversity"][["amazon", "movie"]] == "gain").all(), sources["diversity"]
    assert (sources["quantity"] == comparison.WORDS["negligible"]).all(), sources["quantity"]
    languages = _effects(evidence.comparisons["lingual"], "test", "macro_f1")
    assert (languages["gain"]["low"] > 0).all(), languages["gain"]
    assert languages["diversity"]["value"].mean() < 0, languages["diversity"]
    assert (languages["diversity"]["value"] < 0).all(), languages["diversity"]
    assert (languages["quantity"]["low"] > 0).all(), languages["quantity"]
    assert found["C3"].numbers["p"] > rules.RELABELLING_P
    cases = task_cases(found["C3"])
    assert (cases["outcome"] == "gain").sum() == 1, cases
    moved, floor = _moved(moves)
    assert moved > floor > moved / 2, (moved, floor)
    table = found["C4"].table
    assert ((table["from"] == "ELE") & (table["to"] == "ACE")).sum() > len(table) / 2, table
    against = staged.over_random(evidence.stages[rules.MAIN_SUBSET])
    assert (against["high"] < 0).sum() > len(against) / 2, against
    shares = _always_correct(evidence)
    rises = (shares["low"] > 0).groupby(shares["contrast"]).sum()
    assert rises["diversity"] < rises["gain"] / 2, rises


def picture(evidence: Evidence) -> Figure:
    """The score of every source and language alone, together at equal budget, and together, on what is new to it."""
    sources, languages = (comparison.levels(evidence.comparisons[name]) for name in ("source", "lingual"))
    table = pd.concat([sources[sources["set"] == "OOD"], languages[languages["set"] == "test"]])
    table["dataset"] = table["dataset"].map(NAMES) + ": " + table["score"]
    title = "Sources: newspaper sentences. Languages: new templates"
    return gain_curves(table, "setting", measure="score", title=title)


def write_picture(root: Path) -> None:
    """Write `picture` to book/images, for the README."""
    figure = picture(open_evidence(root / "data/recorded/standard"))
    with replacing(root / "book/images/gains.png") as tmp:
        figure.savefig(tmp, format="png", dpi=130)


def all_moves(evidence: Evidence) -> Moves:
    """The moves of all datasets of all comparisons as one, in numbers of examples; beyond chance in more than half."""
    known = [m for results in evidence.comparisons.values() for m in comparison.moves(results).values()]
    beyond = reduce(add, (m.table("beyond").astype(int) for m in known))
    return Moves(
        transition=reduce(add, (m.table("transition") * m.n for m in known)),
        floor=reduce(add, (m.table("floor") * m.n for m in known)),
        beyond=beyond > len(known) / 2,
        n=sum(m.n for m in known),
        seeds=min(m.seeds for m in known),
    )


def _effects(results: Results, split: str, score: str) -> dict[str, pd.DataFrame]:
    """The effects on one set by one score, a table a contrast."""
    table = comparison.effects(results)
    table = table[(table["set"] == comparison.SETS[split]) & (table["score"] == comparison.SCORES[score])]
    return {str(name): part for name, part in table.groupby("contrast", sort=False)}


def _examples(results: Results) -> int:
    """Training examples of each dataset alone."""
    first = results.members[0]
    return int(results.run((first,)).metrics[first]["n"])


def _moved(moves: Moves) -> tuple[float, float]:
    """Shares of all examples that change category from alone to together, and between seeds."""
    cells = moves.cells()
    changed = cells[cells["from"] != cells["to"]]
    return float(changed["transition"].sum()), float(changed["floor"].sum())


def _always_correct(evidence: Evidence) -> pd.DataFrame:
    """By how much the share of ACE changes in every dataset and contrast, with its interval over seeds."""
    table = pd.concat([comparison.map_shifts(results) for results in evidence.comparisons.values()])
    return table[table["measure"] == "share of ACE"]
