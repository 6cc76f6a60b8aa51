"""Sentences that read the numbers: the prose of the notebooks that depends on results.

Every sentence is computed from the tables beside it, so that prose and numbers cannot part. A sentence states what
was seen and how far it may be trusted; one seed is always said to be one seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from paper.recorded import Results
from paper.tables import transition
from soi_lib.analysis.reliability import change_rates
from soi_lib.analysis.soi import SOI
from soi_lib.analysis.statistics import Interval, difference_interval, metric_interval
from soi_lib.analysis.transition_test import TransitionTest
from soi_lib.analysis.transitions import common_codes
from soi_lib.runs.results import setting_name


def caution(results: Results) -> str:
    """What the size of the profile allows to conclude."""
    n = len(results.seeds)
    if n == 1:
        return (
            f"**One seed.** {results.note}. Differences on this page mix the effect of the setting with chance; "
            "intervals cover the choice of examples only. Read them as a demonstration, not as a result."
        )
    return f"{results.note}. Intervals resample examples and add the spread between seeds (Student's t)."


def against_baselines(results: Results) -> str:
    """Whether each member, trained alone, is above the majority class and the bag of words on its test set."""
    lines = []
    for member in results.members:
        run = results.run((member,))
        metrics = run.metrics[member]
        _, gold, alone, _ = results.evaluated(member, (member,), "test")
        score = metric_interval(gold, alone)
        parts = []
        for key, name in (("majority", "the majority class"), ("bag_of_words", "a bag of words")):
            other = metrics[key]["test"]["accuracy"]
            word = "above" if score.low > other else "below" if score.high < other else "not clearly above"
            parts.append(f"{word} {name} ({other:.3f})")
        lines.append(f"- **{member}** alone reaches {score} on its test set: {parts[0]}, and {parts[1]}.")
    return "\n".join(lines)


def gain(results: Results, member: str, setting: tuple[str, ...], split: str) -> Interval:
    """Accuracy of `member` in `setting` minus alone, paired by example and by seed, with a 95 % interval."""
    _, gold, alone, _ = results.evaluated(member, (member,), split)
    return difference_interval(gold, alone, results.evaluated(member, setting, split).predicted)


def gain_table(results: Results) -> pd.DataFrame:
    """A row a member, multi setting and split: the difference of accuracy from training alone, and its interval."""
    rows = []
    for member in results.members:
        for setting in results.settings_with(member)[1:]:
            for split in results.splits(member):
                found = gain(results, member, setting, split)
                rows.append(
                    {
                        "member": member,
                        "setting": setting_name(setting, results.members),
                        "split": split,
                        "difference": found.value,
                        "low": found.low,
                        "high": found.high,
                        "interval without zero": found.excludes_zero,
                    }
                )
    return pd.DataFrame(rows).round(3)


def gains(results: Results) -> str:
    """Which members gain or lose out of distribution and on their own test set when trained together."""
    table = gain_table(results)
    lines = []
    for split, name in (("ood", "Out of distribution"), ("test", "On the test sets")):
        part = table[table["split"] == split]
        if part.empty:
            continue
        up = part[part["low"] > 0]
        down = part[part["high"] < 0]
        rest = len(part) - len(up) - len(down)
        clauses = [f"{_listing(up)} gained" if len(up) else "", f"{_listing(down)} lost" if len(down) else ""]
        clauses += [f"in {rest} of {len(part)} comparisons the interval contains zero" if rest else ""]
        sentence = "; ".join(c for c in clauses if c)
        lines.append(f"- {name}: {sentence}. The mean difference is {part['difference'].mean():+.3f}.")
    return "\n".join(lines)


def _listing(rows: pd.DataFrame) -> str:
    tuples: Any = rows.itertuples()
    items = [
        f"{row.member} {'with' if row.setting.startswith('all') else 'in'} {row.setting} "
        f"({row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}])"
        for row in tuples
    ]
    return ", ".join(items)


def shares(results: Results, table: pd.DataFrame) -> str:
    """How the shares of always-correct, unlearned and forgotten examples differ between alone and all together."""
    lines = []
    for member in results.members:
        alone: Any = table.loc[(member, "alone")]
        last = setting_name(results.settings_with(member)[-1], results.members)
        together: Any = table.loc[(member, last)]
        a, b = (float(row["FRGE_1"] + row["FRGE_2"]) for row in (alone, together))
        lines.append(
            f"- **{member}**: always correct {alone['ACE']:.1%} alone, {together['ACE']:.1%} with {last}; "
            f"unlearned {alone['UNE']:.1%} and {together['UNE']:.1%}; forgotten at least once {a:.1%} and {b:.1%}."
        )
    return "\n".join(lines)


def flows(results: Results, member: str, setting: tuple[str, ...], top: int = 2) -> str:
    """How many examples changed category, and between which two most did."""
    counts: Any = transition(results, member, setting)
    total = counts.to_numpy().sum()
    stay = sum(counts.loc[s.name, s.name] for s in SOI)
    moves = [(float(counts.loc[a.name, b.name]), a, b) for a in SOI for b in SOI if a != b]
    moves.sort(key=lambda move: (-move[0], move[1], move[2]))
    largest = " and ".join(f"{a.name} to {b.name} ({n:.0f})" for n, a, b in moves[:top] if n > 0)
    return (
        f"**{member}**: {stay:.0f} of {total:.0f} examples ({stay / total:.0%}) are in the same category alone and in "
        f"{setting_name(setting, results.members)}. The largest moves are from {largest}."
    )


def excess(results: Results, member: str, setting: tuple[str, ...], found: TransitionTest | None) -> str:
    """Which moves from alone to `setting` are more than the noise floor; `found` comes from `tables.excess`."""
    name = setting_name(setting, results.members)
    if found is None:
        return (
            f"**{member}**: one seed has no noise floor, so nothing tells here which moves are due to {name} and which "
            "to chance."
        )
    kept, floor = (float(np.trace(t.to_numpy())) / found.n for t in (found.transition, found.floor))
    marked, residual, difference = (t.to_numpy() for t in (found.significant, found.residual, found.difference))
    text = (
        f"**{member}**: {1 - kept:.0%} of {found.n:,} examples change category from alone to {name}, {1 - floor:.0%} "
        "when only the seed differs."
    )
    cells = [(float(residual[i, j]), SOI(i), SOI(j)) for i, j in zip(*np.nonzero(marked.astype(bool)), strict=True)]
    cells.sort(key=lambda cell: (-abs(cell[0]), cell[1], cell[2]))
    moves = [(r, a, b) for r, a, b in cells if a != b]
    stays = [(r, a) for r, a, b in cells if a == b]
    if not cells:
        return f"{text} No move is more than noise at a false discovery rate of {found.level:.0%}."
    parts = []
    for word, part in (("more", [m for m in moves if m[0] > 0]), ("less", [m for m in moves if m[0] < 0])):
        if part:
            named = ", ".join(f"{a.name} to {b.name} ({difference[a, b]:+.0f} examples)" for _, a, b in part[:4])
            rest = f" and {len(part) - 4} other moves" if len(part) > 4 else ""
            parts.append(f"{word} often than between seeds: {named}{rest}")
    if stays:
        named = ", ".join(f"{a.name} ({difference[a, a]:+.0f} examples)" for _, a in stays)
        parts.append(f"staying in {named}")
    few = " Two seeds contradict little: look, and do not conclude." if min(found.seeds) < 3 else ""
    return f"{text} Beyond noise (false discovery rate {found.level:.0%}) are {'; '.join(parts)}.{few}"


TITLES = {"task": "Tasks", "source": "Sources", "lingual": "Languages"}


def _accuracy(results: Results, member: str, setting: tuple[str, ...], split: str) -> float:
    _, gold, answers, _ = results.evaluated(member, setting, split)
    return float((answers == gold).mean())


def _changes(results: Results, setting: tuple[str, ...]) -> list[tuple[float, ...]]:
    """For each member the share of examples that change category from alone to `setting`, and between seeds of each."""
    rates = []
    for member in results.members:
        runs = [results.run(s, seed).dynamics(member) for s in ((member,), setting) for seed in results.seeds]
        across, floors = change_rates(common_codes(runs), len(results.seeds))
        rates.append((float(across.mean()), *floors.mean(axis=1).tolist()))
    return rates


def story(found: dict[str, Results]) -> str:
    """The landing page's summary: per comparison, accuracy alone and together, and the share of examples that moved."""
    lines = []
    for name, results in found.items():
        last = results.settings[-1]
        parts = []
        for split, label in (("test", "test"), ("ood", "OOD")):
            alone = [_accuracy(results, m, (m,), split) for m in results.members]
            both = [_accuracy(results, m, last, split) for m in results.members]
            parts.append(f"{label} accuracy {np.mean(alone):.3f} alone and {np.mean(both):.3f} together")
        changed, *floors = np.mean(_changes(results, last), axis=0).tolist()
        by_chance = (
            ""
            if np.isnan(floors).any()
            else f"; when only the seed differs it is {floors[0]:.0%} alone and {floors[1]:.0%} together"
        )
        lines.append(
            f"- **{TITLES[name]}** (mean over {', '.join(results.members)}): {'; '.join(parts)}; "
            f"{changed:.0%} of the training examples change category between the two{by_chance}."
        )
    first = next(iter(found.values()))
    return "\n".join([*lines, "", caution(first)])
