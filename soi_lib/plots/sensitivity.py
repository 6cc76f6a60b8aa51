"""How the six shares change with a choice: areas over epochs or `early`, dots for seeds.

Special about it: the areas are means over seeds, and the thin lines in them are the single seeds, so that a reader
sees at once whether a choice or a seed moves the boundary more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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

_AXES = {"epochs": "epochs looked at", "early": "early"}
_MARKS = ("o", "s", "^", "D", "v")


def share_areas(table: pd.DataFrame, over: str = "epochs", *, title: str = "", note: str = "") -> Figure:
    """Stacked areas of the six shares over a choice: a row of panels per member, a panel per setting.

    `table` has columns member, setting, seed, the six categories and `over` ("epochs" or "early"), as `by_epochs`
    and `by_early` of `paper.sensitivity` give it. Areas are means over seeds, thin lines single seeds.
    Raises FormatError when columns are missing.
    """
    _need(table, [over, "member", "setting", "seed"])
    members, settings = (list(dict.fromkeys(table[c])) for c in ("member", "setting"))
    several = table["seed"].nunique() > 1
    with style():
        figure, axes = plt.subplots(
            len(members),
            len(settings),
            figsize=(WIDTH, 1.65 * len(members) + 1.1),
            sharex=True,
            sharey=True,
            layout="constrained",
            squeeze=False,
        )
        for i, member in enumerate(members):
            for j, setting in enumerate(settings):
                ax = axes[i, j]
                part = table[(table["member"] == member) & (table["setting"] == setting)]
                if part.empty:
                    ax.axis("off")
                    continue
                mean = part.groupby(over)[NAMES].mean()
                edges = np.column_stack([np.zeros(len(mean)), mean.to_numpy(dtype=float).cumsum(axis=1)])
                for k, soi in enumerate(ORDER):
                    look: dict[str, Any] = {"facecolor": SOI_COLORS[soi], "hatch": SOI_HATCHES[soi]}
                    ax.fill_between(mean.index, edges[:, k], edges[:, k + 1], edgecolor="white", lw=0.5, **look)
                if several:
                    for _, one in part.groupby("seed"):
                        lines = one.set_index(over).sort_index()[NAMES].to_numpy(dtype=float).cumsum(axis=1)[:, :-1]
                        ax.plot(mean.index, lines, color="#202124", lw=0.6, alpha=0.75)
                ax.set_title(f"{member}, {setting}", fontsize=9.5)
                ax.set_xlim(float(mean.index.min()), float(mean.index.max()))
                ax.set_ylim(0, 1)
                ax.set_yticks([0, 0.5, 1], ["0", "50", "100"])
                if over == "epochs":
                    ax.set_xticks(range(int(mean.index.min()), int(mean.index.max()) + 1, 2 if len(mean) > 6 else 1))
                if i == len(members) - 1:
                    ax.set_xlabel(_AXES.get(over, over))
        figure.supylabel("share of training examples (%)", fontsize=10)
        handles: list[Any] = [
            Patch(facecolor=SOI_COLORS[s], hatch=SOI_HATCHES[s], edgecolor="white", label=s.label) for s in ORDER
        ]
        if several:
            handles.append(Line2D([], [], color="#202124", lw=0.8, label="single seeds"))
        figure.legend(handles=handles, loc="outside lower center", ncols=7, handlelength=1.2, columnspacing=1.0)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    low, high = table[over].min(), table[over].max()
    ends = [table[table[over] == v][NAMES].mean() for v in (low, high)]
    change = (ends[1] - ends[0]).abs().sort_values(ascending=False, kind="stable")
    moves = change[change >= 0.005].index[:3]
    told = "; ".join(
        f"{LABELS[NAMES.index(str(m))]} from {percent(ends[0][m])} to {percent(ends[1][m])}" for m in moves
    )
    text = f"""Stacked areas of the shares of the six categories over {_AXES.get(over, over)}, {low:g} to {high:g}, for
        each member and setting. {f"{title}. " if title else ""}Largest changes, mean over all panels: {told or "none"}.
        {"Areas are means over seeds, thin lines the boundaries of single seeds." if several else ""}"""
    return finish(figure, text + sentence(note))


def share_dots(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """The six shares of every member and setting, a dot a seed; a line joins the smallest and the largest.

    `table` has columns member, setting, seed and the six categories, as `by_seed` gives it. Raises FormatError.
    """
    _need(table, ["member", "setting", "seed"])
    groups = list(dict.fromkeys(zip(table["member"], table["setting"], strict=True)))
    seeds = list(dict.fromkeys(table["seed"]))
    widest = (0.0, "", ("", ""))
    with style():
        figure, axes = plt.subplots(
            1, len(ORDER), figsize=(WIDTH, 0.27 * len(groups) + 1.3), sharey=True, layout="constrained"
        )
        for soi, ax in zip(ORDER, axes, strict=True):
            for y, (member, setting) in enumerate(groups):
                part = table[(table["member"] == member) & (table["setting"] == setting)]
                values = part[soi.name].to_numpy(dtype=float)
                ax.plot([values.min(), values.max()], [y, y], color=MUTED, lw=1.2, zorder=1)
                for value, seed in zip(values, part["seed"], strict=True):
                    k = seeds.index(seed)
                    mark, place = _MARKS[k % len(_MARKS)], y + (k - (len(seeds) - 1) / 2) * 0.5 / len(seeds)
                    ax.plot(value, place, mark, color=SOI_COLORS[soi], mec="white", mew=0.5, ms=5.5, zorder=2)
                if float(np.ptp(values)) > widest[0]:
                    widest = (float(np.ptp(values)), soi.label, (member, setting))
            ax.set_title(soi.label, fontsize=9.5)
            ax.set_xlim(left=0)
            ax.margins(x=0.12)
            ax.xaxis.set_major_formatter(lambda v, _: f"{v * 100:.0f}")
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(groups)), [f"{member}, {setting}" for member, setting in groups])
        axes[0].set_ylim(len(groups) - 0.4, -0.6)
        axes[len(ORDER) // 2].set_xlabel("share of training examples (%)", x=0)
        if len(seeds) > 1:
            marks = [
                Line2D([], [], marker=_MARKS[k % len(_MARKS)], ls="", color=MUTED, label=f"seed {seed}")
                for k, seed in enumerate(seeds)
            ]
            figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    which = f"one for each of {len(seeds)} seeds" if len(seeds) > 1 else "of one seed"
    text = f"Dots of the shares of the six categories, {which}, by member and setting."
    text += f" {title}." if title else ""
    if len(seeds) > 1 and widest[1]:
        (member, setting), points = widest[2], widest[0] * 100
        text += f" The widest spread is that of {widest[1]} for {member} ({setting}): {points:.1f} points."
    return finish(figure, text + sentence(note), wide=True)


def _need(table: pd.DataFrame, columns: list[str]) -> None:
    missing = {*columns, *NAMES} - set(table.columns)
    if missing or table.empty:
        raise FormatError("the table of shares lacks columns or rows", found=sorted(missing), expected="none missing")
