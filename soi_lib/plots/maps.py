"""Data maps side by side, and the six histories drawn as boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI, categorize, forgetting_events
from soi_lib.dynamics import TrainingDynamics, pack_history
from soi_lib.errors import FormatError
from soi_lib.plots.style import MUTED, ORDER, SOI_COLORS, SOI_HATCHES, WIDTH, finish, percent, sentence, style

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
    """Data maps side by side on shared axes: x variability, y confidence, colour correctness (or the category).

    `runs` maps a panel's name to dynamics, or to their data map (a row an example). Of more than 4,000 examples an
    even sample is drawn; the caption says so. Raises FormatError when there is nothing to draw.
    """
    if not runs:
        raise FormatError("there is no data map to draw", expected="at least one run")
    maps = {name: run if not isinstance(run, TrainingDynamics) else data_map(run, early) for name, run in runs.items()}
    many = len(maps)
    with style():
        figure, axes = plt.subplots(
            1,
            many,
            figsize=(4.6 if many == 1 else max(WIDTH, 3.4 * many), 4.4),
            sharex=True,
            sharey=True,
            layout="constrained",
            squeeze=False,
        )
        top = max(float(m["variability"].max()) for m in maps.values())
        steps = max(_levels(m) for m in maps.values())
        points = None
        for (name, table), ax in zip(maps.items(), axes[0], strict=True):
            shown = table.iloc[_sample(len(table))]
            if color == "soi":
                for soi in ORDER:
                    part = shown[shown["soi"] == int(soi)]
                    ax.scatter(part["variability"], part["confidence"], s=11, c=SOI_COLORS[soi], alpha=0.8, lw=0)
            else:
                norm = BoundaryNorm(np.linspace(-0.5 / steps, 1 + 0.5 / steps, steps + 2), 256)
                points = ax.scatter(
                    shown["variability"],
                    shown["confidence"],
                    c=shown["correctness"],
                    cmap="cividis",
                    norm=norm,
                    s=11,
                    alpha=0.85,
                    lw=0,
                )
            ax.set_title(f"{name} (n = {len(table):,})")
            ax.set_xlabel("variability of p(gold)")
            ax.grid(True)
        ax = axes[0, 0]
        ax.set_ylabel("confidence, mean p(gold)")
        ax.set_xlim(-0.015, max(0.3, top * 1.14))
        ax.set_ylim(-0.03, 1.03)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
        for ax in axes[0]:
            right = ax.get_xlim()[1]
            for x, y, name, turn in (
                (0.55 * right, 0.985, "easy to learn", 0),
                (0.965 * right, 0.5, "ambiguous", 90),
                (0.55 * right, 0.015, "hard to learn", 0),
            ):
                look = {"fontsize": 8.5, "style": "italic", "color": MUTED, "rotation": turn, "bbox": box}
                ax.text(x, y, name, ha="center", va="center", **look)
        if points is not None:
            bar = figure.colorbar(points, ax=axes, location="bottom", fraction=0.05, aspect=45, pad=0.03)
            bar.set_label("correctness: fraction of epochs that were right")
            marks = np.arange(steps + 1) if steps <= 10 else np.linspace(0, steps, 6).round()
            bar.set_ticks(list(marks / steps), labels=[f"{m / steps:.2g}" for m in marks])
            bar.outline.set_visible(False)
        else:
            handles = [Line2D([], [], marker="o", ls="", color=SOI_COLORS[s], label=s.label) for s in ORDER]
            figure.legend(handles=handles, loc="outside lower center", ncols=6, handletextpad=0.1)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    told = []
    for name, table in maps.items():
        left = f"; {MOST_POINTS:,} drawn" if len(table) > MOST_POINTS else ""
        never = percent(float(table["never_learned"].mean()))
        told.append(
            f"{name}: {len(table):,} examples{left}, mean confidence {table['confidence'].mean():.2f}, mean "
            f"variability {table['variability'].mean():.2f}, {never} never learned"
        )
    colour = "correctness" if color == "correctness" else "category"
    text = f"Data maps of training examples: variability across epochs (x), confidence (y) and {colour} (colour)."
    text += (f" {title}." if title else "") + f" {'. '.join(told)}."
    return finish(figure, text + sentence(note), wide=many > 1)


def histories_figure(epochs: int = 10, early: float = 0.5, *, note: str = "") -> Figure:
    """One drawn history of each category, a box an epoch, with its rule: how examples are sorted.

    Raises FormatError for too few epochs.
    """
    if epochs < 6:
        raise FormatError("too few epochs to show all six histories", found=epochs, expected="at least 6")
    drawn = example_histories(epochs, early)
    rules = {
        SOI.ACE: "always correct: right at every epoch",
        SOI.ELE: f"early learned: first right before epoch {_half(epochs, early)}, never lost",
        SOI.LLE: f"late learned: first right at epoch {_half(epochs, early)} or later, never lost",
        SOI.FRGE_1: "forgotten once (one forgetting event)",
        SOI.FRGE_2: "forgotten at least twice",
        SOI.UNE: "unlearned: wrong at every epoch",
    }
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH * 0.9, 4.75), layout="constrained")
        for row, soi in enumerate(ORDER):
            y = row * 1.75
            ax.text(0, y - 0.32, soi.label, fontweight="bold", va="center", fontsize=10)
            ax.text(1.75 * epochs / 10, y - 0.32, rules[soi], va="center", fontsize=9.5, color=MUTED)
            history = drawn[soi]
            ax.plot([early * epochs] * 2, [y - 0.05, y + 0.95], ls=(0, (3, 1.5)), lw=1.4, color="#202124", zorder=3)
            for e in range(epochs):
                right = bool(history[e])
                ax.add_patch(
                    Rectangle(
                        (e + 0.06, y),
                        0.88,
                        0.88,
                        fc=SOI_COLORS[soi] if right else "white",
                        hatch=SOI_HATCHES[soi] if right else "",
                        ec="white" if right and SOI_HATCHES[soi] else "#9AA0A6",
                        lw=1,
                    )
                )
                if e and history[e - 1] and not right:  # a forgetting event
                    ax.annotate(
                        "", (e + 0.34, y + 0.44), (e - 0.34, y + 0.44), arrowprops={"arrowstyle": "-|>", "lw": 1.6}
                    )
        ax.set_xlim(0, epochs)
        ax.set_ylim(6 * 1.75 - 0.7, -0.75)
        ax.set_xticks(np.arange(epochs) + 0.5, [str(e) for e in range(epochs)])
        ax.set_xlabel("epoch (filled = predicted right, arrow = forgetting event)")
        ax.set_yticks([])
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
    squares = "; ".join(f"{s.label} {''.join('■' if c else '□' for c in drawn[s])}" for s in ORDER)
    text = f"One drawn history of {epochs} epochs for each of the six categories, a filled box for every epoch that "
    text += f"was predicted right. {squares}. The dashed line is early x E = {early * epochs:g} epochs."
    return finish(figure, text + sentence(note))


def example_histories(epochs: int, early: float = 0.5) -> dict[SOI, np.ndarray]:
    """A telling history (E,) bool of each category; every one is checked by `categorize`."""
    half = _half(epochs, early)
    at = np.arange(epochs)
    drawn = {
        SOI.ACE: at >= 0,
        SOI.ELE: at >= max(1, half // 2),
        SOI.LLE: at >= min(epochs - 1, half + max(1, (epochs - half) // 3)),
        SOI.FRGE_1: (at >= 1) & ~((at >= half) & (at < half + 2)),
        SOI.FRGE_2: (at >= 1) & (at % 3 != 0) if epochs > 7 else at % 2 == 0,
        SOI.UNE: at < 0,
    }
    table = np.stack([drawn[s] for s in ORDER], axis=1)
    codes = categorize(table, early)
    events = forgetting_events(pack_history(table), epochs)
    if list(codes) != [int(s) for s in ORDER]:
        raise FormatError("no example of each category fits", found=f"{epochs} epochs, early {early}, events {events}")
    return drawn


def _half(epochs: int, early: float) -> int:
    return int(np.ceil(early * epochs - 1e-9))


def _levels(table: pd.DataFrame) -> int:
    """E, read off the fractions of correct epochs (the smallest number of steps that holds them all)."""
    values = table["correctness"].unique()
    return next((e for e in range(1, 65) if np.allclose(values * e, np.round(values * e), atol=1e-6)), 64)


def _sample(n: int) -> np.ndarray:
    """Rows to draw: all, or an even sample; shuffled by a fixed seed so that no group is drawn on top."""
    rows = np.arange(n) if n <= MOST_POINTS else np.linspace(0, n - 1, MOST_POINTS).round().astype(int)
    return np.random.default_rng(0).permutation(rows)
