"""Sentences that read the numbers: the prose of the notebooks that depends on results.

Every sentence is computed from the tables beside it, so that prose and numbers cannot part. A sentence states what
was seen and how far it may be trusted; one seed is always said to be one seed.
"""

from __future__ import annotations

from paper.recorded import Results
from soi_lib.analysis.statistics import Interval, difference_interval


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
