"""The rules for the claims about accuracy: C2 (several sources), C3 (several tasks) and C5 (a second stage).

Special about it: the rules were fixed before the recorded runs were looked at, see finished runs only, and have no
free parameter. Every gain is paired by example and by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from paper.claims.evidence import (
    RATE,
    SPLITS,
    Evidence,
    Finding,
    Judgement,
    absent,
    alone,
    beyond_chance,
    evaluated,
    row,
    signed,
    span,
    together_of,
)
from paper.reading import gain
from paper.recorded import Results
from paper.tables import listing
from soi_lib.analysis.statistics import mean_interval

PAPER_GAIN = 0.07  # "by up to 7 %"; whether points or per cent of the accuracy is not said
SIMILARITY = "gradient, aligned heads"
"""The measure of similarity that counts; the others are shown beside it."""
SOI_SUBSETS = ("UNE+FRGE", "FRGE", "LLE+FRGE+UNE", "ACE")
"""Subsets of a second stage that are chosen by category; the first one is that of the recipe which is followed."""


def several_sources(evidence: Evidence) -> Finding:
    """C2: for every source, OOD accuracy together minus alone lies above zero."""
    results = evidence.found.get("source")
    together = together_of(results)
    if results is None or together is None:
        return absent("sources were not trained alone and all together")
    members = [member for member in alone(results) if "ood" in results.splits(member)]
    if not members:
        return absent("no source has an OOD set")
    hits = [_difference(results, member, together, "ood") for member in members]
    gains = [gain(results, member, together, "ood") for member in members]
    rows = [row(f"{m}, OOD", "gain of accuracy", g) for m, g in zip(members, gains, strict=True)]
    # the members may share their OOD examples, so they are averaged by example before anything is resampled
    pooled = mean_interval(pd.concat(hits).groupby(level=0).mean().to_numpy().T)
    rows.append(row("mean over sources, OOD", "gain of accuracy", pooled))
    up, down = sum(g.low > 0 for g in gains), sum(g.high < 0 for g in gains)
    judgement: Judgement = "supported" if up == len(gains) else "mixed" if up and not down else "not supported"
    best = max(range(len(gains)), key=lambda k: gains[k].value)
    top = gains[best]
    word = "below" if top.high < PAPER_GAIN else "above" if top.low > PAPER_GAIN else "not told apart from"
    told = (
        f"OOD accuracy together minus alone has its interval above zero for {up} of {len(gains)} sources and below "
        f"zero for {down}; the mean over sources is {signed(pooled)}.",
        f"The largest gain is that of {members[best]}, {signed(top)}: {word} the paper's largest of 7 %, read as "
        "points of accuracy.",
    )
    open_ = [f"{m} ({signed(g)})" for m, g in zip(members, gains, strict=True) if not g.low > 0]
    change = (
        "one source whose interval contains zero or lies below it, for instance on another OOD set."
        if judgement == "supported"
        else f"an interval above zero also for {listing(open_)}; its width falls with more seeds and more OOD examples."
    )
    n = len(pd.concat(hits).index.unique())
    return Finding(judgement, told, change, pd.DataFrame(rows), n, len(results.seeds))


def _difference(results: Results, member: str, setting: tuple[str, ...], split: str) -> pd.DataFrame:
    """Correct in `setting` minus correct alone, in -1, 0, 1: a row an example id, a column a seed."""
    columns = {}
    for seed in results.seeds:
        sides = []
        for own in (setting, (member,)):
            frame = results.run(own, seed).predictions(member)
            frame = frame[frame["split"] == split].set_index("id").sort_index()
            sides.append((frame["gold"] == frame["predicted"]).astype(float))
        columns[seed] = sides[0] - sides[1]
    return pd.DataFrame(columns)


def several_tasks(evidence: Evidence) -> Finding:
    """C3: tasks trained together gain in some cases and lose in others, and similar pairs gain more."""
    results = evidence.found.get("task")
    if results is None or not any(len(s) > 1 for s in results.settings):
        return absent("tasks were not trained alone and with others")
    rows: list[dict[str, Any]] = []
    gains: dict[tuple[str, str], list[float]] = {}
    alike = _similarities(evidence.similarity, SIMILARITY)
    for member in alone(results):
        for setting in results.settings_with(member)[1:]:
            others = [m for m in setting if m != member]
            for split in results.splits(member):
                found = gain(results, member, setting, split)
                known = alike.get(frozenset(setting), np.nan) if len(setting) == 2 else np.nan
                case = f"{member} with {'+'.join(others)}, {SPLITS[split]}"
                rows.append(row(case, "gain of accuracy", found, similarity=known))
                if len(setting) == 2:
                    gains.setdefault((member, others[0]), []).append(found.value)
    table = pd.DataFrame(rows)
    up, down = int((table["low"] > 0).sum()), int((table["high"] < 0).sum())
    sides = [beyond_chance(k, len(table)) for k in (up, down)]
    told = [
        f"Of {len(table)} cases (member, setting, test or OOD set) the interval lies above zero in {up} and below in "
        f"{down}; by chance alone there would be about {RATE * len(table):.1f} on each side. "
        + {
            (True, True): "Some gain and some lose: results are mixed, as the paper says.",
            (True, False): "There are gains, but no more losses than chance gives.",
            (False, True): "There are losses, but no more gains than chance gives.",
            (False, False): "Neither gains nor losses are more than chance gives.",
        }[sides[0], sides[1]]
    ]
    first: Judgement = "supported" if all(sides) else "mixed" if any(sides) else "not supported"
    second, sentence = _similar_gain(evidence.similarity, {pair: float(np.mean(v)) for pair, v in gains.items()})
    told.append(sentence)
    parts = {first, second} - {"not tested"}
    judgement: Judgement
    if parts == {"supported"}:
        judgement = "mixed" if second == "not tested" else "supported"
    else:
        judgement = "not supported" if parts == {"not supported"} else "mixed"
    reach = float(((table["high"] - table["low"]) / 2).median())
    told.append(
        f"Half of the intervals reach further than {reach:.3f} to either side: smaller effects stay unseen here."
    )
    told.append(f"First half (mixed results): {first}. Second half (similar tasks gain more): {second}.")
    change = (
        "gains and losses beyond chance, and at least four tasks, so that the order of similar pairs can be tested."
    )
    return Finding(judgement, tuple(told), change, table, evaluated(results), len(results.seeds))


def similarity_test(
    similarity: pd.DataFrame, gains: Mapping[tuple[str, str], float], measure: str
) -> tuple[float, float, float]:
    """Rank correlation of similarity and gain over directed pairs, its one-sided p, and the smallest p there can be.

    `gains` by (member, partner). The members of the similarity are relabelled in every way (a Mantel test), so a
    pair's two directions and a member's several pairs stay together. NaN where a pair has no similarity.
    """
    alike = _similarities(similarity, measure)
    names = sorted({name for pair in gains for name in pair})
    pairs = list(gains)
    if any(frozenset(pair) not in alike for pair in pairs):
        return np.nan, np.nan, np.nan
    gained = _ranks([gains[pair] for pair in pairs])
    found = []
    for order in permutations(names):
        label = dict(zip(names, order, strict=True))
        found.append(_correlation(_ranks([alike[frozenset((label[a], label[b]))] for a, b in pairs]), gained))
    observed = found[0]  # permutations start with the order itself
    p = float(np.mean([value >= observed - 1e-9 for value in found]))
    return observed, p, 1 / len(found)


def _similar_gain(similarity: pd.DataFrame | None, gains: dict[tuple[str, str], float]) -> tuple[Judgement, str]:
    if similarity is None or similarity.empty or not gains:
        return (
            "not tested",
            "Whether similar tasks gain more is not tested: there is no table of similarities, or no pair.",
        )
    rho, p, least = similarity_test(similarity, gains, SIMILARITY)
    if np.isnan(rho):
        return "not tested", f"Whether similar tasks gain more is not tested: a pair has no {SIMILARITY!r} similarity."
    both: dict[frozenset[str], list[float]] = {}
    for pair, value in gains.items():
        both.setdefault(frozenset(pair), []).append(value)
    alike = _similarities(similarity, SIMILARITY)
    top = max(both, key=lambda pair: (alike[pair], sorted(pair)))
    rank = sorted((float(np.mean(v)) for v in both.values()), reverse=True).index(float(np.mean(both[top]))) + 1
    text = (
        f"The most similar pair ({SIMILARITY}) is {' and '.join(sorted(top))} ({alike[top]:.3f}); its mean gain "
        f"{np.mean(both[top]):+.3f} is number {rank} of {len(both)}. Rank correlation of similarity and gain over "
        f"{len(gains)} directed pairs: {rho:+.2f}"
    )
    others = []
    for measure in dict.fromkeys(similarity["measure"]):
        value = similarity_test(similarity, gains, str(measure))[0]
        if measure != SIMILARITY and not np.isnan(value):
            others.append(f"{measure} {value:+.2f}")
    also = f" By other measures: {', '.join(others)}." if others else ""
    if least > 0.05:
        return "not tested", (
            f"{text}. With so few tasks there are {round(1 / least)} ways to relabel them and p cannot be below "
            f"{least:.2f}, so this half is not tested.{also}"
        )
    verdict: Judgement = "supported" if p <= 0.05 and rho > 0 else "not supported"
    return verdict, f"{text}, p = {p:.3f} (all relabellings of the tasks).{also}"


def _similarities(similarity: pd.DataFrame | None, measure: str) -> dict[frozenset[str], float]:
    """Similarity by pair of different members."""
    if similarity is None or similarity.empty:
        return {}
    part = similarity[(similarity["measure"] == measure) & (similarity["first"] != similarity["second"])]
    return {frozenset((str(r.first), str(r.second))): float(r.value) for r in part.itertuples()}  # type: ignore[arg-type]


def _ranks(values: Sequence[float]) -> np.ndarray:
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    out: np.ndarray = rankdata(np.round(values, 12))
    return out


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def second_stage(evidence: Evidence) -> Finding:
    """C5: continuing on UNE+FRGE gains over the run it continues and over as many random examples."""
    stages = evidence.stages
    if stages is None or stages.empty:
        return absent("no second stage was trained")
    part = stages[(stages["start"] == "final") & stages["against"].isin(["base", "random", "all"])]
    names = {"base": "over the run", "random": "over random", "all": "over equal updates on all"}
    table = pd.DataFrame(
        {
            "case": part["subset"] + ", " + part["split"],
            "measure": "gain " + part["against"].map(names),
            "value": part["difference"],
            **{c: part[c] for c in ("low", "high", "cases", "up", "down", "not tested")},
        }
    ).reset_index(drop=True)
    table.insert(5, "seeds", 0)
    with_stages = [r for r in evidence.found.values() if r.stages]
    seeds = min((len({s.seed for s in r.stages}) for r in with_stages), default=0)
    n = sum(evaluated(r) for r in with_stages)
    table["seeds"] = seeds
    known = part.dropna(subset=["low"]).set_index(["subset", "split", "against"])
    splits = list(SPLITS.values())

    def low(subset: str, split: str, against: str) -> float:
        return float(known["low"].get((subset, split, against), np.nan))

    def high(subset: str, split: str, against: str) -> float:
        return float(known["high"].get((subset, split, against), np.nan))

    main = SOI_SUBSETS[0]
    if all(np.isnan(low(main, split, "random")) for split in splits):
        return replace(absent(f"the subset {main} was too small, or has no random control"), table=table, seeds=seeds)
    helped = [s for s in splits if low(main, s, "base") > 0 and low(main, s, "random") > 0]
    harmed = [s for s in splits if high(main, s, "base") < 0 or high(main, s, "random") < 0]
    tried = [(subset, s) for subset in SOI_SUBSETS for s in splits if not np.isnan(low(subset, s, "random"))]
    beat = [f"{subset} ({s})" for subset, s in tried if low(subset, s, "random") > 0]
    lost = [f"{subset} ({s})" for subset, s in tried if high(subset, s, "random") < 0]
    if helped and not harmed:
        judgement: Judgement = "supported"
    else:
        judgement = "mixed" if beyond_chance(len(beat), len(tried)) else "not supported"
    continued = known.xs("base", level="against")
    first = part[(part["subset"] == main) & (part["against"] == "random")].iloc[0]
    tested, left = int(first["cases"]), int(first["not tested"])
    told = (
        f"{main}, the subset of the recipe, gains over the run it continues and over as many random examples on "
        f"{listing([f'the {s} sets' for s in helped]) or 'neither kind of set'}"
        + (f", and loses on {listing([f'the {s} sets' for s in harmed])}." if harmed else "."),
        f"Over the random control, pooled over members and settings, the four subsets by category, each on test and on "
        f"OOD, gain in {len(beat)} of {len(tried)}{_in_brackets(beat)} and lose in {len(lost)}{_in_brackets(lost)}; by "
        f"chance it would be {RATE * len(tried):.1f} on each side. The regions of the "
        "data map stand beside them in the figure and are not counted here.",
        f"{main} was tested in {tested} of {tested + left} members and settings"
        + (f"; in the other {left} too few examples were forgotten or never learned in some seed." if left else "."),
        f"Over the run that they continue, the subsets gain {span(continued['difference'], signed=True)}; training on "
        "with a low learning rate may do that by itself, so it is no evidence for the choice of examples.",
    )
    change = (
        f"a random subset of the same size and classes that does as well as {main}."
        if judgement == "supported"
        else f"a gain of {main} over the run and over its random control on the test or the OOD sets, and no loss."
    )
    return Finding(judgement, told, change, table, n, seeds)


def _in_brackets(names: Sequence[str]) -> str:
    return f" ({listing(list(names))})" if names else ""
