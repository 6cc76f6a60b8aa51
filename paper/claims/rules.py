"""The rules by which protocol 2 judges the claims, committed before its first recorded run.

Every number in a rule is defined here once. The page `book/rules.md` is generated from these numbers, and the verdict
functions read them. No rule uses random numbers, so no verdict depends on a random seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Literal, TypeVar, get_args

import numpy as np

from soi_lib.analysis.statistics import Effect, Score, benjamini_hochberg
from soi_lib.analysis.transitions import OFF_DIAGONAL, TransitionTest

T = TypeVar("T", str, int)
Outcome = Literal["gain", "loss", "negligible", "open"]
Judgement = Literal["supported", "mixed", "inconclusive", "not supported", "not tested"]
JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)

LEAST_SEEDS = 5
"""With fewer seeds, the evidence is shown but the claim is not tested."""
LEVEL = 0.95
"""Level of every interval shown; a gain or a loss is an effect whose interval at this level excludes zero."""
EQUIVALENCE_LEVEL = 0.90
"""Level of the interval that must lie inside the bounds: two one-sided tests at 5 %."""
FALSE_DISCOVERY_RATE = 0.05
BOUND = 0.02
"""An effect on AUC, accuracy, balanced accuracy or macro-F1 below this is negligible."""
LEAST_SHARE = 0.01
"""C1: a category occurs in a dataset when it holds at least this share of the training examples."""
LEAST_DATASETS = 0.25
"""C1: each category must occur in at least this share of the datasets."""
LEAST_MOVE = 0.01
"""C4: a move counts if it gains at least this share of the examples."""
SWAP_P = 0.05
"""C4: at most this share of the swaps of the two settings within seeds may give as large a difference."""
CHANCE_DATASETS = 0.05
"""C4: "some datasets" must be more than expected if each moves by chance this often (binomial test, 5 %)."""
MOVE_BOUND = 0.04
"""C4: moves of at least this share must be ruled out everywhere before the claim is called not supported."""
MOVING_DATASETS = 0.5
"""C4: in at least this share of the datasets, some move must be more than noise."""
SIMILARITY = "gradient, aligned heads"
"""C3: the measure of similarity before training that decides; others are shown beside it."""
SIMILAR_PAIR = ("sentiment", "opinions")
DISSIMILAR_PAIR = ("sentiment", "paraphrase")
RELABELLING_P = 0.05
MAIN_SUBSET = "UNE+FRGE"
"""C5: the subset of the recipe that the second stage follows."""
LEFT_TO_LEARN = 0.20
"""C5: at its start, at least this share of the subset must be wrong or have p(gold) below `CONFIDENT`."""
CONFIDENT = 0.9
LEARNED = 0.10
"""C5: from start to end that share must fall by at least this much."""
FLIPPED = BOUND
"""C5: the stages on the subset and on its random control must predict different classes for at least this share of the
test examples. With fewer, their accuracies cannot differ by `BOUND`, however useful the subset is."""
SAME_SUBSET = 0.95
"""C5: two subsets whose intersection is at least this share of their union are counted once."""
TESTED_CASES = 0.5
"""C5: the manipulation must succeed in at least this share of the cases, or the claim is not tested."""
TWO_CLASSES: tuple[Score, ...] = ("auc", "balanced_accuracy", "accuracy")
MORE_CLASSES: tuple[Score, ...] = ("macro_f1", "accuracy")
NAMES = {"auc": "AUC", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1"}
"""The display names of the scores."""


def scores_for(classes: int) -> tuple[Score, ...]:
    """Return the scores of a dataset with this number of classes; the first one decides."""
    return TWO_CLASSES if classes == 2 else MORE_CLASSES


def outcome(effect: Effect, bound: float = BOUND, q: float | None = None) -> Outcome:
    """Classify an effect as negligible, gain, loss, or open if none of these can be concluded.

    `q` is its p-value adjusted over all cases, if the rule requires that; for a gain or a loss, it must then be at most
    `FALSE_DISCOVERY_RATE`.
    """
    narrow, wide = effect.interval(EQUIVALENCE_LEVEL), effect.interval(LEVEL)
    if -bound < narrow.low and narrow.high < bound:
        return "negligible"
    if not wide.excludes_zero or (q is not None and q > FALSE_DISCOVERY_RATE):
        return "open"
    return "gain" if effect.value > 0 else "loss"


def corrected(effects: Sequence[Effect]) -> list[Outcome]:
    """Return the outcome of every effect, with gains and losses corrected over all (Benjamini and Hochberg 1995)."""
    adjusted = benjamini_hochberg([effect.p for effect in effects])
    return [outcome(effect, q=float(q)) for effect, q in zip(effects, adjusted, strict=True)]


def consistent(outcomes: Sequence[Outcome]) -> Judgement:
    """Judge C2 or the languages: is there a gain in every dataset?"""
    if not outcomes:
        return "not tested"
    kinds = set(outcomes)
    if kinds == {"gain"}:
        return "supported"
    if "gain" in kinds:
        return "mixed" if kinds & {"loss", "negligible"} else "inconclusive"
    return "inconclusive" if "open" in kinds else "not supported"


def together(halves: Sequence[Judgement]) -> Judgement:
    """Judge a claim of several parts: equal verdicts are kept, an undecided part makes the whole inconclusive."""
    kinds = set(halves)
    if len(kinds) == 1:
        return halves[0]
    return "inconclusive" if kinds & {"inconclusive", "not tested"} else "mixed"


def behaviours(shares: Mapping[str, Sequence[Effect]]) -> Judgement:
    """Judge C1: does every category occur? `shares` has each category's share in every dataset trained alone."""
    counts = {name: sum(e.value >= LEAST_SHARE for e in found) for name, found in shares.items()}
    datasets = len(next(iter(shares.values()), ()))
    if not datasets:
        return "not tested"
    if all(count >= LEAST_DATASETS * datasets for count in counts.values()):
        return "supported"
    absent = [all(e.interval(EQUIVALENCE_LEVEL).high < LEAST_SHARE for e in found) for found in shares.values()]
    if any(absent):
        return "not supported"
    return "mixed" if all(counts.values()) else "inconclusive"


def mixed_results(cases: Sequence[Effect], pooled: Sequence[Effect]) -> Judgement:
    """Judge the first half of C3: are there gains in some cases and losses in others?

    `cases`: every task in every setting on every set; `pooled`: for every setting, the mean over its tasks and sets.
    """
    if not cases:
        return "not tested"
    kinds = set(corrected(cases))
    if {"gain", "loss"} <= kinds:
        return "supported"
    if kinds & {"gain", "loss"}:
        return "mixed"
    return "not supported" if {outcome(e) for e in pooled} == {"negligible"} else "inconclusive"


def similar_gain(similar: Effect | None, contrast: Effect | None, p: float, rho: float) -> Judgement:
    """Judge the second half of C3: do similar tasks gain more?

    Args:
        similar: the gain of the pair named similar, mean over its two tasks and their test and OOD sets.
        contrast: that gain minus the gain of the pair named dissimilar.
        p: one-sided p-value of the rank correlation of similarity and gain, over all relabellings of the tasks.
        rho: that correlation.
    """
    if similar is None or contrast is None or np.isnan(p):
        return "not tested"
    named = outcome(similar) == "gain" and outcome(contrast) == "gain"
    ordered = p <= RELABELLING_P and rho > 0
    if named and ordered:
        return "supported"
    if named or ordered:
        return "mixed"
    refuted = {outcome(similar), outcome(contrast)} & {"negligible", "loss"}
    return "not supported" if refuted else "inconclusive"


def moving(tests: Sequence[TransitionTest]) -> list[np.ndarray]:
    """Return the moves of every dataset that are more than noise (C4), 6x6 bool."""
    out = []
    adjusted = benjamini_hochberg([test.p for test in tests])
    for test, q in zip(tests, adjusted, strict=True):
        with np.errstate(invalid="ignore"):
            significant = q <= FALSE_DISCOVERY_RATE
        out.append(OFF_DIAGONAL & significant & (test.swap_p <= SWAP_P) & (test.difference >= LEAST_MOVE))
    return out


def moves(tests: Sequence[TransitionTest]) -> Judgement:
    """Judge C4: do examples move between categories from alone to together, beyond the floor between seeds?"""
    from scipy.stats import binom  # type: ignore[import-untyped]

    if not tests:
        return "not tested"
    moved = sum(bool(cells.any()) for cells in moving(tests))
    if moved >= MOVING_DATASETS * len(tests):
        return "supported"
    if moved and float(binom.sf(moved - 1, len(tests), CHANCE_DATASETS)) <= 0.05:
        return "mixed"
    ends = [test.effects[i][j].interval(EQUIVALENCE_LEVEL).high for test in tests for i, j in np.argwhere(OFF_DIAGONAL)]
    return "not supported" if max(ends) < MOVE_BOUND else "inconclusive"


def manipulated(start: float, end: float, flips: float) -> bool:
    """Return whether the second stage (C5) had something to learn, learned it, and changed predictions.

    Args:
        start, end: share of the subset that is wrong or below `CONFIDENT` before and after the stage, mean over seeds.
        flips: share of test examples on which the stages on the subset and on its random control predict differently.
    """
    return start >= LEFT_TO_LEARN and start - end >= LEARNED and flips >= FLIPPED


def second_stage(
    tested: float, over_run: Mapping[str, Effect], over_random: Mapping[str, Effect], others: Sequence[Effect] = ()
) -> Judgement:
    """Judge C5: does continuing on the recipe's subset give a gain?

    Args:
        tested: share of the cases in which the manipulation succeeded; effects are pooled over these.
        over_run, over_random: gains of the main subset by set (test, OOD) over the run that it continues and over its
            random control.
        others: gains of the other distinct subsets over their random controls.
    """
    if tested < TESTED_CASES or not over_random:
        return "not tested"
    random = {split: outcome(effect) for split, effect in over_random.items()}
    both = [split for split in random if random[split] == "gain" and outcome(over_run[split]) == "gain"]
    lost = [split for split in random if random[split] == "loss" or outcome(over_run[split]) == "loss"]
    if both and not lost:
        return "supported"
    if both or "gain" in random.values() or "gain" in corrected(others):
        return "mixed"
    return "inconclusive" if "open" in random.values() else "not supported"


def similarity_test(similarity: Mapping[tuple[T, T], float], gains: Mapping[tuple[T, T], float]) -> tuple[float, float]:
    """Return the rank correlation of similarity and gain over pairs of tasks (C3), and its one-sided p-value.

    The p-value is over all relabellings of the similarity's tasks (a Mantel test), so pairs of a task stay together.
    """
    from scipy.stats import rankdata

    if not gains:
        return float("nan"), float("nan")
    names = sorted({name for pair in gains for name in pair})
    number = {name: k for k, name in enumerate(names)}
    alike = np.full((len(names), len(names)), np.nan)
    for (a, b), value in similarity.items():
        if a in number and b in number:
            alike[number[a], number[b]] = alike[number[b], number[a]] = value
    rows = np.array([[number[a], number[b]] for a, b in gains])
    gained = rankdata(np.round(list(gains.values()), 12))
    orders = np.array(list(permutations(range(len(names)))))  # the first one is the identity
    ranks = rankdata(np.round(alike[orders[:, rows[:, 0]], orders[:, rows[:, 1]]], 12), axis=1)
    if np.isnan(alike[rows[:, 0], rows[:, 1]]).any() or np.ptp(gained) == 0 or np.ptp(ranks[0]) == 0:
        return float("nan"), float("nan")
    x = ranks - ranks.mean(axis=1, keepdims=True)
    y = gained - gained.mean()
    rho = x @ y / (np.sqrt((x**2).sum(axis=1)) * np.sqrt((y**2).sum()))
    return float(rho[0]), float(np.mean(rho >= rho[0] - 1e-9))
