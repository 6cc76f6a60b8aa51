"""Sentences that read the numbers: the prose of the notebooks that depends on results.

Every sentence is computed from the tables beside it, so that prose and numbers cannot part. A sentence states what
was seen and how far it may be trusted; one seed is always said to be one seed.
"""

from __future__ import annotations

import numpy as np

from paper.recorded import Results
from soi_lib.analysis.reliability import change_rates
from soi_lib.analysis.statistics import Interval, difference_interval
from soi_lib.analysis.transitions import common_codes


def caution(results: Results) -> str:
    """What the size of the profile allows to conclude."""
    n = len(results.seeds)
    if n == 1:
        return (
            f"**One seed.** {results.note}. Differences on this page mix the effect of the setting with chance; "
            "intervals cover the choice of examples only. Read them as a demonstration, not as a result."
        )
    return f"{results.note}. Intervals resample examples and add the spread between seeds (Student's t)."


def gain(results: Results, member: str, setting: tuple[str, ...], split: str) -> Interval:
    """Accuracy of `member` in `setting` minus alone, paired by example and by seed, with a 95 % interval."""
    _, gold, alone, _ = results.evaluated(member, (member,), split)
    return difference_interval(gold, alone, results.evaluated(member, setting, split).predicted)


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
