"""What further training gained, one cell a subset and case: a heatmap around zero.

Special about it: a cell is framed and bold where its interval is without zero, so that colour is never needed to tell
evidence from chance.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from soi_lib.errors import FormatError
from soi_lib.plots.claims import DOWN, UP
from soi_lib.plots.style import WIDTH, finish, listing, sentence, style

if TYPE_CHECKING:
    import pandas as pd

_COLORS = LinearSegmentedColormap.from_list("gain", [DOWN, "#F7F7F7", UP])


def gain_heatmap(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Gains in points of accuracy: a row a case, a column a subset, framed where the interval is without zero.

    `table` has columns case, subset, difference, low, high; a cell without a difference was not tested. Raises
    FormatError when columns are missing or no cell has a value.
    """
    missing = {"case", "subset", "difference", "low", "high"} - set(table.columns)
    if missing or table["difference"].isna().all():
        raise FormatError("there is nothing to draw", found=sorted(missing) or "no gain that was tested")
    cases, subsets = (list(dict.fromkeys(table[name])) for name in ("case", "subset"))
    wide = table.set_index(["case", "subset"])
    values = wide["difference"].unstack().loc[cases, subsets].to_numpy() * 100
    sure = ((wide["low"] > 0) | (wide["high"] < 0)).unstack().loc[cases, subsets].to_numpy()
    reach = max(1.0, float(np.nanmax(np.abs(values))))
    text = [["–" if np.isnan(v) else f"{v:+.1f}".replace("-", "−") for v in row] for row in values]
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH, 0.31 * len(cases) + 1.5), layout="constrained")
        sns.heatmap(
            np.nan_to_num(values),
            cmap=_COLORS,
            vmin=-reach,
            vmax=reach,
            annot=np.array(text),
            fmt="",
            annot_kws={"fontsize": 8.5},
            linewidths=1,
            linecolor="white",
            xticklabels=subsets,
            yticklabels=cases,
            cbar_kws={"label": "points of accuracy", "pad": 0.02},
            ax=ax,
        )
        labels: Any = iter(ax.texts)
        for i in range(len(cases)):
            for j in range(len(subsets)):
                label = next(labels)
                if sure[i, j]:
                    label.set_fontweight("bold")
                    ax.add_patch(Rectangle((j + 0.04, i + 0.05), 0.92, 0.9, fill=False, ec="#202124", lw=1.3))
        ax.set(xlabel="subset of the second stage", ylabel="")
        ax.tick_params(length=0)
        ax.set_xticks(
            ax.get_xticks(), [re.sub(r"^(UNE|LLE)\+|-to-", lambda m: f"{m[0]}\n", name) for name in subsets], rotation=0
        )
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    known = int((~np.isnan(values)).sum())
    up, down = int((sure & (values > 0)).sum()), int((sure & (values < 0)).sum())
    best = listing([f"{subsets[j]} {np.nanmean(values[:, j]):+.1f}" for j in range(len(subsets))
                    if not np.isnan(values[:, j]).all()])  # fmt: skip
    told = f"""Heatmap of the gains in points of accuracy, by case (rows) and subset (columns).
        {f"{title}. " if title else ""}Framed: the 95 % interval is without zero, which is so above zero in {up} of
        {known} cells and below in {down}; by chance it would be {0.025 * known:.1f} each. A dash: the subset was too
        small. Means over the cases: {best}."""
    return finish(figure, told + sentence(note), wide=True)
