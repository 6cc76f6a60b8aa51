"""A transition as a page shows it: beside its noise floor where there are several seeds, by itself with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paper import reading
from soi_lib.plots import transition_heatmap, transition_panels
from soi_lib.report import tables
from soi_lib.runs.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def moves(results: Results, member: str, setting: tuple[str, ...]) -> tuple[Figure, str]:
    """The figure of the moves of `member` from alone to `setting`, and what it shows in words (Markdown)."""
    found = tables.excess(results, member, setting)
    title = f"{member}: alone to {tables.setting_name(setting, results.members)}"
    told = reading.excess(results, member, setting, found)
    if found is not None:
        return transition_panels(found, title=title, note=results.note), told
    figure = transition_heatmap(tables.transition(results, member, setting), title=title, note=results.note)
    return figure, f"{reading.flows(results, member, setting)}\n\n{told}"
