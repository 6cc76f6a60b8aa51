"""From predictions and categories to verdicts: every claim as one function on plain arrays.

The rules are in `rules`; this module measures the effects that they need and lists them, one row per case, so that a
page can show the basis of a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from paper.claims import rules
from paper.claims.rules import Judgement, Outcome
from soi_lib.analysis.soi import SOI
from soi_lib.analysis.statistics import Effect, Score, contributions, mean_effect
from soi_lib.analysis.transitions import transition_test

Array = npt.NDArray[Any]
Case = TypeVar("Case")
SINGLE, ALL, EQUAL = "single", "all", "equal budget"
CONTRASTS = {"gain": (SINGLE, ALL), "diversity": (SINGLE, EQUAL), "quantity": (EQUAL, ALL)}
RUN, SUBSET, RANDOM, MORE = "run", "subset", "random", "equal updates"


@dataclass(frozen=True)
class Evaluation:
    """What the runs of several settings predict for one set of examples, with row s of every setting from seed s.

    gold: class codes (N,). predicted: class codes (S, N) by setting. positive: for two classes, the probability of
    class 1 (S, N) by setting; None otherwise. groups: (N,) if examples of one group, such as the sentences of one
    template, are not independent; None if all examples are.
    """

    gold: Array
    predicted: Mapping[str, Array]
    positive: Mapping[str, Array] | None = None
    groups: Array | None = None

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores that the rules require, the deciding one first."""
        return rules.scores_for(2 if self.positive is not None else 3)

    def values(self, setting: str, score: Score | None = None) -> Array:
        """Return contributions (S, N) to a score in a setting; the deciding score by default.

        With groups there is one contribution per group, (S, G).
        """
        score = score or self.scores[0]
        given = self.positive if score == "auc" and self.positive is not None else self.predicted
        values = contributions(score, self.gold, given[setting])
        return values if self.groups is None else _by_group(values, self.groups)

    def gain(self, before: str, after: str, score: Score | None = None) -> Array:
        """Return `values` in setting `after` minus those in `before`."""
        return self.values(after, score) - self.values(before, score)


def _by_group(values: Array, groups: Array) -> Array:
    """Return (S, G) from (S, N) with the same mean per seed: a group sums the deviations of its examples from it."""
    names, index = np.unique(groups, return_inverse=True)
    mean = values.mean(axis=1, keepdims=True)
    sums = (values - mean) @ np.eye(len(names))[index]
    return mean + sums * (len(names) / len(groups))


@dataclass(frozen=True)
class Finding:
    """A verdict and its basis: a table with one row per case, verdicts of its parts, and further numbers."""

    verdict: Judgement
    table: pd.DataFrame
    parts: Mapping[str, Judgement] = field(default_factory=dict)
    seeds: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)


def six_behaviours(codes: Mapping[str, Array]) -> Finding:
    """Judge C1 from the categories (S, N) of every dataset trained alone."""
    shares = {soi.name: {name: mean_effect(c == soi) for name, c in codes.items()} for soi in SOI}
    rows = [
        _row(effect, category=label, dataset=name, occurs=effect.value >= rules.LEAST_SHARE)
        for label, found in shares.items()
        for name, effect in found.items()
    ]
    verdict = rules.behaviours({label: list(found.values()) for label, found in shares.items()})
    return _finding(verdict, rows)


def consistent_gain(evaluations: Mapping[str, Evaluation]) -> Finding:
    """Judge C2 or the languages from one evaluation per dataset, with the settings single, all and maybe equal budget.

    `parts` has the verdicts on gain, diversity and quantity by every score.
    """
    rows: list[dict[str, Any]] = []
    outcomes: dict[str, list[Outcome]] = {}
    for dataset, contrast, score, effect in differences(evaluations, CONTRASTS):
        outcomes.setdefault(f"{contrast}, {score}", []).append(rules.outcome(effect))
        rows.append(_row(effect, dataset=dataset, contrast=contrast, score=score, outcome=rules.outcome(effect)))
    parts = {name: rules.consistent(found) for name, found in outcomes.items()}
    deciding = (verdict for name, verdict in parts.items() if name.startswith("gain"))  # by the deciding score first
    return _finding(next(deciding, "not tested"), rows, parts)


def differences(
    evaluations: Mapping[Case, Evaluation], contrasts: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[Case, str, Score, Effect]]:
    """Yield the effect of every contrast (settings before, after) by every score, for the cases that have both."""
    for case, one in evaluations.items():
        for contrast, (before, after) in contrasts.items():
            if before in one.predicted and after in one.predicted:
                for score in one.scores:
                    yield case, contrast, score, mean_effect(one.gain(before, after, score))


def several_tasks(
    evaluations: Mapping[tuple[str, str], Evaluation],
    similarity: Mapping[tuple[str, str], float],
    named: Sequence[tuple[str, str]] = (rules.SIMILAR_PAIR, rules.DISSIMILAR_PAIR),
) -> Finding:
    """Judge C3 from the evaluations of every task on every set, by (task, set), and the similarity of pairs of tasks.

    The settings are single, all, and for every pair the name of the partner. Without the pairs `named` similar and
    dissimilar, or with a pair that has no similarity, the second half is not tested.
    """
    cases: dict[tuple[str, str, str], Array] = {}
    tasks = list(dict.fromkeys(task for task, _ in evaluations))
    for (task, split), evaluation in evaluations.items():
        for setting in evaluation.predicted:
            if setting == ALL or setting in tasks:
                trained = sorted(tasks if setting == ALL else (task, setting))
                together = "+".join(trained) if len(trained) == 2 else ALL
                cases[together, task, split] = evaluation.gain(SINGLE, setting)
    effects = [mean_effect(values) for values in cases.values()]
    rows = [
        _row(effect, task=task, setting=together, set=split, outcome=outcome)
        for (together, task, split), effect, outcome in zip(cases, effects, rules.corrected(effects), strict=True)
    ]
    of = {together: [v for (t, _, _), v in cases.items() if t == together] for together, _, _ in cases}
    first = rules.mixed_results(effects, [mean_effect(values) for values in of.values()])
    pairs = [pair for pair in combinations(sorted(tasks), 2) if "+".join(pair) in of]
    gains = {pair: float(np.mean([v.mean() for v in of["+".join(pair)]])) for pair in pairs}
    rho, p = rules.similarity_test(similarity, gains)
    chosen = [of.get("+".join(sorted(pair)), []) for pair in named]
    similar = mean_effect(chosen[0]) if chosen[0] else None
    contrast = difference(*chosen) if all(chosen) else None
    for what, found in (("similar pair", similar), ("similar minus dissimilar pair", contrast)):
        rows += [_row(found, task=what, setting="", set="all", outcome=rules.outcome(found))] if found else []
    second = rules.similar_gain(similar, contrast, p, rho)
    finding = _finding(rules.together([first, second]), rows, {"mixed results": first, "similar tasks": second})
    return replace(finding, numbers={"rank correlation": rho, "p": p})


def difference(first: Sequence[Array], second: Sequence[Array]) -> Effect:
    """Return the mean of some tables minus the mean of others with the same seeds but different examples."""
    count = len(first) + len(second)
    return mean_effect(
        [x * (count / len(first)) for x in first] + [x * (-count / len(second)) for x in second]  # mean_effect averages
    )


def moves(codes: Mapping[str, tuple[Array, Array]]) -> Finding:
    """Judge C4 from the categories (S, N) of every dataset alone and all together."""
    seeds = min((len(single) for single, _ in codes.values()), default=0)
    if seeds < rules.LEAST_SEEDS:
        return Finding("not tested", pd.DataFrame(), seeds=seeds)
    tests = {name: transition_test(single, multi) for name, (single, multi) in codes.items()}
    rows: list[dict[str, Any]] = []
    for (name, test), cells in zip(tests.items(), rules.moving(list(tests.values())), strict=True):
        for i, j in np.argwhere(cells):
            rows.append(_row(test.effects[i][j], dataset=name, **{"from": SOI(i).name, "to": SOI(j).name}))
    verdict = rules.moves(list(tests.values()))
    return _finding(verdict, rows, seeds=seeds)


@dataclass(frozen=True)
class Stage:
    """A second stage on one subset in one case (a dataset in a setting and an arm).

    ids: the chosen examples of every seed. trained: how many of them remain when classes are balanced, by seed. start,
    end: the share of these that is wrong or not confident before and after the stage, by seed. evaluations: by set
    (test, OOD), with the settings run, subset, random and equal updates; empty if the subset was too small to train on
    in some seed, which counts as a failed check.
    """

    ids: Sequence[frozenset[Any]]
    trained: Array
    start: Array
    end: Array
    evaluations: Mapping[str, Evaluation]

    @property
    def flips(self) -> float:
        """Share of the test examples on which the subset and its random control lead to different predictions."""
        if "test" not in self.evaluations:
            return 0.0
        predicted = self.evaluations["test"].predicted
        return float((predicted[SUBSET] != predicted[RANDOM]).mean())

    @property
    def manipulated(self) -> bool:
        """Whether the stage had something to learn, learned it, and changed predictions."""
        return rules.manipulated(float(np.mean(self.start)), float(np.mean(self.end)), self.flips)


def second_stage(stages: Mapping[str, Mapping[str, Stage]]) -> Finding:
    """Judge C5 from the stages by subset and case. Of subsets that coincide in a case, only the first counts there."""
    rows: list[dict[str, Any]] = []
    effects: dict[tuple[str, str], dict[str, Effect]] = {}  # by subset and what it is compared with, then by set
    tested = 0.0
    for subset, cases in stages.items():
        own = {case: stage for case, stage in cases.items() if not _seen_before(stages, subset, case)}
        good = [stage for stage in own.values() if stage.manipulated]
        if subset == rules.MAIN_SUBSET:
            tested = len(good) / len(cases)
        for case, stage in own.items():
            check = {"start": float(np.mean(stage.start)), "end": float(np.mean(stage.end)), "flips": stage.flips}
            rows.append({"subset": subset, "case": case, "manipulated": stage.manipulated} | check)
        for split in dict.fromkeys(split for stage in good for split in stage.evaluations):
            there = [stage.evaluations[split] for stage in good if split in stage.evaluations]
            for against in (RUN, RANDOM, MORE):
                if tables := [one.gain(against, SUBSET) for one in there if against in one.predicted]:
                    effect = effects.setdefault((subset, against), {})[split] = mean_effect(tables)
                    row = {"subset": subset, "case": "pooled", "set": split, "against": against}
                    rows.append(_row(effect, **row, outcome=rules.outcome(effect)))
    over_run, over_random = (effects.get((rules.MAIN_SUBSET, against), {}) for against in (RUN, RANDOM))
    others = [
        effect
        for (subset, against), found in effects.items()
        if subset != rules.MAIN_SUBSET and against == RANDOM
        for effect in found.values()
    ]
    return _finding(rules.second_stage(tested, over_run, over_random, others), rows)


def _seen_before(stages: Mapping[str, Mapping[str, Stage]], subset: str, case: str) -> bool:
    """Return whether an earlier subset has nearly the same examples in this case, on average over seeds."""
    for earlier in stages:
        if earlier == subset:
            return False
        if case in stages[earlier]:
            one, two = stages[earlier][case].ids, stages[subset][case].ids
            shared = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in zip(one, two, strict=False)]
            if shared and np.mean(shared) >= rules.SAME_SUBSET:  # a stage with too few examples has no ids
                return True
    return False


def measured(effect: Effect, **what: Any) -> dict[str, Any]:
    """Return a row of a table: `what`, followed by the value of the effect and the ends of its interval."""
    return what | asdict(effect.interval(rules.LEVEL))


def _row(effect: Effect, **what: Any) -> dict[str, Any]:
    return measured(effect, **what) | {"n": effect.n, "seeds": effect.seeds}


def _finding(
    verdict: Judgement, rows: list[dict[str, Any]], parts: Mapping[str, Judgement] | None = None, seeds: int = 0
) -> Finding:
    """Return the finding; with too few seeds it is not tested, whatever the rule returns."""
    table = pd.DataFrame(rows)
    seeds = seeds or (int(table["seeds"].min()) if "seeds" in table and table["seeds"].notna().any() else 0)
    return Finding(verdict if seeds >= rules.LEAST_SEEDS else "not tested", table, dict(parts or {}), seeds)
