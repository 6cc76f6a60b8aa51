"""Transitions as the pages show them: held against their noise floor where there are several seeds."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from paper import tables
from paper.recorded import Results
from soi_lib.plots import flow_beside_floor, flow_plot
from soi_lib.plots.transition_plots import Moves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
