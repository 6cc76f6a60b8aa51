"""Curves: scores over epochs, gains over the amount of data, agreement over the number of seeds.

A band or a bar always says what it spans (smallest to largest seed, or a 95 % interval), and lines are
distinguished by dash and mark as well as by colour.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from soi_lib.plots.style import INK, WIDTH, finish, need, style

LINES = ("#0072B2", "#D55E00", "#009E73", "#7A4EA3", "#56B4E9", "#8C6D1F", "#3B3B3B", "#CC79A7")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
ENOUGH = 0.8  # agreement that is called reliable


def training_curves(table: pd.DataFrame, measure: str = "accuracy", *, title: str = "", note: str = "") -> Figure:
    """A score per epoch, a panel a dataset: the mean over seeds, in a band from the smallest to the largest.

    Args:
        table: columns dataset, setting, split ("train", "validation"), seed, epoch (from 1) and `measure`.
        measure: the column that is drawn.

    Returns:
        the figure; its values are the mean, the smallest and the largest over seeds. Raises FormatError when a column
        is missing.
    """
    import seaborn as sns  # brings scipy.stats, which takes more than a second

    by = ["dataset", "setting", "split", "epoch"]
    need(table, [*by, "seed", measure])
    datasets = list(dict.fromkeys(table["dataset"]))
    rows = -(-len(datasets) // 2)
    look: dict[str, Any] = {"hue": "setting", "palette": LINES[: table["setting"].nunique()]}
    if table["split"].nunique() > 1:
        look |= {"style": "split"}
    with style():
        figure, axes = plt.subplots(rows, min(2, len(datasets)), figsize=(WIDTH, 2.1 * rows + 0.7), sharex=True,
                                    sharey=True, squeeze=False)  # fmt: skip
        for ax, name in zip(axes.flat, datasets, strict=False):
            part = table[table["dataset"] == name]
            sns.lineplot(part, x="epoch", y=measure, errorbar=("pi", 100), ax=ax, **look)
            ax.set_title(name)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(True)
        _one_legend(figure, list(axes.flat), len(datasets))
    values = table.groupby(by, sort=False)[measure].agg(["mean", "min", "max", "count"]).reset_index()
    seeds = table["seed"].nunique()
    text = f"Curves of the {measure} after each epoch; bands: smallest to largest of {seeds} seed{'s' * (seeds > 1)}."
    return finish(figure, values, text, title=title, note=note)


def gain_curves(
    table: pd.DataFrame, x: str = "examples", *, measure: str = "accuracy", title: str = "", note: str = ""
) -> Figure:
    """A score with its 95 % interval against the amount of data or the setting, a line a dataset.

    With numbers in `x` it shows gain against amount; with names (single, equal budget, all) it parts diversity (the
    first step, as many examples of more datasets) from quantity (the second, more examples).

    Args:
        table: columns dataset, `x`, value, low, high, in the order in which names shall stand.
        x: the column of the amount, or of the names.
        measure: what `value` is, for the axis.

    Returns:
        the figure; its values are `table`. Raises FormatError when a column is missing.
    """
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
        _lines(ax, table, x, "dataset")
        ax.set_ylabel(measure)
        if pd.api.types.is_numeric_dtype(table[x]):
            ax.set(xlabel=x, xticks=sorted(set(table[x])))
        if (table["low"] < 0).any():  # a gain, not a score
            ax.axhline(0, color=INK, lw=1)
        _one_legend(figure, [ax], 1)
    text = f"Points with 95 % intervals of the {measure} by {x}, a line a dataset."
    return finish(figure, table, text, title=title, note=note)


def reliability_curves(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """How well a score agrees with itself when it is averaged over more seeds, a line a score.

    Args:
        table: columns score, seeds (how many are averaged), agreement; low and high (an interval) where known.

    Returns:
        the figure; its values are `table`. Raises FormatError when a column is missing.
    """
    need(table, ["score", "seeds", "agreement"])
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH, 3.2))
        _lines(ax, table.rename(columns={"agreement": "value"}), "seeds", "score")
        ax.axhline(ENOUGH, color=INK, lw=1, ls=":")
        ax.set(xlabel="seeds averaged", ylabel="agreement of two groups", ylim=(min(0, ax.get_ylim()[0]), 1))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _one_legend(figure, [ax], 1)
    text = f"Curves of the agreement of each score between two groups of seeds, by their size; dotted: {ENOUGH}."
    return finish(figure, table, text, title=title, note=note)


def _lines(ax: Axes, table: pd.DataFrame, x: str, by: str) -> None:
    """A line for each value of `by`, a little apart where x are names so that intervals do not hide one another."""
    need(table, [by, x, "value"])
    groups = list(table.groupby(by, sort=False))
    names = [] if pd.api.types.is_numeric_dtype(table[x]) else list(dict.fromkeys(table[x]))
    for k, (name, part) in enumerate(groups):
        at = part[x].map(names.index) + (k - (len(groups) - 1) / 2) * 0.05 if names else part[x]
        spread = np.array([part["value"] - part["low"], part["high"] - part["value"]]) if "low" in part else None
        look: dict[str, Any] = {"color": LINES[k % len(LINES)], "marker": MARKS[k % len(MARKS)], "ms": 5, "capsize": 2}
        ax.errorbar(at, part["value"], yerr=spread, label=str(name), lw=1.4, elinewidth=1, **look)
    if names:
        ax.set_xticks(range(len(names)), names)
    ax.grid(axis="y")


def _one_legend(figure: Figure, axes: list[Axes], used: int) -> None:
    """The legend of the first axes, below the figure; the axes that are not used go."""
    known = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))
    known = {name: handle for name, handle in known.items() if name not in ("setting", "split")}  # seaborn's headings
    for k, ax in enumerate(axes):
        if legend := ax.get_legend():
            legend.remove()
        ax.set_visible(k < used)
    ncols = min(len(known), 2 if max(map(len, known)) > 16 else 4)
    figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=ncols)
