"""The claims of the paper, and what recorded runs say about them: from `Results` to a verdict and its numbers.

A claim is judged by `judge` on plain arrays; this module only gathers them. If a comparison was not recorded, the claim
is not tested.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from paper.claims import judge, rules
from paper.claims.judge import ALL, EQUAL, SINGLE, Array, Evaluation, Finding, Stage
from paper.claims.staged import open_stages
from paper.recorded import by_comparison, recorded_profile, recorded_runs, verify_recorded
from paper.similarity import open_similarity, similarity_path
from soi_lib.analysis.soi import categorize
from soi_lib.runs.config import Setting
from soi_lib.runs.results import Results

UNTESTED = Finding("not tested", pd.DataFrame())
"""The finding if evidence is missing."""
RULES = {"L": "An additional finding: languages"}
"""Sections of the rules page that are not named after the claim's id."""

Mode = Literal["eval", "train"]


@dataclass(frozen=True)
class Evidence:
    """The evidence on which the claims are judged.

    comparisons: results by name (task, source, lingual). similarity: of pairs of tasks, before training. stages: second
    stages by subset and case.
    """

    comparisons: Mapping[str, Results]
    similarity: Mapping[tuple[str, str], float] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, Stage]] = field(default_factory=dict)

    @property
    def datasets(self) -> list[tuple[str, Results, str]]:
        """Every dataset of every comparison: COMPARISON/DATASET, the results, the dataset."""
        return [(f"{name}/{dataset}", of, dataset) for name, of in self.comparisons.items() for dataset in of.members]


@dataclass(frozen=True)
class Claim:
    """A claim in our words and how it is judged; the rules page has the rule in words."""

    id: str
    title: str
    text: str
    needs: tuple[str, ...]
    """The comparisons that must have been recorded; if one is missing, the claim is not tested."""
    judge: Callable[[Evidence], Finding]


def _tasks(evidence: Evidence) -> Finding:
    results = evidence.comparisons["task"]
    found = {
        (task, split): evaluation(
            results,
            task,
            split,
            {SINGLE: Setting((task,)), ALL: Setting(results.members)}
            | {next(t for t in s if t != task): s for s in results.settings if len(s) == 2 and task in s},
        )
        for task in results.members
        for split in results.splits(task)
    }
    return judge.several_tasks(found, evidence.similarity)


CLAIMS = (
    Claim(
        "C1",
        "Six learning behaviours",
        "Examples show six behaviours: never learned; learned at once, early or late; forgotten once or repeatedly.",
        ("task", "source", "lingual"),
        lambda evidence: judge.six_behaviours({case: codes(of, d, (d,)) for case, of, d in evidence.datasets}),
    ),
    Claim(
        "C2",
        "Several sources",
        "Training on several sources together improves results out of distribution for every source.",
        ("source",),
        lambda evidence: judge.consistent_gain(alone_and_together(evidence.comparisons["source"], "ood")),
    ),
    Claim(
        "C3",
        "Several tasks",
        "Training on several tasks together gives mixed results, and similar tasks gain more.",
        ("task",),
        _tasks,
    ),
    Claim(
        "C4",
        "Moves between categories",
        "Training on several datasets instead of one moves examples between the categories.",
        ("task", "source", "lingual"),
        lambda evidence: judge.moves(
            {case: (codes(of, d, (d,)), codes(of, d, of.members)) for case, of, d in evidence.datasets}
        ),
    ),
    Claim(
        "C5",
        "A second stage",
        "Continuing to train on the examples that were forgotten or never learned improves results further.",
        (),
        lambda evidence: judge.second_stage(evidence.stages),
    ),
    Claim(
        "L",
        "Several languages",
        "Our own: training on several languages together improves results on new templates for every language.",
        ("lingual",),
        lambda evidence: judge.consistent_gain(alone_and_together(evidence.comparisons["lingual"], "test")),
    ),
)


def verdicts(evidence: Evidence) -> dict[str, Finding]:
    """Return the finding of every claim, by its id."""
    return {
        claim.id: claim.judge(evidence) if set(claim.needs) <= set(evidence.comparisons) else UNTESTED
        for claim in CLAIMS
    }


def open_evidence(folder: str | Path, stages: str | Path | None = None) -> Evidence:
    """Read the evidence in a folder of recorded runs, and the second stages in the recorded folders of `stages`.

    A comparison that was not recorded is left out. Raises StoreError if a folder is damaged.
    """
    folder = Path(folder)
    verify_recorded(folder)
    comparisons = by_comparison(recorded_profile(folder), recorded_runs(folder))
    similarity = {}
    if "task" in comparisons and similarity_path("task", folder).exists():
        similarity = likeness(open_similarity(comparisons["task"], folder))
    return Evidence(comparisons, similarity, {} if stages is None else open_stages(Path(stages)))


def likeness(similarities: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the similarity of every pair of tasks by the deciding measure."""
    rows = similarities[similarities["measure"] == rules.SIMILARITY].query("first != second")
    return dict(zip(zip(rows["first"], rows["second"], strict=True), rows["value"], strict=True))


def cases(finding: Finding) -> pd.DataFrame:
    """Return the cases of a finding for `interval_plot`, by the deciding score only if there are several."""
    table = finding.table.dropna(subset=["value"])  # a case of C5 has a check, the pooled ones have an effect
    if "score" in table:
        deciding = table.groupby("dataset", sort=False)["score"].transform("first")
        table = table[table["score"] == deciding]
        return table.assign(case=table["dataset"], measure=table["contrast"])
    if "task" in table:  # C3, whose outcomes are corrected over all cases
        table = task_cases(finding)
        table = table.assign(beyond=table["outcome"].isin(["gain", "loss"]))
    names = [
        name for name in ("dataset", "task", "setting", "category", "from", "to", "subset", "set") if name in table
    ]
    return table.assign(case=table[names].astype(str).agg(", ".join, axis=1), measure="effect")


def task_cases(finding: Finding) -> pd.DataFrame:
    """Return the rows of C3 that are cases, without the effects of the named pairs."""
    return finding.table[finding.table["set"] != "all"]


def codes(results: Results, dataset: str, setting: Sequence[str], mode: Mode | None = "eval", skip: int = 0) -> Array:
    """Return the categories (S, N) of a dataset in a setting, one row per seed.

    `mode` is the recording mode, None the primary one of the runs; the first `skip` epochs are ignored.
    """
    runs = (results.run(setting, seed).dynamics(dataset, mode) for seed in results.seeds)
    return np.stack([categorize(dynamics.correct[skip:]) for dynamics in runs])


def evaluation(results: Results, dataset: str, split: str, settings: Mapping[str, Setting]) -> Evaluation:
    """Return what the runs of `settings` predict on one set of a dataset.

    Sets of languages are grouped by template.
    """
    found = {name: results.evaluated(dataset, setting, split) for name, setting in settings.items()}
    first = next(iter(found.values()))
    two = results.classes(dataset) == 2
    groups = None
    if results.comparison == "lingual":
        part = results.corpus(dataset).splits[split]
        of = dict(zip(part.ids, part.group, strict=True))
        groups = np.array([of[i] for i in first.ids])
    return Evaluation(
        first.gold,
        {name: e.predicted for name, e in found.items()},
        {name: e.positive for name, e in found.items()} if two else None,
        groups,
    )


def alone_and_together(results: Results, split: str) -> dict[str, Evaluation]:
    """Return every dataset that has such a set alone, all together, and all together at equal budget if it was run."""
    every = results.members
    shared = {ALL: Setting(every)} | ({EQUAL: s} if (s := Setting(every, "equal")) in results.settings else {})
    return {
        dataset: evaluation(results, dataset, split, {SINGLE: Setting((dataset,)), **shared})
        for dataset in every
        if split in results.splits(dataset)
    }


def overview(findings: Mapping[str, Finding]) -> pd.DataFrame:
    """Return one row per claim: the claim, its verdict, and the number of seeds."""
    return pd.DataFrame(
        {"claim": f"{c.id}. {c.text}", "verdict": findings[c.id].verdict, "seeds": findings[c.id].seeds or ""}
        for c in CLAIMS
    )


def summary(claim: Claim, finding: Finding, evidence: Evidence) -> str:
    """Return a claim, its verdict and those of its parts, as Markdown."""
    parts = "".join(f"\n- {_words(name)}: {verdict}" for name, verdict in finding.parts.items())
    missing = [name for name in claim.needs or ("second stages",) if name not in evidence.comparisons]
    why = f" Not recorded yet: {', '.join(missing)}." if finding.table.empty else ""
    return f"*{claim.text}*\n\n**Verdict: {finding.verdict}.**{why}\n{parts}"


def claims_json(findings: Mapping[str, Finding], evidence: Evidence) -> list[dict[str, Any]]:
    """Return the content of claims.json: id, title, text, rule, verdict, seeds, parts, numbers, cases, runs."""
    runs = sorted(run.key for results in evidence.comparisons.values() for run in results.runs)
    return [
        {
            "id": claim.id,
            "title": claim.title,
            "claim": claim.text,
            "rule": f"book/rules.md, {RULES.get(claim.id, claim.id)}",
            "verdict": findings[claim.id].verdict,
            "seeds": findings[claim.id].seeds,
            "parts": dict(findings[claim.id].parts),
            "numbers": json.loads(pd.Series(findings[claim.id].numbers, dtype=float).to_json(double_precision=15)),
            "cases": json.loads(findings[claim.id].table.to_json(orient="records", double_precision=15)),
            "runs": [] if findings[claim.id].table.empty else runs,
        }
        for claim in CLAIMS
    ]


def _words(part: str) -> str:
    """Return the display name of a part of a claim: `gain, macro-F1` for `gain, macro_f1`."""
    what, comma, score = part.partition(", ")
    return f"{what}{comma}{rules.NAMES.get(score, score)}"
