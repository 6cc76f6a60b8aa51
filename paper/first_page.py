"""The sentences of the first page with numbers from the recorded runs; its notebook checks that these support them."""

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
from paper.tables import listing, template_house
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
    return str(_template(numbers).abstract())


def details(numbers: Numbers, steps: pd.DataFrame, amounts: pd.DataFrame) -> str:
    """Describe the findings in Markdown, one paragraph per comparison; `more_updates` gives `steps` and `amounts`."""
    repeated = repeat.needed(repeat.agreements(numbers.evidence)).set_index("score")
    more = {
        "agreement": repeated["agreement, evaluation mode"],
        "category": repeated.loc["category"],
        "amounts": more_updates.by_source(amounts),
        "steps": more_updates.changes(steps, "test"),
        "ood": more_updates.changes(steps, "OOD"),
    }
    return str(_template(numbers, **more).details())


def _template(numbers: Numbers, **more: Any) -> Any:
    """Return the macros of `first_page.md.j2` with the numbers that they need."""
    found, budgets = numbers.findings, numbers.budgets
    sources, languages = (numbers.evidence.comparisons[name] for name in ("source", "lingual"))
    auc, macro_f1 = by_contrast(found["C2"], "auc"), by_contrast(found["L"], "macro_f1")
    gain, diversity = (comparison.signed(auc[name]) for name in ("gain", "diversity"))
    rising = macro_f1["gain"].sort_values("value").to_dict("records")
    gained = auc["gain"].query("outcome == 'gain'")["dataset"]
    equal = macro_f1["diversity"].set_index("dataset", drop=False)
    cases = task_cases(found["C3"])
    gained_tasks = [
        f"{row['task']} on {comparison.SETS[row['set']]} with {row['setting'].replace(row['task'], '').strip('+')}, "
        f"{signed(row)}"
        for row in cases[cases["outcome"] == "gain"].to_dict("records")
    ]
    occurs = found["C1"].table.groupby("category")["occurs"].agg(["sum", "size"])
    rare = occurs[occurs["sum"] < rules.LEAST_DATASETS * occurs["size"]]
    stages = numbers.evidence.stages[rules.MAIN_SUBSET]
    effects, against = pooled(found["C5"]), staged.over_random(stages)
    ways = directions(budgets)
    fell = budgets[(budgets["setting"] == comparison.SETTINGS[EQUAL]) & (budgets["high"] < 0)]["dataset"]
    values = {
        "found": found,
        "sources": sources,
        "languages": languages,
        "epochs": sources.runs[0].manifest["identity"]["training"]["epochs"],
        "gain": gain,
        "diversity": diversity,
        "balanced": comparison.signed(by_contrast(found["C2"], "balanced_accuracy")["gain"]),
        "rises": listing([f"{gain[dataset]} over {NAMES[dataset]}" for dataset in gained]),
        "parts": listing([diversity[dataset] for dataset in gained]),
        "rising": rising,
        "budget": comparison.signed(equal),
        "equal": equal,
        "lost": listing([NAMES[dataset] for dataset in equal.index[equal["outcome"] == "loss"]]),
        "cases": cases,
        "kinds": {kind: int((cases["outcome"] == kind).sum()) for kind in ("gain", "loss", "negligible", "open")},
        "gained": listing(gained_tasks),
        "rare": listing([f"{name} in only {row['sum']} of {row['size']} datasets" for name, row in rare.iterrows()]),
        **dict(zip(("moved", "floor"), moved(numbers.moves), strict=True)),
        "shares": [moved(moves)[0] for moves in numbers.each],
        "datasets": budgets["dataset"].nunique(),
        "at_equal": ways.loc[comparison.SETTINGS[EQUAL]],
        "together": ways.loc[comparison.SETTINGS[ALL]],
        "fell": listing([NAMES.get(name, name) for name in fell]),
        "stages": stages,
        "passed": sum(stage.manipulated for stage in stages.values()),
        "stage": {split: signed(effects[split, "random"]) for split in ("test", "ood")},
        "against": against,
        "units": staged.over_cases(stages, "test"),
        "two": staged.levels(stages, "test").query("score == 'AUC'"),
        "clean": staged.by_arm(stages).iloc[0].to_dict(),
    }
    tools = {"examples": examples, "signed": signed, "by_language": more_updates.by_language}
    names = {"bound": rules.BOUND, "TOGETHER": more_updates.TOGETHER}
    house = template_house(share="{:.0%}".format)
    return house.get_template("first_page.md.j2").make_module(values | more | tools | names)


def signed(row: Mapping[Any, Any]) -> str:
    """Write a change with its interval."""
    return comparison.interval(row, sign=True)


def pooled(finding: Finding) -> dict[tuple[str, str], dict[Hashable, Any]]:
    """Return the pooled effects of C5, by set and by what the subset is compared with."""
    pooled = finding.table[finding.table["case"] == "pooled"]
    return {(row["set"], row["against"]): row for row in pooled.to_dict("records")}


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


def directions(budgets: pd.DataFrame) -> pd.DataFrame:
    """Count the datasets in which, on balance, examples become easier (rises) or harder (falls), per setting."""
    signs = budgets.assign(rises=budgets["low"] > 0, falls=budgets["high"] < 0)
    return signs.groupby("setting")[["rises", "falls"]].sum()


def by_contrast(finding: Finding, score: str) -> dict[str, pd.DataFrame]:
    """Return the effects of C2 or the languages by one score, one table per contrast."""
    table = finding.table[finding.table["score"] == score]
    return {str(name): part for name, part in table.groupby("contrast", sort=False)}


def moved(moves: Moves) -> tuple[float, float]:
    """Return the shares of all examples that change category from alone to together, and between seeds."""
    cells = moves.cells()
    changed = cells[cells["from"] != cells["to"]]
    return float(changed["transition"].sum()), float(changed["floor"].sum())
