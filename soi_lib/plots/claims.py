"""What a claim rests on, as points with their intervals around zero, and all verdicts on one strip.

Special about it: a point is filled where its interval is without zero and empty where it is not, so that colour is
never needed to tell evidence from chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from soi_lib.errors import FormatError
from soi_lib.plots.style import WIDTH, finish, listing, sentence, style

if TYPE_CHECKING:
    import pandas as pd

UP, DOWN, OPEN = "#0072B2", "#D55E00", "#5F6368"
VERDICT_COLORS = {"supported": "#1B7F4B", "mixed": "#B7791F", "not supported": "#B3261E", "not tested": "#5F6368"}
_MARKS = {"supported": "✓", "mixed": "≈", "not supported": "✗", "not tested": "–"}


def interval_plot(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Values with their 95 % intervals, a row a case, a panel a measure.

    `table` has columns case, measure, value, low, high; rows without a value are left out. Raises FormatError when
    columns are missing or no row has a value.
    """
    missing = {"case", "measure", "value", "low", "high"} - set(table.columns)
    known = table.dropna(subset=["value", "low", "high"]) if not missing else table
    if missing or known.empty:
        raise FormatError("there is nothing to draw", found=sorted(missing) or "no value with an interval")
    measures = list(dict.fromkeys(known["measure"]))
    cases = list(dict.fromkeys(known["case"]))
    with style():
        figure, axes = plt.subplots(
            1,
            len(measures),
            figsize=(WIDTH, 0.27 * len(cases) + 0.95),
            sharey=True,
            layout="constrained",
            squeeze=False,
        )
        for measure, ax in zip(measures, axes[0], strict=True):
            rows: Any = known[known["measure"] == measure].itertuples()
            for row in rows:
                y = cases.index(row.case)
                color = UP if row.low > 0 else DOWN if row.high < 0 else OPEN
                ax.plot([row.low, row.high], [y, y], color=color, lw=1.6, solid_capstyle="butt")
                face = "white" if color == OPEN else color
                ax.plot(row.value, y, "o", ms=6, mfc=face, mec=color, mew=1.4)
            ax.axvline(0, color="#202124", lw=1.1, zorder=1.5)
            ax.set_xlabel("\n".join(wrap(measure, 60 // len(measures))))
            ax.locator_params(axis="x", nbins=7 if len(measures) == 1 else 4)
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
        axes[0, 0].set_yticks(range(len(cases)), cases)
        axes[0, 0].set_ylim(len(cases) - 0.4, -0.6)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    told = []
    for measure in measures:
        part = known[known["measure"] == measure]
        up, down = int((part["low"] > 0).sum()), int((part["high"] < 0).sum())
        told.append(f"{measure}: above zero in {up} of {len(part)} cases, below in {down}")
    text = f"""Points with 95 % intervals, by case; filled where the interval is without zero.
        {f"{title}. " if title else ""}{"; ".join(told)}."""
    return finish(figure, text + sentence(note), wide=len(measures) > 1)


def verdict_strip(verdicts: Mapping[str, str], *, note: str = "") -> Figure:
    """One box a claim with its verdict: `verdicts` maps C1, C2, ... to the verdict as it should read.

    A verdict may say more in brackets ("not tested (one seed)"). Raises FormatError on an unknown verdict.
    """
    if not verdicts:
        raise FormatError("there are no verdicts to draw")
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH, 1.0), layout="constrained")
        for k, (name, label) in enumerate(verdicts.items()):
            kind, _, rest = label.partition(" (")
            if kind not in VERDICT_COLORS:
                raise FormatError(f"unknown verdict {label!r}", expected=" or ".join(VERDICT_COLORS))
            ax.add_patch(Rectangle((k + 0.03, 0), 0.94, 1, fc=VERDICT_COLORS[kind], ec="none"))
            ax.text(k + 0.5, 0.7, f"{name} {_MARKS[kind]}", color="white", ha="center", va="center", weight="bold")
            words = kind + (f"\n({rest}" if rest else "")
            ax.text(k + 0.5, 0.3, words, color="white", ha="center", va="center", fontsize=8.5, linespacing=0.95)
        ax.set_xlim(0, len(verdicts))
        ax.set_ylim(-0.05, 1.05)
        ax.axis("off")
    told = listing([f"{name} {label}" for name, label in verdicts.items()])
    return finish(figure, f"The paper's claims and what the runs say of them: {told}." + sentence(note))
