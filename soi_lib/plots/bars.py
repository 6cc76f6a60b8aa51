"""Shares and differences: stacked bars of the categories, points with their intervals around zero.

Every bar or point is a row of a table that the caller has anyway; bars of one dataset stand together.
A point is filled where its interval excludes zero and empty where it does not, so colour is never needed to tell.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from soi_lib.errors import FormatError
from soi_lib.plots.style import (
    DOWN,
    INK,
    NAMES,
    OPEN,
    ORDER,
    SOI_COLORS,
    SOI_HATCHES,
    UP,
    WIDTH,
    category_legend,
    finish,
    ink,
    need,
    percent_axis,
    span,
    style,
)

if TYPE_CHECKING:
    import pandas as pd


def soi_bars(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Stacked bars of the six shares, a bar a row; the rows of a dataset stand together under its name.

    Args:
        table: columns are the names of SOI, counts or shares; the index is the setting, or (dataset, setting).

    Returns:
        the figure; its values are the shares.

    Raises:
        FormatError: a category is missing, or a row is empty.
    """
    need(table, NAMES)
    counts = table[NAMES].astype(float)
    totals = counts.sum(axis=1)
    if (totals <= 0).any() or (counts < 0).to_numpy().any():
        raise FormatError("a row of the table of categories is empty or negative", found=str(totals.idxmin()))
    shares = counts.div(totals, axis=0)
    nested = shares.index.nlevels > 1
    groups: list[Any] = list(shares.groupby(level=0, sort=False)) if nested else [("", shares)]
    rows = [len(part) for _, part in groups]
    size = (WIDTH, 0.28 * sum(rows) + 0.4 * len(groups) + 1.1)
    with style():
        figure, axes = plt.subplots(len(groups), 1, figsize=size, sharex=True, squeeze=False, height_ratios=rows)
        for ax, (name, part) in zip(axes.flat, groups, strict=True):
            _stack(ax, part.droplevel(0) if nested else part)
            ax.set(title=name, xlim=(0, 1), ylabel="")
        percent_axis(axes[-1, 0])
        category_legend(figure)
    text = "Stacked bars of the shares of training examples in the six categories, by setting."
    if not np.allclose(totals, 1, atol=0.01):  # shares may have been rounded
        text += f" A bar is {span(round(n) for n in totals)} examples."
    return finish(figure, shares, text, title=title, note=note)


def interval_plot(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Values with their 95 % intervals around zero, a row a case, a panel a measure.

    Args:
        table: columns case, measure, value, low, high; rows without a value are left out. beyond, where there is
            such a column: whether the value is beyond chance when all cases are corrected for together.

    Returns:
        the figure; its values are the rows that are drawn. Raises FormatError when there is none.
    """
    columns = ["case", "measure", "value", "low", "high"]
    need(table, columns)
    known = table.dropna(subset=columns[2:])
    need(known, columns)
    corrected = "beyond" in known
    beyond = known["beyond"] if corrected else (known["low"] > 0) | (known["high"] < 0)
    up, down = beyond & (known["value"] > 0), beyond & (known["value"] < 0)
    cases, measures = list(dict.fromkeys(known["case"])), list(dict.fromkeys(known["measure"]))
    beside = len(measures) <= 3
    shape = (1, len(measures)) if beside else (len(measures), 1)
    size = (WIDTH, (0.26 * len(cases) + 0.75) * shape[0] + 0.2)
    with style():
        figure, axes = plt.subplots(*shape, figsize=size, sharey=beside, squeeze=False)
        for ax, measure in zip(axes.flat, measures, strict=True):
            here = known["measure"] == measure
            part = known[here]
            y = part["case"].map(cases.index)
            spread = np.array([part["value"] - part["low"], part["high"] - part["value"]])
            for color, face, rows in [(UP, UP, up), (DOWN, DOWN, down), (OPEN, "white", ~(up | down))]:
                at, look = rows[here].to_numpy(), {"fmt": "o", "ms": 6, "lw": 1.6, "color": color, "mfc": face}
                ax.errorbar(part["value"][at], y[at], xerr=spread[:, at], **look)
            ax.axvline(0, color=INK, lw=1.1, zorder=1.5)
            ax.set_xlabel("\n".join(wrap(measure, 44 // shape[1])))
            ax.set_yticks(range(len(cases)), cases)
            ax.set_ylim(len(cases) - 0.4, -0.6)
            ax.xaxis.set_major_formatter(lambda v, _: f"{v:g}".replace("-", "−"))
            ax.locator_params(axis="x", nbins=(7, 4, 2)[shape[1] - 1])
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
    filled = "it is beyond chance, corrected over all cases" if corrected else "the interval excludes zero"
    text = f"""Points with 95 % intervals, by case; filled where {filled} (blue above, orange below).
        Of {len(known)} intervals {up.sum()} are above zero and {down.sum()} below{", in this sense" * corrected}."""
    return finish(figure, known, text, title=title, note=note)


def _stack(ax: Axes, shares: pd.DataFrame) -> None:
    """Stacked bars of one dataset, with the shares written where there is room."""
    colors: Any = [SOI_COLORS[soi] for soi in ORDER]
    shares.plot.barh(stacked=True, ax=ax, legend=False, width=0.82, color=colors, ec="white", lw=0.5)
    containers: list[Any] = ax.containers
    for soi, bars in zip(ORDER, containers, strict=True):
        for bar in bars:
            bar.set_hatch(SOI_HATCHES[soi])
        written = [f"{share * 100:.0f}" if share >= 0.06 else "" for share in shares[soi.name]]
        box = {"fc": SOI_COLORS[soi], "ec": "none", "pad": 1.2}
        ax.bar_label(bars, written, label_type="center", fontsize=8.5, color=ink(SOI_COLORS[soi]), bbox=box)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
