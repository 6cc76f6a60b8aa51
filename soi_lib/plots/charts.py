"""Charts of shares, differences, curves and data maps.

Every bar, point or line shows a row of the table that the caller passes. No chart depends on colour alone: points are
filled if their interval excludes zero and empty otherwise, and lines also differ by dash and marker. Captions say what
bands and error bars span (smallest to largest seed, or a 95 % interval).
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import FormatError
from soi_lib.plots.style import (
    DOWN,
    INK,
    LONG_NAMES,
    MUTED,
    NAMES,
    OPEN,
    ORDER,
    SOI_COLORS,
    SOI_HATCHES,
    SOI_INKS,
    SOI_MARKERS,
    UP,
    WIDTH,
    finish,
    grid,
    legend_below,
    need,
    span,
    style,
    subplots,
)

LINES = ("#0072B2", "#D55E00", "#009E73", "#7A4EA3", "#56B4E9", "#8C6D1F", "#3B3B3B", "#CC79A7")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
ENOUGH = 0.8  # agreement that counts as reliable
MOST_POINTS = 4000  # per data map; more would overlap


@style()
def soi_bars(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Draw the shares of the six categories as stacked bars, one bar per row, grouped by dataset.

    Args:
        table: counts or shares; columns are the names of SOI, the index is the setting, or (dataset, setting).

    Returns:
        the figure; its values are the shares.

    Raises:
        FormatError: a category is missing, or a row is empty or negative.
    """
    need(table, NAMES)
    counts = table[NAMES].astype(float)
    totals = counts.sum(axis=1)
    if (totals <= 0).any() or (counts < 0).to_numpy().any():
        raise FormatError("a row of the category table is empty or negative", found=str(totals.idxmin()))
    shares = counts.div(totals, axis=0)
    nested = shares.index.nlevels > 1
    groups: list[Any] = list(shares.groupby(level=0, sort=False)) if nested else [("", shares)]
    rows = [len(part) for _, part in groups]
    size = (WIDTH, 0.28 * sum(rows) + 0.4 * len(groups) + 1.1)
    look: dict[str, Any] = {"color": list(SOI_COLORS.values()), "ec": "white", "lw": 0.5, "width": 0.82}
    figure, axes = subplots(len(groups), 1, figsize=size, sharex=True, squeeze=False, height_ratios=rows)
    for ax, (name, part) in zip(axes.flat, groups, strict=True):
        (part.droplevel(0) if nested else part).plot.barh(stacked=True, ax=ax, legend=False, **look)
        for soi, bars in zip(ORDER, ax.containers, strict=True):
            for bar in bars:
                bar.set_hatch(SOI_HATCHES[soi])
            written = [f"{share * 100:.0f}" if share >= 0.06 else "" for share in part[soi.name]]
            box = {"fc": SOI_COLORS[soi], "ec": "none", "pad": 1.2}
            ax.bar_label(bars, written, label_type="center", fontsize=8.5, color=SOI_INKS[soi], bbox=box)
        ax.set(title=name, xlim=(0, 1), ylabel="")
        ax.invert_yaxis()
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    axes[-1, 0].set_xlabel("share of training examples (%)")
    axes[-1, 0].xaxis.set_major_formatter(lambda share, _: f"{share * 100:g}")
    handles = [Patch(fc=SOI_COLORS[s], hatch=SOI_HATCHES[s], ec="white", label=LONG_NAMES[s]) for s in ORDER]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=1.4)
    text = "Shares of training examples in the six categories, by setting, as stacked bars."
    if not np.allclose(totals, 1, atol=0.01):  # shares, which may be rounded, sum to 1
        text += f" Each bar represents {span(round(n) for n in totals)} examples."
    return finish(figure, shares, text, title=title, note=note)


@style()
def interval_plot(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Draw values with 95 % intervals relative to zero, with one row per case and one panel per measure.

    Args:
        table: columns case, measure, value, low, high; rows without a value are left out. An optional column beyond
            says whether the value is beyond chance after correction over all cases.

    Returns:
        the figure; its values are the drawn rows. Raises FormatError if there are none.
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
    figure, axes = subplots(*shape, figsize=size, sharey=beside, squeeze=False)
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
    text = f"""Points with 95 % intervals, by case; a point is filled if {filled} (blue above zero, orange below).
        Of {len(known)} intervals, {up.sum()} are above zero and {down.sum()} below{", corrected" * corrected}."""
    return finish(figure, known, text, title=title, note=note)


@style()
def training_curves(table: pd.DataFrame, measure: str = "accuracy", *, title: str = "", note: str = "") -> Figure:
    """Draw a score per epoch, one panel per dataset: the mean over seeds, and a band from the smallest to the largest.

    Args:
        table: columns dataset, setting, split ("train", "validation"), seed, epoch (from 1) and `measure`.
        measure: the column to draw.

    Returns:
        the figure; its values are mean, minimum, maximum and count over seeds. Raises FormatError if a column is
        missing.
    """
    import seaborn as sns  # imports scipy.stats, which takes more than a second

    by = ["dataset", "setting", "split", "epoch"]
    need(table, [*by, "seed", measure])
    parts = list(table.groupby("dataset", sort=False))
    look: dict[str, Any] = {"hue": "setting", "palette": LINES[: table["setting"].nunique()]}
    if table["split"].nunique() > 1:
        look |= {"style": "split"}
    figure, axes = grid(len(parts), 2.1, 0.7)
    for ax, (name, part) in zip(axes, parts, strict=True):
        sns.lineplot(part, x="epoch", y=measure, errorbar=("pi", 100), ax=ax, **look)
        ax.set_title(str(name))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(True)
    legend_below(figure, axes[0])
    values = table.groupby(by, sort=False)[measure].agg(["mean", "min", "max", "count"]).reset_index()
    seeds = table["seed"].nunique()
    text = f"Learning curves: {measure} per epoch; bands: smallest to largest of {seeds} seed{'s' * (seeds > 1)}."
    return finish(figure, values, text, title=title, note=note)


@style()
def gain_curves(
    table: pd.DataFrame, x: str = "examples", *, measure: str = "accuracy", title: str = "", note: str = ""
) -> Figure:
    """Draw a score with 95 % intervals against the amount of data or the setting, one line per dataset.

    With numbers in `x`, it shows the gain against the amount. With names (single, equal budget, all), it separates
    diversity (the first step: as many examples from more datasets) from quantity (the second step: more examples).

    Args:
        table: columns dataset, `x`, value, low, high; names are drawn in their order in the table.
        x: the column with the amount, or with the names.
        measure: the label of the y axis.

    Returns:
        the figure; its values are `table`. Raises FormatError if a column is missing.
    """
    figure, ax = _lines(table, x, "dataset", ylabel=measure)
    if pd.api.types.is_numeric_dtype(table[x]):
        ax.set(xlabel=x, xticks=sorted(set(table[x])))
    if (table["low"] < 0).any():  # a gain, not a score
        ax.axhline(0, color=INK, lw=1)
    text = f"The {measure} by {x} with 95 % intervals, one line per dataset."
    return finish(figure, table, text, title=title, note=note)


@style()
def reliability_curves(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Draw how well scores agree between groups of seeds, against the number of seeds averaged; one line per score.

    Args:
        table: columns score, seeds (how many are averaged) and agreement; optionally low and high (an interval).

    Returns:
        the figure; its values are `table`. Raises FormatError if a column is missing.
    """
    need(table, ["score", "seeds", "agreement"])
    renamed = table.rename(columns={"agreement": "value"})
    figure, ax = _lines(renamed, "seeds", "score", xlabel="seeds averaged", ylabel="agreement of two groups")
    ax.axhline(ENOUGH, color=INK, lw=1, ls=":")
    ax.set_ylim(min(0, ax.get_ylim()[0]), 1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    text = f"Agreement of each score between two groups of seeds, by group size; dotted line: {ENOUGH}."
    return finish(figure, table, text, title=title, note=note)


def _lines(table: pd.DataFrame, x: str, by: str, **labels: str) -> tuple[Figure, Axes]:
    """Draw one line per value of `by`, shifted slightly if x holds names so that the intervals do not overlap."""
    need(table, [by, x, "value"])
    groups = list(table.groupby(by, sort=False))
    names = [] if pd.api.types.is_numeric_dtype(table[x]) else list(dict.fromkeys(table[x]))
    figure, ax = subplots(figsize=(WIDTH, 3.2))
    for k, (name, part) in enumerate(groups):
        at = part[x].map(names.index) + (k - (len(groups) - 1) / 2) * 0.05 if names else part[x]
        spread = np.array([part["value"] - part["low"], part["high"] - part["value"]]) if "low" in part else None
        look: dict[str, Any] = {"color": LINES[k % len(LINES)], "marker": MARKS[k % len(MARKS)], "ms": 5, "capsize": 2}
        ax.errorbar(at, part["value"], yerr=spread, label=str(name), lw=1.4, elinewidth=1, **look)
    if names:
        ax.set_xticks(range(len(names)), names)
    ax.set(**labels)
    ax.grid(axis="y")
    legend_below(figure, ax)
    return figure, ax


@style()
def data_map_plot(
    runs: Mapping[str, TrainingDynamics | pd.DataFrame],
    *,
    color: Literal["correctness", "soi"] = "correctness",
    early: float = 0.5,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw data maps side by side on shared axes: variability (x) against confidence (y).

    Args:
        runs: dynamics, or tables made by `data_map`, by the name of the panel.
        color: what the colour shows; "soi" also gives each category its own marker.
        early: as in `categorize`.

    Returns:
        the figure; its values are the drawn rows, an even sample of 4,000 per panel if there are more. Raises
        FormatError if there are no runs.
    """
    import seaborn as sns  # imports scipy.stats, which takes more than a second

    figure, axes = grid(len(runs), 3.0, 0.6)
    maps = {name: run if not isinstance(run, TrainingDynamics) else data_map(run, early) for name, run in runs.items()}
    rows = pd.concat([table.iloc[_sample(len(table))].assign(run=name) for name, table in maps.items()])
    rows = rows.assign(soi=[SOI(code).name for code in rows["soi"]]).reset_index(drop=True)
    look: dict[str, Any] = {"hue": "correctness", "palette": "cividis"}
    if color == "soi":
        look = {"hue": "soi", "hue_order": NAMES, "palette": {s.name: SOI_COLORS[s] for s in ORDER}}
        look |= {"style": "soi", "style_order": NAMES, "markers": {s.name: SOI_MARKERS[s] for s in ORDER}}
    right = max(0.3, float(rows["variability"].max()) * 1.14)
    meaning = "fraction of epochs with a correct prediction" if color == "correctness" else "category"
    for ax, name in zip(axes, maps, strict=True):
        part = rows[rows["run"] == name]
        sns.scatterplot(part, x="variability", y="confidence", s=16, lw=0, alpha=0.8, ax=ax, **look)
        ax.set(title=f"{name} (n = {len(maps[name]):,})", xlim=(-0.015, right), ylim=(-0.03, 1.03))
        ax.set(xlabel="variability of p(gold)", ylabel="confidence, mean p(gold)")
        for x, y, region in (
            (0.55, 0.97, "easy to learn"),
            (0.96, 0.5, "ambiguous"),
            (0.55, 0.03, "hard to learn"),
        ):
            box = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1}
            ax.text(x, y, region, transform=ax.transAxes, ha="center", va="center", fontsize=8.5, style="italic",
                    color=MUTED, bbox=box, rotation=90 if region == "ambiguous" else 0)  # fmt: skip
    head = meaning if color == "correctness" else ""
    legend_below(figure, axes[-1], ncols=6, handletextpad=0.1, columnspacing=0.8, title=head)
    thinned = [f"of {len(table):,} examples of {name}, {MOST_POINTS:,} are drawn"
               for name, table in maps.items() if len(table) > MOST_POINTS]  # fmt: skip
    cut = "; ".join(thinned)
    text = f"""Data maps of training examples: variability across epochs (x), confidence (y) and
        {meaning} (colour). Top left: easy to learn; right: ambiguous; bottom left: hard to learn.
        {cut[:1].upper()}{cut[1:]}"""
    return finish(figure, rows, text, title=title, note=note)


def _sample(n: int) -> np.ndarray:
    """Return the rows to draw: all, or an even sample; shuffled with a fixed seed so that no group lies on top."""
    rows = np.arange(n) if n <= MOST_POINTS else np.linspace(0, n - 1, MOST_POINTS).round().astype(int)
    return np.random.default_rng(0).permutation(rows)
