"""Figures: static ones for print and for the book (matplotlib, seaborn), interactive ones (plotly). Never torch.

Every function returns the figure; `caption` gives the text that belongs to it, `show` makes both one piece of HTML.
"""

from soi_lib.plots.bars import accuracy_bars, soi_bars, story_figure
from soi_lib.plots.maps import data_map_plot, histories_figure
from soi_lib.plots.style import ORDER, SOI_COLORS, SOI_HATCHES, caption, show
from soi_lib.plots.table import show_table
from soi_lib.plots.transitions import flow_plot, transition_heatmap, transition_panels

__all__ = [
    "ORDER",
    "SOI_COLORS",
    "SOI_HATCHES",
    "accuracy_bars",
    "caption",
    "data_map_plot",
    "flow_plot",
    "histories_figure",
    "show",
    "show_table",
    "soi_bars",
    "story_figure",
    "transition_heatmap",
    "transition_panels",
]
