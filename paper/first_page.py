"""The sentences of the first page with numbers from the recorded runs, and the check that these support them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from paper import comparison, more_updates, repeat
from paper.claims import rules, staged
from paper.claims.judge import ALL, EQUAL, Finding
from paper.claims.verdicts import Evidence, open_evidence, task_cases, verdicts
from paper.comparison import NAMES, examples
from paper.tables import listing
from soi_lib.files import replacing
from soi_lib.plots import Moves, gain_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Numbers:
    """The results behind the page, computed once.

    findings: of every claim, by its id. each: the moves of every dataset. moves: of all of them, see `all_moves`.
    budgets: which way examples move at equal budget and with all examples, see `comparison.moves_at_budgets`.
    """

    evidence: Evidence
    findings: Mapping[str, Finding]
    each: Sequence[Moves]
    moves: Moves
    budgets: pd.DataFrame


def measure(evidence: Evidence) -> Numbers:
    """Compute the numbers of recorded runs."""
    budgets = pd.concat([comparison.moves_at_budgets(results) for results in evidence.comparisons.values()])
    each = [moves for results in evidence.comparisons.values() for moves in comparison.moves(results).values()]
    return Numbers(evidence, verdicts(evidence), each, all_moves(each), budgets)


def abstract(numbers: Numbers) -> str:
    """Summarise each finding in a sentence or two with sizes and intervals, as Markdown."""
    sources, languages = (numbers.evidence.comparisons[name] for name in ("source", "lingual"))
    better = comparison.signed(_effects(numbers.findings["C2"], "auc")["gain"])
    gained = _effects(numbers.findings["L"], "macro_f1")["gain"].to_dict("records")
    rises = sorted(gained, key=lambda row: row["value"])
    cases = task_cases(numbers.findings["C3"])
    gains, losses, small, still = ((cases["outcome"] == kind).sum() for kind in ("gain", "loss", "negligible", "open"))
    moved, floor = _moved(numbers.moves)
    shares = [_moved(moves)[0] for moves in numbers.each]
    ways = _directions(numbers.budgets)
    equal, together = (ways.loc[comparison.SETTINGS[name]] for name in (EQUAL, ALL))
    datasets = numbers.budgets["dataset"].nunique()
    against_random = comparison.interval(_stage_effects(numbers.findings["C5"])["test", "random"], sign=True)
    stages = numbers.evidence.stages[rules.MAIN_SUBSET]
    clean = staged.by_arm(stages).iloc[0].to_dict()
    worst, best = staged.over_random(stages)["value"].agg(["min", "max"])
    epochs = sources.runs[0].manifest["identity"]["training"]["epochs"]
    low, high = (comparison.interval(row, sign=True) for row in (rises[0], rises[-1]))
    return (
        f"**In short**, from small encoders with {examples(languages)} to {examples(sources)} training examples per "
        f"dataset, {epochs} epochs, and {len(languages.seeds)} to {len(sources.seeds)} seeds (brackets are 95 % "
        "intervals over seeds and test examples):\n\n"
        f"- **Several sources** do as well on a new source as the best of them alone: AUC {better['amazon']} over "
        f"Amazon reviews, {better['movie']} over film reviews, equivalent to tweets within ±{rules.BOUND}. The two "
        "gains need no more data in total.\n"
        "- **Several languages**, with three times the data, do better on new sentence templates in each: macro-F1 "
        f"{low} to {high}. In English, training alone three times as long does as well on the test templates, but not "
        "on OOD sentences.\n"
        f"- **Several tasks** are inconclusive: of {len(cases)} score changes, {gains} is a gain, {losses or 'none'} a "
        f"loss, {small} are within ±{rules.BOUND}, and {still} are undecided.\n"
        f"- **Moves between subsets**: {moved:.0%} of the training examples change subset between alone and together "
        f"(from {min(shares):.0%} to {max(shares):.0%} by dataset), but {floor:.0%} also do when only the seed "
        f"changes. On balance, examples become easier in {together['rises']:.0f} of {datasets} datasets; with the same "
        f"total of examples and updates as alone, in {_count(equal['rises'])}, and harder in {equal['falls']:.0f}.\n"
        "- **A second stage** on only the forgotten or never learned examples, with the one recipe tested, lowers "
        f"scores on average: {against_random} compared with a stage on as many random examples, "
        f"{comparison.interval(clean, sign=True)} over the {clean['cases']} cases without flipped labels, of which "
        f"{clean['below']} end below. The cases differ widely, from {worst:+.2f} to {best:+.2f}."
    )


def details(numbers: Numbers, steps: pd.DataFrame, amounts: pd.DataFrame) -> str:
    """Describe the findings in Markdown, one paragraph per comparison; `more_updates` gives `steps` and `amounts`."""
    parts = [_sources(numbers, amounts), _languages(numbers, steps), _tasks(numbers.findings["C3"])]
    return "\n\n".join([*parts, _moves(numbers), _second_stage(numbers)])


def _sources(numbers: Numbers, amounts: pd.DataFrame) -> str:
    results, finding = numbers.evidence.comparisons["source"], numbers.findings["C2"]
    effects = _effects(finding, "auc")
    change, diversity = (comparison.signed(effects[name]) for name in ("gain", "diversity"))
    balanced = comparison.signed(_effects(finding, "balanced_accuracy")["gain"])
    gained = effects["gain"].query("outcome == 'gain'")["dataset"]
    rises = listing([f"{change[dataset]} over {NAMES[dataset]}" for dataset in gained])
    parts = listing([diversity[dataset] for dataset in gained])
    sizes = f"MiniLM, {examples(results)} texts per source, {len(results.seeds)} seeds"
    return (
        f"**Several sources: on a new source, as good as the best of them alone.** A sentiment classifier ({sizes}) "
        "trained on tweets, Amazon reviews and film reviews instead of one of them ranks newspaper sentences better: "
        f"AUC rises by {rises}. Compared with tweets alone, it is equivalent ({change['tweets']}, within "
        f"±{rules.BOUND}). The gains do not need more data: with the total number of examples of a single source, they "
        f"are {parts}, and the change from tweets is {diversity['tweets']}. The score matters: by balanced accuracy, "
        f"which depends on a threshold, the gain is over tweets ({balanced['tweets']}) and not beyond chance over "
        f"Amazon reviews ({balanced['amazon']}) and film reviews ({balanced['movie']}); by accuracy, the claim would "
        f"be {finding.parts['gain, accuracy']}. With fewer examples per source, and fewer updates, the other sources "
        "help even over tweets alone, with three times the total: AUC then changes by "
        f"{more_updates.by_source(amounts)['tweets']} per source (exploratory; 5 seeds with 125 and 250). On the "
        f"sources' own test sets, with {examples(results)} examples, all changes stay within ±{rules.BOUND}."
    )


def _languages(numbers: Numbers, steps: pd.DataFrame) -> str:
    results = numbers.evidence.comparisons["lingual"]
    found = more_updates.changes(steps, "test")
    together = found[more_updates.TOGETHER]
    equal = _effects(numbers.findings["L"], "macro_f1")["diversity"].set_index("dataset", drop=False)
    budget = comparison.signed(equal)
    lost = listing([NAMES[dataset] for dataset in equal.index[equal["outcome"] == "loss"]])
    sizes = f"multilingual-e5-small, {examples(results)} commands per language, {len(results.seeds)} seeds"
    return (
        "**Several languages: better on new templates, but in English longer training alone does nearly as well.** An "
        f"intent classifier ({sizes}) trained on three languages instead of one classifies new sentence templates "
        f"better: macro-F1 rises by {more_updates.by_language(found[more_updates.BOTH])} (Persian has only "
        f"{equal['n']['fa']} test templates; by accuracy, English is inconclusive). With the total number of examples "
        f"of a single language, there is no gain: macro-F1 changes by {more_updates.by_language(budget)} (a loss in "
        f"{lost}). Training together also means three times as many updates. Compared with one language trained three "
        "times as long, for as many updates (an exploratory comparison), on the test templates training together adds "
        f"nothing in English ({together['en']}), perhaps something in French ({together['fr']}), and most of the gain "
        f"in Persian ({together['fa']}); on OOD sentences it adds "
        f"{more_updates.by_language(more_updates.changes(steps, 'OOD')[more_updates.TOGETHER])}. These runs cannot "
        "tell whether that comes from other languages or from other examples."
    )


def _tasks(finding: Finding) -> str:
    cases = task_cases(finding)
    counts = cases["outcome"].value_counts()
    rho, p = finding.numbers["rank correlation"], finding.numbers["p"]
    gained = [
        f"{row['task']} on {comparison.SETS[row['set']]} with {row['setting'].replace(row['task'], '').strip('+')}, "
        f"{comparison.interval(row, sign=True)}"
        for row in cases[cases["outcome"] == "gain"].to_dict("records")
    ]
    return (
        f"**Several tasks: one gain, the rest small or undecided.** Five tasks (MiniLM, {finding.seeds} seeds), in "
        f"pairs and all together, give {len(cases)} score changes. After correction over all of them (Benjamini and "
        f"Hochberg), {counts.get('gain', 0)} is a gain ({listing(gained)}) and {counts.get('loss', 'none')} a loss; "
        f"{counts.get('negligible', 0)} stay within ±{rules.BOUND}, and {counts.get('open', 0)} are undecided. With "
        f"only ten pairs, we find no evidence that tasks that are similar before training gain more (rank correlation "
        f"{rho:+.2f}, one-sided p = {p:.2f})."
    )


def _moves(numbers: Numbers) -> str:
    moved, floor = _moved(numbers.moves)
    shares = [_moved(moves)[0] for moves in numbers.each]
    finding = numbers.findings["C4"]
    ways = _directions(numbers.budgets)
    equal, together = (ways.loc[comparison.SETTINGS[name]] for name in (EQUAL, ALL))
    repeated = repeat.needed(repeat.agreements(numbers.evidence)).set_index("score")
    agreement, category = repeated["agreement, evaluation mode"], repeated.loc["category"]
    datasets = numbers.budgets["dataset"].nunique()
    at_equal = numbers.budgets[numbers.budgets["setting"] == comparison.SETTINGS[EQUAL]]
    harder = [NAMES.get(name, name) for name in at_equal[at_equal["high"] < 0]["dataset"]]
    return (
        "**Examples move between subsets more often than by chance: to easier ones with more data and updates, not at "
        f"equal budget.** {_occurring(numbers.findings['C1'])} Between training alone and together, {moved:.0%} of the "
        f"training examples change subset; between two seeds of the same training, {floor:.0%} do. By dataset, the "
        f"first share ranges from {min(shares):.0%} to {max(shares):.0%}. In {finding.table['dataset'].nunique()} of "
        f"{datasets} datasets some moves are beyond chance, mostly from early learned to always correct. On balance, "
        f"the examples that are also used at equal budget become easier in {together['rises']:.0f} datasets and harder "
        f"in {_count(together['falls'])}. At equal budget, with the same total of examples and updates as alone, they "
        f"become easier in {_count(equal['rises'])} and harder in {equal['falls']:.0f} ({listing(harder)}); the others "
        f"are undecided. Two runs rank examples by confidence with a correlation of {agreement['confidence']:.2f}, but "
        f"agree on the subsets with a kappa of only {agreement['category']:.2f} on average; for an agreement of 0.8, "
        f"one run is enough in {category['one run is enough']:.0f} datasets, and up to {category['most runs']:.0f} "
        "would have to be averaged in the others."
    )


def _occurring(finding: Finding) -> str:
    """Name the subsets that occur in too few datasets."""
    occurs = finding.table.groupby("category")["occurs"].agg(["sum", "size"])
    rare = occurs[occurs["sum"] < rules.LEAST_DATASETS * occurs["size"]]
    named = listing([f"{name} in only {row['sum']} of {row['size']} datasets" for name, row in rare.iterrows()])
    return f"All six subsets occur, but {named}."


def _second_stage(numbers: Numbers) -> str:
    cases = numbers.evidence.stages[rules.MAIN_SUBSET]
    passed = sum(stage.manipulated for stage in cases.values())
    against = staged.over_random(cases)
    below, above = (against["high"] < 0).sum(), (against["low"] > 0).sum()
    two = staged.levels(cases, "test").query("score == 'AUC'")
    effects = _stage_effects(numbers.findings["C5"])
    test, ood = (comparison.interval(effects[split, "random"], sign=True) for split in ("test", "ood"))
    arm = staged.by_arm(cases).iloc[0].to_dict()
    clean = comparison.interval(arm, sign=True)
    units = staged.over_cases(cases, "test")
    return (
        "**A second stage on forgotten or never learned examples: lower scores with the recipe tested.** Of "
        f"{len(cases)} cases (a dataset, alone or together, with its own labels or a tenth of them flipped), {passed} "
        "passed the check that the stage learned part of what it was shown. In these, the score (AUC, for questions "
        f"macro-F1) changes by {test} on the test sets and by {ood} out of distribution, compared with a stage on as "
        f"many random examples; without flipped labels, by {clean} on the test sets, with {arm['below']} of "
        f"{arm['cases']} cases below the control. The cases differ widely, from {against['value'].min():+.2f} to "
        f"{against['value'].max():+.2f}; with the cases as the unit of chance, the interval on the test sets is "
        f"[{units.low:+.2f}, {units.high:+.2f}]. Of all {len(against)} cases with enough such examples, {below} end "
        f"below that control and {above or 'none'} above it. In {(two['subset'] < 0.5).sum()} of {len(two)} cases with "
        "two classes, AUC falls below one half, mostly with flipped labels, which accumulate among these examples. An "
        "earlier, shorter stage learned too little for a verdict, and mixing the subset with other examples was not "
        "tried."
    )


def _stage_effects(finding: Finding) -> dict[tuple[str, str], dict[Hashable, Any]]:
    """Return the pooled effects of C5, by set and by what the subset is compared with."""
    pooled = finding.table[finding.table["case"] == "pooled"]
    return {(row["set"], row["against"]): row for row in pooled.to_dict("records")}


def check(numbers: Numbers) -> None:
    """Raise AssertionError if the recorded numbers no longer support the sentences of `abstract` and `details`."""
    evidence, found = numbers.evidence, numbers.findings
    expected = {
        "C1": "mixed",
        "C2": "mixed",
        "C3": "inconclusive",
        "C4": "supported",
        "C5": "not supported",
        "L": "supported",
    }
    assert {name: found[name].verdict for name in expected} == expected
    effects = _effects(found["C2"], "auc")
    sources = {name: table.set_index("dataset")["outcome"] for name, table in effects.items()}
    assert sources["gain"].to_dict() == {"tweets": "negligible", "amazon": "gain", "movie": "gain"}
    assert (sources["diversity"][["amazon", "movie"]] == "gain").all(), sources["diversity"]
    assert (sources["quantity"] == "negligible").all(), sources["quantity"]
    threshold = _effects(found["C2"], "balanced_accuracy")["gain"].set_index("dataset")["outcome"]
    assert threshold.to_dict() == {"tweets": "gain", "amazon": "open", "movie": "negligible"}, threshold
    own = comparison.effects(evidence.comparisons["source"]).query("set == 'test' and score == 'AUC'")
    assert (own.query("contrast == 'gain'")["outcome"] == comparison.WORDS["negligible"]).all(), own
    languages = _effects(found["L"], "macro_f1")
    assert (languages["gain"]["low"] > 0).all(), languages["gain"]
    assert languages["diversity"]["value"].mean() < 0, languages["diversity"]
    assert (languages["diversity"]["value"] < 0).all(), languages["diversity"]
    assert (languages["quantity"]["low"] > 0).all(), languages["quantity"]
    assert found["C3"].numbers["p"] > rules.RELABELLING_P
    cases = task_cases(found["C3"])
    assert (cases["outcome"] == "gain").sum() == 1, cases
    moved, floor = _moved(numbers.moves)
    assert moved > floor > moved / 2, (moved, floor)
    table = found["C4"].table
    assert ((table["from"] == "ELE") & (table["to"] == "ACE")).sum() > len(table) / 2, table
    against = staged.over_random(evidence.stages[rules.MAIN_SUBSET])
    assert (against["high"] < 0).sum() > len(against) / 2, against
    assert (against["low"] <= 0).all(), against
    assert all(effect["high"] < 0 for effect in _stage_effects(found["C5"]).values())
    ways = _directions(numbers.budgets)
    equal, together = (ways.loc[comparison.SETTINGS[name]] for name in (EQUAL, ALL))
    assert together["easier"] > 2 * together["harder"], ways
    assert equal["falls"] >= 3, ways
    assert staged.over_cases(evidence.stages[rules.MAIN_SUBSET], "test").high < 0
    assert together["rises"] > len(numbers.budgets) / 4, ways
    assert together["falls"] == equal["rises"] == 0, ways


def picture(evidence: Evidence) -> Figure:
    """Plot the score of every source and language alone, together at equal budget, and together, on new data."""
    sources, languages = (comparison.levels(evidence.comparisons[name]) for name in ("source", "lingual"))
    table = pd.concat([sources[sources["set"] == "OOD"], languages[languages["set"] == "test"]])
    table["dataset"] = table["dataset"].map(NAMES) + ": " + table["score"]
    title = "Sources: newspapers. Languages: new templates"
    return gain_curves(table, "setting", measure="score", title=title)


def write_picture(root: Path) -> None:
    """Write `picture` to book/images, for the README."""
    figure = picture(open_evidence(root / "data/recorded/standard"))
    with replacing(root / "book/images/gains.png") as tmp:
        figure.savefig(tmp, format="png", dpi=130)


def all_moves(each: Sequence[Moves]) -> Moves:
    """Sum the moves of datasets, in examples; beyond chance if so in more than half of them."""
    beyond = reduce(add, (m.table("beyond").astype(int) for m in each))
    return Moves(
        transition=reduce(add, (m.table("transition") * m.n for m in each)),
        floor=reduce(add, (m.table("floor") * m.n for m in each)),
        beyond=beyond > len(each) / 2,
        n=sum(m.n for m in each),
        seeds=min(m.seeds for m in each),
    )


def _effects(finding: Finding, score: str) -> dict[str, pd.DataFrame]:
    """Return the effects of C2 or the languages by one score, one table per contrast."""
    table = finding.table[finding.table["score"] == score]
    return {str(name): part for name, part in table.groupby("contrast", sort=False)}


def _directions(budgets: pd.DataFrame) -> pd.DataFrame:
    """Return the shares of all examples that become easier and harder, by setting.

    rises and falls count the datasets in which, on balance, examples become easier or harder beyond chance.
    """
    shares = ["floor", "easier", "harder"]
    weighted = budgets[shares].mul(budgets["n"], axis=0).groupby(budgets["setting"]).sum()
    counted = budgets.assign(rises=budgets["low"] > 0, falls=budgets["high"] < 0).groupby("setting")
    return weighted.div(counted["n"].sum(), axis=0).join(counted[["rises", "falls"]].sum())


def _moved(moves: Moves) -> tuple[float, float]:
    """Return the shares of all examples that change category from alone to together, and between seeds."""
    cells = moves.cells()
    changed = cells[cells["from"] != cells["to"]]
    return float(changed["transition"].sum()), float(changed["floor"].sum())


def _count(n: Any) -> str:
    return f"{n:.0f}" if n else "none"
