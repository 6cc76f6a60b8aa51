"""Tables and sentences for the page on further training: which subset helped, where, and against what.

Every sentence is computed from the tables beside it. Only a gain over the random control says that choosing examples
helped, so that is what the sentences are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from paper.recorded import Results
from paper.stage_tables import stage_gains
from paper.tables import listing

AGAINST = {"random": "over its random control", "base": "over the run", "all": "over equal updates on all data"}
SPLITS = {"test": "Test sets", "OOD": "Out of distribution"}


RATE = 0.025


def beyond_chance(hits: int, cases: int, rate: float = RATE) -> bool:
    """Whether so many of the cases would be hit in less than 5 % of all tries, if each were hit at `rate`."""
    from scipy.stats import binom  # type: ignore[import-untyped]

    return hits > 0 and float(binom.sf(hits - 1, cases, rate)) <= 0.05


def note(found: Mapping[str, Results]) -> str:
    """What to say under a table of stages: profile, seeds that have stages, device."""
    return next(iter(found.values())).noted(_seeds(found))


def caution(found: Mapping[str, Results]) -> str:
    """What the number of seeds with stages allows to conclude, or that there are none."""
    if not any(results.stages for results in found.values()):
        first = next(iter(found.values()))
        return (
            f"**No second stages.** These runs have none ({first.note}), so there is nothing to show on this page yet."
        )
    if _seeds(found) > 1:
        return f"{note(found)}. Intervals resample examples and add the spread between seeds (Student's t)."
    return (
        f"**One seed.** {note(found)}. Differences here mix the effect of the subset with chance; intervals cover "
        "the choice of examples only. Read them as a demonstration, not as a result."
    )


def all_gains(found: Mapping[str, Results]) -> pd.DataFrame:
    """`stage_gains` of every comparison that has stages, with a column `case` for reading: `member, setting`."""
    parts = [stage_gains(results) for results in found.values() if results.stages]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(case=table["member"] + ", " + table["setting"])


def sizes(gains: pd.DataFrame) -> pd.DataFrame:
    """How many examples each member gave to each subset (mean over seeds): a row a case, a column a subset."""
    part = gains[(gains["start"] == "final") & (gains["split"] == "test") & (gains["against"] == "base")]
    table = part.set_index(["case", "subset"])["n"].unstack()
    return table.loc[list(dict.fromkeys(part["case"])), list(dict.fromkeys(part["subset"]))]


def summary_cases(summary: pd.DataFrame, split: str) -> pd.DataFrame:
    """The pooled gains of second stages on a split as `plots.claims.interval_plot` reads them."""
    part = summary[(summary["start"] == "final") & (summary["split"] == split)]
    return pd.DataFrame(
        {
            "case": part["subset"],
            "measure": part["against"].map(AGAINST),
            "value": part["difference"],
            "low": part["low"],
            "high": part["high"],
        }
    )


def describe_summary(summary: pd.DataFrame) -> str:
    """Which subsets help when everything is pooled, over the random control and over the run that they continue."""
    lines = []
    final = summary[(summary["start"] == "final") & summary["difference"].notna()]
    for split in dict.fromkeys(final["split"]):
        part = final[final["split"] == split].set_index("against")
        said = []
        for against in ("random", "base", "all"):
            if against not in part.index:
                continue
            rows: Any = part.loc[[against]]
            up, down = rows[rows["low"] > 0], rows[rows["high"] < 0]
            words = [f"gain: {_named(up)}" if len(up) else "", f"lose: {_named(down)}" if len(down) else ""]
            said.append(f"{AGAINST[against]}, {'; '.join(w for w in words if w) or 'no subset differs'}")
        lines.append(
            f"- **{SPLITS[split]}**, {'. '.join(s[0].upper() + s[1:] if i else s for i, s in enumerate(said))}."
        )
    return "\n".join(lines)


def describe_where(gains: pd.DataFrame) -> str:
    """In how many single cases a subset beats its random control, and whether that is more than chance gives."""
    part = gains[(gains["start"] == "final") & (gains["against"] == "random") & gains["difference"].notna()]
    lines = []
    for split in dict.fromkeys(part["split"]):
        own = part[part["split"] == split]
        up, down = own[own["low"] > 0], own[own["high"] < 0]
        chance = "more than" if beyond_chance(len(up), len(own)) else "not more than"
        lines.append(
            f"- {SPLITS[split]}: in {len(up)} of {len(own)} cases a subset "
            f"beats its random control with an interval above zero, {chance} chance gives ({RATE * len(own):.1f}); in "
            f"{len(down)} it is worse."
            + (f" Most often better: {_often(up)}." if len(up) else "")
            + (f" Most often worse: {_often(down)}." if len(down) else "")
        )
    return "\n".join(lines)


def subset_only(gains: pd.DataFrame) -> pd.DataFrame:
    """Training on a subset alone from pretrained weights: scores on the subset, as many random examples, and all.

    A row per member, subset and split: n, seeds, the three scores, and subset minus random with its interval.
    """
    part = gains[gains["start"] == "pretrained"]
    rows = []
    keys = ["comparison", "member", "subset", "split"]
    for (comparison, member, subset, split), group in part.groupby(keys, sort=False):
        by = group.set_index("against")
        if "random" not in by.index or by["score"].isna().all():
            continue
        random: Any = by.loc["random"]
        score = float(random["score"])
        rows.append(
            {
                "comparison": comparison,
                "member": member,
                "subset": subset,
                "split": split,
                "n": int(random["n"]),
                "seeds": int(random["seeds"]),
                "on the subset": score,
                "on random": score - float(random["difference"]),
                "on all": score - float(by.loc["base", "difference"]),  # type: ignore[arg-type]
                "difference": float(random["difference"]),
                "low": float(random["low"]),
                "high": float(random["high"]),
            }
        )
    return pd.DataFrame(rows)


def describe_subset_only(table: pd.DataFrame) -> str:
    """Whether the subset alone does worse than random examples, as the authors' earlier code found."""
    if table.empty:
        return "Nothing was trained on a subset alone here."
    lines = []
    for split, own in table.groupby("split", sort=False):
        worse, better = own[own["high"] < 0], own[own["low"] > 0]
        lines.append(
            f"- {SPLITS[str(split)]}: trained on the subset alone the mean accuracy is "
            f"{own['on the subset'].mean():.3f}, on as many random examples {own['on random'].mean():.3f}, on all "
            f"{own['on all'].mean():.3f}. The subset is worse than random in {len(worse)} of {len(own)} members"
            f"{_members(worse)} and better in {len(better)}{_members(better)}."
        )
    return "\n".join(lines)


def _seeds(found: Mapping[str, Results]) -> int:
    return len({stage.seed for results in found.values() for stage in results.stages})


def _members(rows: pd.DataFrame) -> str:
    return f" ({listing(list(rows['member']))})" if len(rows) else ""


def _named(rows: pd.DataFrame) -> str:
    tuples: Any = rows.itertuples()
    return listing([f"{r.subset} ({r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}])" for r in tuples])


def _often(rows: pd.DataFrame) -> str:
    counts = rows["subset"].value_counts(sort=False).sort_values(ascending=False, kind="stable")[:3]
    return listing([f"{name} ({count}, {np.mean(rows.loc[rows['subset'] == name, 'difference']) * 100:+.1f} points)"
                    for name, count in counts.items()])  # fmt: skip
