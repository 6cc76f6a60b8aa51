"""Static figures (matplotlib, seaborn) and an interactive explorer of examples (plotly). Never imports torch.

Every function returns a figure. `caption` returns its caption, `values` the numbers that it shows, and `show` combines
picture and caption in one piece of HTML. In all of them, `title` is printed above the figure, `note` ends the caption
(profile, seeds, device), and `sides` are the names of the two settings.
"""

from soi_lib.plots.charts import (
    data_map_plot,
    gain_curves,
    interval_plot,
    reliability_curves,
    soi_bars,
    training_curves,
)
from soi_lib.plots.style import ORDER, SOI_COLORS, SOI_HATCHES, caption, show, show_table, values
from soi_lib.plots.transition_plots import (
    Moves,
    flow_beside_floor,
    flow_plot,
    transition_beside_floor,
    transition_heatmap,
    transition_panels,
)

__all__ = [
    "ORDER",
    "SOI_COLORS",
    "SOI_HATCHES",
    "Moves",
    "caption",
    "data_map_plot",
    "flow_beside_floor",
    "flow_plot",
    "gain_curves",
    "interval_plot",
    "reliability_curves",
    "show",
    "show_table",
    "soi_bars",
    "training_curves",
    "transition_beside_floor",
    "transition_heatmap",
    "transition_panels",
    "values",
]
