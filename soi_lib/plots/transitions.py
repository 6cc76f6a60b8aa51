"""Moves between categories: heatmaps, heatmaps beside their noise floor, and an alluvial picture.

Special about it: rows and columns run from easy to hard, so that what lies below the diagonal became easier; the
table itself keeps the order of the codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from soi_lib.analysis.excess import Excess
from soi_lib.errors import FormatError
from soi_lib.plots.style import (
    LABELS,
    MUTED,
    NAMES,
    ORDER,
    SOI_COLORS,
    SOI_HATCHES,
    WIDTH,
    finish,
    percent,
    sentence,
    style,
)

if TYPE_CHECKING:
    import pandas as pd

SIDES = ("alone", "together")


def transition_heatmap(
    counts: pd.DataFrame, *, title: str = "", note: str = "", sides: tuple[str, str] = SIDES
) -> Figure:
    """Counts of a transition beside its rows normalised: where the examples of each category went.

    `counts` as `transition_matrix` or `mean_transition` gives it (6x6, not normalised); `sides` names the settings.
    """
    table = in_order(counts)
    told = moves_told(table)
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.1), layout=ConstrainedLayoutEngine(h_pad=0.09))
        _counts(axes[0], table, sides)
        _rows(axes[1], table, sides)
        axes[0].set_title("examples")
        axes[1].set_title("% of each row")
        axes[1].set(ylabel="", yticks=[])
        _title(figure, title)
    text = f"Heatmaps of the moves between categories from {sides[0]} (rows) to {sides[1]} (columns), as counts and as "
    text += "shares of each row." + (f" {title}." if title else "") + f" {told}"
    return finish(figure, text + sentence(note), wide=True)


def transition_panels(excess: Excess, *, title: str = "", note: str = "", sides: tuple[str, str] = SIDES) -> Figure:
    """A transition, its noise floor, and how far it lies beyond the floor; cells that are more than noise are framed.

    `excess` comes from `excess_transition`. The third panel shows the difference of the two in standard deviations of
    a shuffle of examples among runs.
    """
    transition, floor = in_order(excess.transition), in_order(excess.floor)
    residual, marked = in_order(excess.residual), in_order(excess.significant).astype(bool)
    single, multi = excess.seeds
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 7.7), layout=ConstrainedLayoutEngine(h_pad=0.16))
        _rows(axes[0, 0], transition, sides)
        axes[0, 0].set_title(f"{sides[0]} to {sides[1]} (% of row)")
        _rows(axes[0, 1], floor, (f"{sides[0]}, one seed", f"{sides[0]}, another seed"))
        axes[0, 1].set_title("noise floor (% of row)")
        ax = axes[1, 0]
        reach = max(3.0, float(np.abs(residual.to_numpy()).max()))
        labels = [[f"{v:+.1f}" if abs(v) >= 0.05 else "0" for v in row] for row in residual.to_numpy()]
        sns.heatmap(
            residual, ax=ax, cmap="PuOr_r", vmin=-reach, vmax=reach, annot=np.array(labels), fmt="", cbar=False, **_GRID
        )
        for i, j in zip(*np.nonzero(marked.to_numpy()), strict=True):
            ax.add_patch(Rectangle((j + 0.04, i + 0.04), 0.92, 0.92, fill=False, lw=2, ec="black"))
        _axes(ax, sides, LABELS)
        ax.set_title("beyond the floor (std. residual)")
        _reading(axes[1, 1], sides, excess)
        _title(figure, title)
    values, rows, columns = residual.to_numpy(dtype=float), *np.nonzero(marked.to_numpy())
    told = [f"{LABELS[i]} to {LABELS[j]} ({values[i, j]:+.1f})" for i, j in zip(rows, columns, strict=True)]
    found = f"More than noise: {', '.join(told)}." if told else "No move is more than noise."
    text = f"""Heatmaps of the moves between categories from {sides[0]} to {sides[1]}, of the noise floor between
        seeds of {sides[0]}, and of their difference in standard deviations.{f" {title}." if title else ""} {found}
        n = {excess.n:,} examples, {single} seeds {sides[0]} and {multi} {sides[1]}, false discovery rate
        {excess.level:.0%}."""
    return finish(figure, text + sentence(note), wide=True)


def flow_plot(counts: pd.DataFrame, *, title: str = "", note: str = "", sides: tuple[str, str] = SIDES) -> Figure:
    """An alluvial picture of a 6x6 transition: bands from the categories in one setting to those in the other."""
    table = in_order(counts)
    told = moves_told(table)
    values = table.to_numpy(dtype=float)
    total = values.sum()
    gap = 0.02
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH * 0.9, 4.6), layout="constrained")
        tops = {}
        for side, sums in ((0, values.sum(axis=1)), (1, values.sum(axis=0))):
            y, label = 0.0, -1.0
            for k, soi in enumerate(ORDER):
                height = sums[k] / total
                x = side - (0.03 if side == 0 else -0.03)
                ax.add_patch(
                    Rectangle(
                        (min(x, side), y), 0.03, height, fc=SOI_COLORS[soi], hatch=SOI_HATCHES[soi], ec="white", lw=0.5
                    )
                )
                tops[side, k] = y
                label = max(label + 0.042, y + height / 2)  # small categories keep readable labels
                ax.text(
                    x + (0.015 if side else -0.015),
                    label,
                    f"{soi.label}  {percent(height)}",
                    ha="left" if side else "right",
                    va="center",
                    fontsize=9.5,
                )
                y += max(height, 0.012) + gap
        heads = dict(tops)
        for i, j in np.ndindex(values.shape):
            width = values[i, j] / total
            if width > 0:
                _band(ax, heads[0, i], heads[1, j], width, SOI_COLORS[ORDER[i]], i == j)
                heads[0, i] += width
                heads[1, j] += width
        ax.set_xlim(-0.32, 1.32)
        ax.set_ylim(1 + 6 * gap + 0.06, -0.01)
        for side, name in enumerate(sides):
            ax.text(side, -0.03, name, ha="right" if side == 0 else "left", va="bottom", fontweight="bold")
        ax.axis("off")
        _title(figure, title)
    text = f"Bands from the category of each example when trained {sides[0]} (left) to its category {sides[1]} (right)."
    text += (f" {title}." if title else "") + f" {told}"
    return finish(figure, text + sentence(note))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """A 6x6 table from easy to hard. Raises FormatError when it is none."""
    if table.shape != (6, 6) or set(table.index) != set(NAMES) or set(table.columns) != set(NAMES):
        raise FormatError("this is no 6x6 table of categories", found=table.shape, hint="give a transition_matrix")
    return table.loc[NAMES, NAMES]


def moves_told(table: pd.DataFrame) -> str:
    """A transition in words: how many stay, the largest moves, and which way they go."""
    values = table.to_numpy(dtype=float)
    total = values.sum()
    if total <= 0:
        raise FormatError("the transition holds no examples")
    stay = float(np.trace(values)) / total
    off = [(float(values[i, j]), i, j) for i, j in np.ndindex(values.shape) if i != j and values[i, j] > 0]
    off.sort(key=lambda move: (-move[0], move[1], move[2]))
    largest = ", ".join(f"{LABELS[i]} to {LABELS[j]} {number(v)}" for v, i, j in off[:3])
    easier = float(np.tril(values, -1).sum()) / total
    harder = float(np.triu(values, 1).sum()) / total
    text = (
        f"Of {number(total)} examples {percent(stay)} stay in their category, {percent(easier)} move to an easier one"
    )
    return f"{text} and {percent(harder)} to a harder one{f'; largest moves: {largest}' if largest else ''}."


def number(value: float) -> str:
    """A count, or a mean of counts with one decimal where it is small and not whole."""
    return f"{value:,.0f}" if value >= 99.5 or float(value).is_integer() else f"{value:.1f}"


_GRID: dict[str, Any] = {"square": True, "linewidths": 1, "linecolor": "white", "annot_kws": {"fontsize": 8.5}}


def _counts(ax: Axes, table: pd.DataFrame, sides: tuple[str, str]) -> None:
    labels = np.array([[number(v) for v in row] for row in table.to_numpy(dtype=float)])
    top = max(1.0, float(table.to_numpy().max()))
    sns.heatmap(
        table.astype(float), ax=ax, cmap="Blues", norm=PowerNorm(0.5, 0, top), annot=labels, fmt="", cbar=False, **_GRID
    )
    _axes(ax, sides, [f"{label} ({number(n)})" for label, n in zip(LABELS, table.sum(axis=1), strict=True)])


def _rows(ax: Axes, table: pd.DataFrame, sides: tuple[str, str]) -> None:
    totals = table.sum(axis=1)
    shares = table.div(totals.where(totals > 0), axis=0).astype(float)
    labels = np.array([["–" if np.isnan(v) else f"{v * 100:.0f}" for v in row] for row in shares.to_numpy()])
    sns.heatmap(
        shares.fillna(0), ax=ax, cmap="Blues", norm=PowerNorm(0.6, 0, 1), annot=labels, fmt="", cbar=False, **_GRID
    )
    _axes(ax, sides, LABELS)


def _axes(ax: Axes, sides: tuple[str, str], rows: list[str]) -> None:
    ax.set_ylabel(f"{sides[0]} (from)")
    ax.set_xlabel(f"{sides[1]} (to)")
    ax.set_xticks(np.arange(6) + 0.5, LABELS, rotation=45, ha="right", rotation_mode="anchor", fontsize=8.5)
    ax.set_yticks(np.arange(6) + 0.5, rows, rotation=0, fontsize=8.5)
    ax.tick_params(length=0)


def _reading(ax: Axes, sides: tuple[str, str], excess: Excess) -> None:
    ax.axis("off")
    lines = [
        ("How to read this", True),
        (f"Rows: category when trained {sides[0]}.", False),
        ("Columns: category in the other run.", False),
        ("Below the diagonal examples became", False),
        ("easier, above it harder.", False),
        ("", False),
        ("Noise floor: the same setting with", False),
        ("another seed. Only what goes beyond it", False),
        ("can be due to the setting.", False),
        ("", False),
        ("Framed: more than noise", True),
        (f"(false discovery rate {excess.level:.0%}, and no", False),
        ("other division of the runs shows it).", False),
        ("", False),
        (f"n = {excess.n:,}; seeds: {excess.seeds[0]} and {excess.seeds[1]}", False),
    ]
    for k, (line, bold) in enumerate(lines):
        ax.text(
            0.04, 0.96 - k * 0.066, line, fontsize=9, va="top", color="black" if bold else MUTED, transform=ax.transAxes
        )


def _band(ax: Axes, left: float, right: float, width: float, color: str, same: bool) -> None:
    points = [(0, left), (0.5, left), (0.5, right), (1, right), (1, right + width), (0.5, right + width)]
    points += [(0.5, left + width), (0, left + width), (0, left)]
    kinds = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    ax.add_patch(PathPatch(Path(points, [*kinds, Path.CLOSEPOLY]), fc=color, ec="none", alpha=0.28 if same else 0.62))


def _title(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
