"""The rules for the claims about categories: C1 (there are six behaviours) and C4 (examples move between them).

Special about it: the rules were fixed before the recorded runs were looked at, see finished runs only, and have no
free parameter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from paper.claims.evidence import Evidence, Finding, Judgement, absent, alone, beyond_chance, row, span, together_of
from paper.tables import listing
from soi_lib.analysis.reliability import change_rates, repeat_kappa
from soi_lib.analysis.soi import SOI, categorize, soi_counts
from soi_lib.analysis.statistics import Interval, mean_interval
from soi_lib.analysis.transition_test import transition_test
from soi_lib.analysis.transitions import common_codes
from soi_lib.dynamics import align


def six_behaviours(evidence: Evidence) -> Finding:
    """C1: the six categories divide every run, all occur, and examples fall into them again with other seeds."""
    runs, broken = 0, []
    groups: dict[str, np.ndarray] = {}
    for results in evidence.found.values():
        for run in results.runs:
            for member in run.setting:
                runs += 1
                dyn = run.dynamics(member)
                counts = soi_counts(categorize(dyn))
                if sum(counts.values()) != len(dyn) or counts != run.metrics[member]["soi"]:
                    broken.append(f"{member} in {'+'.join(run.setting)}, seed {run.seed}")
        for member in alone(results):
            groups[member] = common_codes([results.run((member,), s).dynamics(member) for s in results.seeds])
    if not groups:
        return absent("no member was trained alone")
    seeds = min(len(codes) for codes in groups.values())
    rows = [row(m, "kappa", repeat_kappa(c), over="examples", categories=len(np.unique(c))) for m, c in groups.items()]
    every = [codes[:seeds] for codes in groups.values()]
    occurs = {}
    for soi in SOI:
        occurs[soi] = sum(bool((codes == soi).any()) for codes in every)
        share = float(np.mean([(codes == soi).mean() for codes in every]))
        rows.append(row(soi.name, "kappa", repeat_kappa(every, soi), over="examples", share=share, members=occurs[soi]))
    table = pd.DataFrame(rows)
    half = len(groups) / 2
    rare = [soi.name for soi in SOI if occurs[soi] < half]
    by_member, by_category = table.iloc[: len(groups)], table.iloc[len(groups) :]
    weak = [*by_member.loc[~(by_member["low"] > 0), "case"], *by_category.loc[~(by_category["low"] > 0), "case"]]
    told = [
        f"In {runs - len(broken)} of {runs} dynamics the six categories add up to all examples and to the stored counts"
        + (f"; not in {listing(broken)}." if broken else "."),
        "All six occur in at least half of the members."
        if not rare
        else f"Rare, in under half of them: {listing(rare)}.",
    ]
    if seeds > 1:
        told.insert(
            0,
            f"Between seeds, examples fall into the same category again beyond chance in "
            f"{int((by_member['low'] > 0).sum())} of {len(by_member)} members (kappa {span(by_member['value'])}) and "
            f"for {int((by_category['low'] > 0).sum())} of 6 categories: {_named(by_category)}.",
        )
    else:
        told.append("With one seed nothing shows whether an example would fall into its category again.")
    judgement: Judgement
    if seeds < 2 and not broken:
        judgement = "not tested"
    elif broken or not (by_member["low"] > 0).any():
        judgement = "not supported"
    else:
        judgement = "mixed" if rare or weak else "supported"
    if judgement == "not tested":
        change = "another seed: without it nothing tells a behaviour from an accident of one run."
    elif judgement == "supported":
        change = "a category, or a member, whose examples are not the same ones again when only the seed differs."
    else:
        open_ = listing(list(dict.fromkeys([*weak, *rare])))
        change = f"{open_ or 'the runs that do not add up'}: these would have to occur and to repeat between seeds."
    return Finding(judgement, tuple(told), change, table, sum(c.shape[1] for c in groups.values()), seeds)


def _named(part: pd.DataFrame) -> str:
    return ", ".join(
        f"{case} {'–' if np.isnan(value) else format(value, '.2f')}"
        for case, value in zip(part["case"], part["value"], strict=True)
    )


def moves(evidence: Evidence) -> Finding:
    """C4: in at least half of the members some move from alone to together is more than the noise floor."""
    rows: list[dict[str, Any]] = []
    cells, tested, seeds, n = [], 0, [], 0
    for results in evidence.found.values():
        together = together_of(results)
        if together is None:
            continue
        for member in alone(results):
            sides = [[results.run(s, seed).dynamics(member) for seed in results.seeds] for s in ((member,), together)]
            codes = common_codes([*sides[0], *sides[1]])
            seeds.append(len(results.seeds))
            n += codes.shape[1]
            tested += 1
            extra: dict[str, Any] = {"changed": float((codes[: seeds[-1]] != codes[seeds[-1] :]).mean())}
            found = Interval(np.nan, np.nan, np.nan, 0.95, codes.shape[1], seeds[-1])
            if seeds[-1] > 1:
                excess = transition_test(*sides)
                off = excess.significant.to_numpy().astype(bool) & ~np.eye(len(SOI), dtype=bool)
                surplus = excess.difference.to_numpy().clip(min=0)[off].sum() / excess.n
                across, floors = change_rates(codes, seeds[-1])
                extra = {"changed": float(across.mean()), "floor": float(floors[0].mean())}
                extra |= {"floor together": float(floors[1].mean())}
                extra |= {"significant moves": int(off.sum()), "examples in them": float(surplus)}
                # all pairs of runs are in every example's number, so only examples can be drawn anew
                found = replace(mean_interval(across - floors.mean(axis=0)), seeds=seeds[-1])
                cells.append(int(off.sum()))
            rows.append(row(member, "changes beyond the floor", found, over="examples", **extra))
            aligned = [[dyn.p_gold.mean(axis=0) for dyn in align(a, b)] for a, b in zip(*sides, strict=True)]
            shift = mean_interval(np.stack([b - a for a, b in aligned]))
            rows.append(row(member, "change of confidence", shift, over="examples and seeds"))
    if not tested:
        return absent("no member was trained alone and with all others")
    table = pd.DataFrame(rows)
    shifts = table[table["measure"] == "change of confidence"]
    told = [
        f"On the data map, the mean confidence rises in {int((shifts['low'] > 0).sum())} of {tested} members and falls "
        f"in {int((shifts['high'] < 0).sum())} (95 % intervals); its change is {span(shifts['value'], signed=True)}."
    ]
    change = "another seed of every member: without it nothing tells a move from noise."
    judgement: Judgement = "not tested"
    if cells:
        moved = sum(k > 0 for k in cells)
        part = table[table["measure"] == "changes beyond the floor"].dropna(subset=["value"])
        told.insert(
            0,
            f"In {moved} of {tested} members at least one move between categories is more than the noise floor (false "
            f"discovery rate 5 %, and no other division of the runs shows as much); {sum(cells)} moves in all. "
            f"From alone to together {span(part['changed'], percent=True)} of the examples change category; between "
            f"seeds it is {span(part['floor'], percent=True)} alone and "
            f"{span(part['floor together'], percent=True)} together.",
        )
        surplus = part["value"] * 100
        told.insert(
            1,
            f"That share is above the mean of these two in {int((part['low'] > 0).sum())} of {len(part)} members and "
            f"below it in {int((part['high'] < 0).sum())} (95 % intervals over examples), by {surplus.min():+.1f} to "
            f"{surplus.max():+.1f} points"
            + (": moves differ from noise in where they go more than in number." if surplus.max() < 5 else "."),
        )
        enough = beyond_chance(moved, len(cells), 0.05)
        judgement = "supported" if enough and moved >= tested / 2 else "mixed" if enough else "not supported"
        change = (
            "seeds that move as many examples between the same categories as the settings do."
            if judgement == "supported"
            else f"moves beyond the floor in at least {-(-tested // 2)} of {tested} members."
        )
    return Finding(judgement, tuple(told), change, table, n, min(seeds))
