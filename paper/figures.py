"""Figures specific to this paper's pages; general ones are in `soi_lib.plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paper.tables import listing
from soi_lib.analysis.soi import SOI, categorize
from soi_lib.errors import FormatError
from soi_lib.plots.style import INK, LONG_NAMES, MUTED, ORDER, SOI_COLORS, SOI_HATCHES, WIDTH, finish, need, style

VERDICTS = {  # colour and sign
    "supported": ("#1B7F4B", "✓"),
    "mixed": ("#8A5A12", "≈"),
    "inconclusive": ("#4A6FA5", "?"),
    "not supported": ("#B3261E", "✗"),
    "not tested": ("#5F6368", "–"),
}


def verdict_strip(verdicts: Mapping[str, str]) -> Figure:
    """Draw one box per claim with its verdict, which may have a remark in brackets: "not tested (one seed)".

    Raises FormatError if there are no verdicts or one of them is unknown.
    """
    parts = {name: label.partition(" (") for name, label in verdicts.items()}
    unknown = [
        label for label, (kind, _, _) in zip(verdicts.values(), parts.values(), strict=True) if kind not in VERDICTS
    ]
    if unknown or not verdicts:
        raise FormatError(
            "not one of the verdicts", found=repr(next(iter(unknown), "")), expected=" or ".join(VERDICTS)
        )
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH, 0.42 * len(verdicts)))
        for k, (name, (kind, _, rest)) in enumerate(parts.items()):
            color, sign = VERDICTS[kind]
            ax.add_patch(Rectangle((0, k + 0.05), 1, 0.9, fc=color, ec="none"))
            words = f"{name}  {sign}  {kind}{f' ({rest}' if rest else ''}"
            ax.text(0.02, k + 0.5, words, color="white", va="center", weight="bold")
        ax.set(xlim=(0, 1), ylim=(len(verdicts), 0))
        ax.axis("off")
    values = pd.DataFrame(verdicts.items(), columns=["claim", "verdict"])
    told = listing([f"{name} {label}" for name, label in verdicts.items()])
    return finish(figure, values, f"The paper's claims (C) and our own question (L), with their verdicts: {told}.")


def agreement_plot(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Plot this machine's numbers on the prediction intervals of the recorded seeds: rows are cases, panels numbers.

    `table` has columns case, panel, here, recorded, low, high and inside. Raises FormatError if columns are missing.
    """
    need(table, ["case", "panel", "here", "recorded", "low", "high", "inside"])
    cases, panels = list(dict.fromkeys(table["case"])), list(dict.fromkeys(table["panel"]))
    wide = min(3, len(panels))
    high = -(-len(panels) // wide)
    with style():
        size = (WIDTH, (0.24 * len(cases) + 0.6) * high + 0.5)
        figure, axes = plt.subplots(high, wide, figsize=size, sharey=True, squeeze=False)
        for ax, panel in zip(axes.flat, panels, strict=False):
            part = table[table["panel"] == panel]
            y = part["case"].map(cases.index)
            ax.barh(y, part["high"] - part["low"], left=part["low"], height=0.62, color="#D3D7DC")
            ax.plot(part["recorded"], y, "|", color=INK, ms=9)
            inside = part["inside"].astype(bool)
            ax.plot(part["here"][inside], y[inside], "o", color="#0072B2", ms=5, label="here, inside")
            ax.plot(part["here"][~inside], y[~inside], "X", color="#D55E00", ms=7, label="here, outside")
            ax.set_title(panel)
            ax.set_yticks(range(len(cases)), cases)
            ax.set_ylim(len(cases) - 0.4, -0.6)
            ax.locator_params(axis="x", nbins=4)
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
        for ax in axes.flat[len(panels) :]:
            ax.axis("off")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    text = f"""Numbers from this machine (marks) and the 95 % prediction intervals of the recorded seeds (bars, with a
        tick at their mean). {int(table["inside"].sum())} of {len(table)} lie inside."""
    return finish(figure, table, text, title=title)


def histories_figure(epochs: int = 10, early: float = 0.5) -> Figure:
    """Draw one example history per category, one box per epoch. Raises FormatError for too few epochs."""
    drawn = example_histories(epochs, early)
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
        for row, soi in enumerate(ORDER):
            y = row * 1.7
            ax.text(0, y - 0.32, LONG_NAMES[soi], fontweight="bold", va="center")
            for epoch, right in enumerate(drawn[soi].tolist()):
                look: dict[str, Any] = {"fc": "white", "ec": "#9AA0A6"}
                if right:
                    look = {"fc": SOI_COLORS[soi], "ec": "white", "hatch": SOI_HATCHES[soi]}
                ax.add_patch(Rectangle((epoch + 0.06, y), 0.88, 0.88, **look))
                if epoch and drawn[soi][epoch - 1] and not right:
                    arrow = {"arrowstyle": "-|>", "lw": 1.6}
                    ax.annotate("", (epoch + 0.34, y + 0.44), (epoch - 0.34, y + 0.44), arrowprops=arrow)
        ax.axvline(early * epochs, ls="--", lw=1.2, color=INK)
        ax.text(early * epochs, -0.85, "early  |  late", ha="center", va="center", color=MUTED, fontsize=9)
        ax.set(xlim=(0, epochs), ylim=(6 * 1.7 - 0.7, -1.1), yticks=[])
        ax.set_xticks(np.arange(epochs) + 0.5, [str(epoch) for epoch in range(epochs)])
        ax.set_xlabel("epoch (filled: right; arrow: a forgetting event)")
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
    values = pd.DataFrame({soi.name: history.astype(int) for soi, history in drawn.items()}).rename_axis("epoch")
    text = f"One example history of {epochs} epochs per category, with a filled box for every epoch with a correct"
    return finish(figure, values, f"{text} prediction. The dashed line is at early x E = {early * epochs:g}.")


def example_histories(epochs: int, early: float = 0.5) -> dict[SOI, np.ndarray]:
    """Return a typical history (E,) bool of each category; `categorize` checks every one."""
    half = int(np.ceil(early * epochs - 1e-9))
    at = np.arange(epochs)
    drawn = {
        SOI.ACE: at >= 0,
        SOI.ELE: at >= max(1, half // 2),
        SOI.LLE: at >= min(epochs - 1, half + max(1, (epochs - half) // 3)),
        SOI.FRGE_1: (at >= 1) & ~((at >= half) & (at < half + 2)),
        SOI.FRGE_2: (at >= 1) & (at % 3 != 0) if epochs > 7 else at % 2 == 0,
        SOI.UNE: at < 0,
    }
    if categorize(np.stack(list(drawn.values()), axis=1), early).tolist() != [int(soi) for soi in drawn]:
        raise FormatError(
            "too few epochs for every category", found=f"{epochs} epochs, early {early}", hint="use more epochs"
        )
    return drawn
