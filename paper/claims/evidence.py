"""What the rules by which claims are judged have in common: what they see, what they find, and how they count.

Special about it: "every" means every interval, so no correction is needed there; wherever a rule says "some", the
number of cases must be more than chance alone would give, because among many 95 % intervals a few miss zero when
nothing happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from paper.recorded import Results
from soi_lib.analysis.statistics import Interval

Judgement = Literal["supported", "mixed", "not supported", "not tested"]

SPLITS = {"test": "test", "ood": "OOD"}
RATE = 0.025
"""How often a 95 % interval lies on one given side of zero by chance."""


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged by: results by comparison, the similarity of tasks, the summary of second stages."""

    found: Mapping[str, Results]
    similarity: pd.DataFrame | None = None
    stages: pd.DataFrame | None = None


@dataclass(frozen=True)
class Finding:
    """What a rule says of a claim, before it is asked how many seeds there are.

    `table` has a row a case: case, measure, value, low, high (95 %), n, seeds, and what else is worth seeing: `over`
    says what an interval is over where that is not both, examples and seeds.
    """

    judgement: Judgement
    evidence: tuple[str, ...]
    change: str
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    n: int = 0
    seeds: int = 0


def beyond_chance(hits: int, cases: int, rate: float = RATE) -> bool:
    """Whether so many of the cases would be hit in less than 5 % of all tries, if each were hit at `rate`."""
    from scipy.stats import binom  # type: ignore[import-untyped]

    return hits > 0 and float(binom.sf(hits - 1, cases, rate)) <= 0.05


def absent(what: str) -> Finding:
    """The finding when there is nothing to judge by."""
    return Finding("not tested", (f"There is no evidence here: {what}.",), "the runs that are missing here.")


def row(case: str, measure: str, found: Interval, **extra: Any) -> dict[str, Any]:
    """A row of a finding's table."""
    values = {"case": case, "measure": measure, "value": found.value, "low": found.low, "high": found.high}
    return values | {"n": found.n, "seeds": found.seeds} | extra


def alone(results: Results) -> list[str]:
    """The members that were trained alone."""
    return [member for member in results.members if (member,) in results.settings]


def together_of(results: Results | None) -> tuple[str, ...] | None:
    """The setting of all members, when there are several and it was trained."""
    if results is None or len(results.members) < 2 or results.members not in results.settings:
        return None
    return results.members


def evaluated(results: Results) -> int:
    """Test and OOD examples of all members that were trained alone or with others."""
    runs = {member: run for run in results.runs for member in run.setting}
    return sum(run.metrics[member][split]["n"] for member, run in runs.items() for split in results.splits(member))


def signed(found: Interval) -> str:
    """A difference with its sign and interval."""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def span(values: pd.Series, *, signed: bool = False, percent: bool = False) -> str:
    """The smallest and the largest of `values` in words."""
    low, high = float(values.min()), float(values.max())
    form = "{:.0%}" if percent else "{:+.3f}" if signed else "{:.2f}"
    return f"{form.format(low)} to {form.format(high)}"
