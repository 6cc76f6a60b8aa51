"""Transitions as the pages show them: held against their noise floor where there are several seeds."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from paper import reading, tables
from paper.recorded import Results
from soi_lib.plots import flow_beside_floor, flow_plot, transition_beside_floor, transition_heatmap, transition_panels
from soi_lib.plots.transition_plots import Moves
from soi_lib.runs.results import setting_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def moves(results: Results, member: str, setting: tuple[str, ...]) -> tuple[Figure, str]:
    """The figure of the moves of `member` from alone to `setting`, and what it shows in words (Markdown)."""
    found = tables.excess(results, member, setting)
    title = f"{member}: alone to {setting_name(setting, results.members)}"
    told = reading.excess(results, member, setting, found)
    if found is not None:
        return transition_beside_floor(Moves.of(found), title=title, note=results.note), told
    figure = transition_heatmap(tables.transition(results, member, setting), title=title, note=results.note)
    return figure, f"{reading.flows(results, member, setting)}\n\n{told}"


def pair_moves(results: Results) -> tuple[Figure | None, str]:
    """One figure of the moves of every member from alone to each pair (None with one seed), and its words."""
    cases = [(member, setting) for setting in results.settings if len(setting) == 2 for member in setting]
    found = {case: tables.excess(results, *case) for case in cases}
    told = "\n\n".join(reading.excess(results, *case, test) for case, test in found.items())
    panels = {f"{m} with {s[1 - s.index(m)]}": Moves.of(test) for (m, s), test in found.items() if test is not None}
    return transition_panels(panels, note=results.note) if panels else None, told


def story(found: dict[str, Results]) -> Figure:
    """The first page's figure: the moves between seeds and from alone to together, summed over all datasets."""
    cases = [(results, member, results.settings[-1]) for results in found.values() for member in results.members]
    tests = [tables.excess(*case) for case in cases]
    known = [Moves.of(test) for test in tests if test is not None]
    note = f"Sum over {len(cases)} datasets. {next(iter(found.values())).note}"
    if len(known) < len(tests):
        return flow_plot(reduce(add, (tables.transition(*case) for case in cases)), note=note)
    sides = reduce(add, ((m.table("transition") - m.table("floor")).map(np.sign) * m.table("beyond") for m in known))
    moves = Moves(
        transition=reduce(add, (m.table("transition") * m.n for m in known)),
        floor=reduce(add, (m.table("floor") * m.n for m in known)),
        beyond=sides.abs() > len(known) / 2,
        n=sum(m.n for m in known),
        seeds=min(m.seeds for m in known),
    )
    told = "In colour: beyond chance, in the same direction, in more than half of the datasets"
    return flow_beside_floor(moves, note=f"{told}. {note}")
