"""Data maps side by side: where every example lies between easy, ambiguous and hard to learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import FormatError
from soi_lib.plots.style import MUTED, NAMES, ORDER, SOI_COLORS, SOI_MARKERS, WIDTH, finish, style

if TYPE_CHECKING:
    import pandas as pd

MOST_POINTS = 4000  # drawn per panel; more would hide one another


def data_map_plot(
    runs: Mapping[str, TrainingDynamics | pd.DataFrame],
    *,
    color: Literal["correctness", "soi"] = "correctness",
    early: float = 0.5,
    title: str = "",
    note: str = "",
) -> Figure:
    """Data maps side by side on shared axes: x variability, y confidence.

    Args:
        runs: dynamics, or what `data_map` made of them, by the name of the panel.
        color: what the colour shows; "soi" adds a mark for each category.
        early: as in `categorize`.

    Returns:
        the figure; its values are the rows that are drawn, an even sample of 4,000 where there are more. Raises
        FormatError when there is no run.
    """
    import pandas as pd
    import seaborn as sns  # brings scipy.stats, which takes more than a second

    if not runs:
        raise FormatError("there is no data map to draw", expected="at least one run")
    maps = {name: run if not isinstance(run, TrainingDynamics) else data_map(run, early) for name, run in runs.items()}
    rows = pd.concat([table.iloc[_sample(len(table))].assign(run=name) for name, table in maps.items()])
    rows = rows.assign(soi=[SOI(code).name for code in rows["soi"]]).reset_index(drop=True)
    look: dict[str, Any] = {"hue": "correctness", "palette": "cividis"}
    if color == "soi":
        look = {"hue": "soi", "hue_order": NAMES, "palette": {s.name: SOI_COLORS[s] for s in ORDER}}
        look |= {"style": "soi", "style_order": NAMES, "markers": {s.name: SOI_MARKERS[s] for s in ORDER}}
    right = max(0.3, float(rows["variability"].max()) * 1.14)
    wide = 1 if len(maps) == 1 else 2
    high = -(-len(maps) // wide)
    with style():
        size = (WIDTH, 3.0 * high + 0.6)
        figure, axes = plt.subplots(high, wide, figsize=size, sharex=True, sharey=True, squeeze=False)
        for ax, name in zip(axes.flat, maps, strict=False):
            part = rows[rows["run"] == name]
            sns.scatterplot(part, x="variability", y="confidence", s=16, lw=0, alpha=0.8, ax=ax, **look)
            ax.set(title=f"{name} (n = {len(maps[name]):,})", xlim=(-0.015, right), ylim=(-0.03, 1.03))
            ax.set(xlabel="variability of p(gold)", ylabel="confidence, mean p(gold)")
            _regions(ax)
            handles, labels = ax.get_legend_handles_labels()
            ax.get_legend().remove()
        for ax in axes.flat[len(maps) :]:
            ax.axis("off")
        head = "fraction of epochs that were right" if color == "correctness" else ""
        look = {"ncols": 6, "handletextpad": 0.1, "columnspacing": 0.8, "title": head}
        figure.legend(handles, labels, loc="outside lower center", **look)
    thinned = [f"of {len(table):,} examples of {name} {MOST_POINTS:,} are drawn"
               for name, table in maps.items() if len(table) > MOST_POINTS]  # fmt: skip
    text = f"""Data maps of training examples: variability across epochs (x), confidence (y) and
        {"the fraction of epochs that were right" if color == "correctness" else "category"} (colour).
        Top left is easy, right is ambiguous, bottom left is hard. {"; ".join(thinned).capitalize()}"""
    return finish(figure, rows, text, title=title, note=note)


def _regions(ax: Axes) -> None:
    """The names of the regions, where they are."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": MUTED, "fontsize": 8.5, "style": "italic"}
    look |= {"bbox": {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1}, "transform": ax.transAxes}
    ax.text(0.55, 0.97, "easy to learn", **look)
    ax.text(0.96, 0.5, "ambiguous", rotation=90, **look)
    ax.text(0.55, 0.03, "hard to learn", **look)


def _sample(n: int) -> np.ndarray:
    """Rows to draw: all, or an even sample; shuffled by a fixed seed so that no group is drawn on top."""
    rows = np.arange(n) if n <= MOST_POINTS else np.linspace(0, n - 1, MOST_POINTS).round().astype(int)
    return np.random.default_rng(0).permutation(rows)
