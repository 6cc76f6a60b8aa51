"""Shares and scores as bars: SOI by setting, the story of all members at once, accuracies with their references.

Special about it: every bar is a row of a table that the caller has anyway, and bars of one member stand together.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from soi_lib.analysis.soi import SOI
from soi_lib.errors import FormatError
from soi_lib.plots.style import (
    MUTED,
    NAMES,
    ORDER,
    SOI_COLORS,
    SOI_HATCHES,
    WIDTH,
    finish,
    ink,
    percent,
    sentence,
    style,
)

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "#D55E00"
_HALO = [withStroke(linewidth=3.6, foreground="white")]  # a reference mark must be seen on a dark bar
_TITLES = {"task": "Tasks", "source": "Sources", "lingual": "Languages"}
TROUBLE = ("FRGE_1", "FRGE_2", "UNE")  # forgotten or never learned


def soi_bars(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Stacked bars of the six shares, a bar per row of `table`.

    `table` has the SOI names as columns, counts or shares in them, and as index the setting, or (member, setting): a
    member's bars then stand together under its name. `note` (profile, seeds, device) ends the caption. Raises
    FormatError when a column is missing or a row is empty.
    """
    shares, n = _shares(table)
    groups = _groups(shares)
    rows = len(shares)
    headed = any(name for name, _ in groups)
    with style():
        height = 0.36 * rows + (0.34 * len(groups) if headed else 0) + 1.25
        figure, ax = plt.subplots(figsize=(WIDTH * 0.92, height), layout="constrained")
        places, labels = _stack(ax, groups, headed)
        if n is not None and len(set(n)) > 1:  # else the caption says it once
            labels = [f"{label}\nn = {size:,}" for label, size in zip(labels, n, strict=True)]
        ax.set_yticks(places, labels)
        _share_axis(ax)
        _soi_legend(figure)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    text = f"""Stacked bars of the shares of training examples in the six categories, by setting.
        {f"{title}. " if title else ""}{_shares_told(shares)} {_sizes_told(n)}"""
    return finish(figure, text + sentence(note))


def story_figure(tables: Mapping[str, pd.DataFrame], *, note: str = "") -> Figure:
    """The landing page's figure: SOI shares of every member, alone and together, for all comparisons.

    `tables` maps a comparison's title to a table as `soi_bars` takes it, indexed by (member, setting) with two rows a
    member, the first alone and the second together. Beside each pair stands how the share of examples that were
    forgotten or never learned changes. Raises FormatError for a table of another form.
    """
    with style():
        frames = {name: _shares(table) for name, table in tables.items()}
        pairs = {name: _groups(shares) for name, (shares, _) in frames.items()}
        lengths = [len(groups) for groups in pairs.values()]
        figure, axes = plt.subplots(
            len(frames),
            1,
            figsize=(WIDTH, 0.74 * sum(lengths) + 0.45 * len(lengths) + 0.9),
            height_ratios=[m + 0.25 for m in lengths],
            layout="constrained",
            squeeze=False,
        )
        moves: list[tuple[str, float, float]] = []
        for (name, groups), ax in zip(pairs.items(), axes[:, 0], strict=True):
            places: list[float] = []
            labels: list[str] = []
            for g, (member, rows) in enumerate(groups):
                if len(rows) != 2:
                    found = f"{len(rows)} rows for {member}"
                    raise FormatError("the story takes two settings a member", found=found, expected="alone, together")
                base = g * 1.25
                _bar(ax, base, rows.iloc[0], 0.46)
                _bar(ax, base + 0.5, rows.iloc[1], 0.46)
                before, after = (float(rows.iloc[i][list(TROUBLE)].sum()) for i in (0, 1))
                moves.append((member, before, after))
                change = round(after * 100) - round(before * 100)  # of the numbers as they are shown
                color = "#1B7F4B" if change < 0 else "#B3261E" if change > 0 else MUTED
                arrow = f"{before * 100:.0f} → {after * 100:.0f} %"
                ax.text(1.02, base + 0.25, arrow, color=color, fontweight="bold", fontsize=9.5, va="center")
                places += [base, base + 0.5]
                labels += [f"{member}  alone", "together"]
            ax.set_yticks(places, labels)
            _share_axis(ax, last=ax is axes[-1, 0])
            ax.set_ylim((len(groups) - 1) * 1.25 + 0.85, -0.35)
            ax.set_title(_TITLES.get(name, name))
        axes[0, 0].text(
            1.02, 1.0, "forgotten or\nunlearned", transform=axes[0, 0].transAxes, fontsize=8.5, color=MUTED, va="bottom"
        )
        _soi_legend(figure)
    fewer = sum(round(after * 100) < round(before * 100) for _, before, after in moves)
    told = [f"{m} {percent(b)} alone and {percent(a)} together" for m, b, a in moves]
    sizes = [size for _, n in frames.values() for size in (n or [])]
    text = f"""Stacked bars of the shares of training examples in the six categories, for every member trained alone and
        together with the others of its comparison. Forgotten at least once or never learned: {"; ".join(told)}; fewer
        when trained together in {fewer} of {len(moves)} members (green; red: more).
        {_sizes_told(sizes)}"""
    return finish(figure, text + sentence(note))


def accuracy_bars(table: pd.DataFrame, *, title: str = "", note: str = "") -> Figure:
    """Accuracy by member and setting on the test and the OOD split, with the majority class and bag of words as marks.

    `table`: a row per bar with columns member, setting, split ("test" or "ood"), accuracy; optional: low and high (an
    interval), majority and bag_of_words (reference accuracies of that member and split), n. Raises FormatError.
    """
    missing = {"member", "setting", "split", "accuracy"} - set(table.columns)
    if missing:
        raise FormatError("the table of accuracies lacks columns", found=sorted(missing))
    splits = [s for s in ("test", "ood") if (table["split"] == s).any()]
    records: list[dict[str, Any]] = [{str(k): v for k, v in r.items()} for r in table.to_dict("records")]
    rows = list(dict.fromkeys((r["member"], r["setting"]) for r in records))
    members = list(dict.fromkeys(m for m, _ in rows))
    places: dict[tuple[Any, Any], float] = {}
    y = 0.0
    for member in members:
        for key in (r for r in rows if r[0] == member):
            places[key] = y
            y += 1.0
        y += 0.95
    cells = {(r["member"], r["setting"], r["split"]): r for r in records}
    with style():
        figure, axes = plt.subplots(
            1,
            len(splits),
            figsize=(WIDTH, 0.27 * y + 1.2),
            sharey=True,
            sharex=True,
            layout="constrained",
            squeeze=False,
        )
        for split, ax in zip(splits, axes[0], strict=True):
            for (member, setting), place in places.items():
                cell = cells.get((member, setting, split))
                if cell is None:
                    continue
                value = float(cell["accuracy"])
                alone = next(s for m, s in rows if m == member) == setting
                color = "#9DB7D5" if alone else "#2B5C8A"
                ax.barh(place, value, height=0.72, color=color, gid=f"{member}|{setting}|{split}")
                if np.isfinite(cell.get("low", np.nan)):
                    spread = [[value - cell["low"]], [cell["high"] - value]]
                    ax.errorbar(value, place, xerr=spread, color="#202124", capsize=2.5, lw=1)
                ax.text(1.14, place, f"{value:.2f}", ha="right", va="center", fontsize=8.5)
                for field, look in (("majority", "-"), ("bag_of_words", (0, (1, 0.7)))):
                    mark = cell.get(field, np.nan)
                    if np.isfinite(mark):
                        ax.plot(
                            [mark] * 2,
                            [place - 0.46, place + 0.46],
                            ls=look,
                            color=REFERENCE,
                            lw=1.8,
                            zorder=3,
                            path_effects=_HALO,
                        )
            ax.set_title("test" if split == "test" else "out of distribution (OOD)")
            ax.set_xlabel("accuracy")
            ax.set_xlim(0, 1.15)
            ax.set_xticks(np.linspace(0, 1, 5), ["0", ".25", ".5", ".75", "1"])
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
        ax = axes[0, 0]
        ax.set_yticks(list(places.values()), [str(setting) for _, setting in places])
        ax.set_ylim(y - 1.45, -1.15)
        for member in members:
            top = min(p for (m, _), p in places.items() if m == member)
            ax.text(0.0, top - 0.72, str(member), ha="left", va="center", fontweight="bold", fontsize=9)
        marks: list[Any] = [Patch(color="#9DB7D5", label="alone"), Patch(color="#2B5C8A", label="with others")]
        marks += [
            Line2D([], [], color=REFERENCE, ls=look, lw=1.8, label=name)
            for field, look, name in (
                ("majority", "-", "majority class"),
                ("bag_of_words", (0, (1, 0.7)), "bag of words"),
            )
            if field in table and table[field].notna().any()
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=4)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    told = []
    for split in splits:
        part = table[table["split"] == split].sort_values("accuracy", kind="stable")
        low, high = (part.iloc[i][["member", "setting", "accuracy"]] for i in (0, -1))
        name = "the test split" if split == "test" else "out-of-distribution (OOD) examples"
        told.append(
            f"on {name} from {low.accuracy:.2f} ({low.member}, {low.setting}) to {high.accuracy:.2f} "
            f"({high.member}, {high.setting})"
        )
    whiskers = " Whiskers are 95 % intervals." if "low" in table and table["low"].notna().any() else ""
    text = f"Bars of the accuracy of every member in every setting, {'; '.join(told)}.{whiskers}"
    text += f" {title}." if title else ""
    return finish(figure, text + _baseline_text(table) + sentence(note), wide=True)


def _shares_told(shares: pd.DataFrame) -> str:
    """The shares in words: each bar when there are few, else the range of each group of categories."""
    if len(shares) <= 3:
        told = []
        for key, row in shares.iterrows():
            largest = row.sort_values(ascending=False, kind="stable")
            parts = [f"{SOI[str(name)].label} {percent(value)}" for name, value in largest.items() if value >= 0.03]
            told.append(f"{_name(key)}: {', '.join(parts)}")
        return "; ".join(told) + "."
    told = []
    for what, names in (("always correct", ["ACE"]), ("forgotten at least once or never learned", list(TROUBLE))):
        value = shares[names].sum(axis=1)
        low, high = int(value.to_numpy().argmin()), int(value.to_numpy().argmax())
        ends = [f"{percent(value.iloc[i])} ({_name(shares.index[i])})" for i in (low, high)]
        told.append(f"{what}: {ends[0]} to {ends[1]}")
    return ". ".join(t[0].upper() + t[1:] for t in told) + "."


def _sizes_told(n: list[int] | None) -> str:
    if not n:
        return ""
    return f"Each bar is {min(n):,}{f' to {max(n):,}' if max(n) > min(n) else ''} training examples."


def _baseline_text(table: pd.DataFrame) -> str:
    """Which bars do not beat their references, in words."""
    told = []
    for field, name in (("majority", "the majority class"), ("bag_of_words", "bag of words")):
        if field not in table:
            continue
        for split in dict.fromkeys(table["split"].tolist()):
            part = table[table["split"] == split]
            low = part[part["accuracy"] <= part[field]]["member"].tolist()
            every = part["member"].tolist()
            members = [f"{m} ({low.count(m)} of {every.count(m)} settings)" for m in dict.fromkeys(low)]
            if members:
                told.append(f"Not above {name} on {'OOD' if split == 'ood' else split}: {', '.join(members)}.")
    if told:
        return " " + " ".join(told)
    return " All are above their references." if {"majority", "bag_of_words"} & set(table.columns) else ""


def _shares(table: pd.DataFrame) -> tuple[pd.DataFrame, list[int] | None]:
    """Shares in the figures' order, and the row totals when the table held counts."""
    missing = set(NAMES) - set(table.columns)
    if missing or not len(table):
        raise FormatError(
            "the table of categories is not complete", found=f"missing {sorted(missing)}, {len(table)} rows"
        )
    values = table[NAMES].astype(float)
    totals = values.sum(axis=1)
    if not (totals > 0).all() or (values.to_numpy() < 0).any():
        raise FormatError("a row of the table of categories is empty or negative", found=str(totals.idxmin()))
    counts = not np.allclose(totals, 1, atol=0.01)  # shares may have been rounded
    return values.div(totals, axis=0), [round(t) for t in totals] if counts else None


def _groups(shares: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if shares.index.nlevels == 1:
        return [("", shares)]
    return [(str(name), rows) for name, rows in shares.groupby(level=0, sort=False)]


def _name(key: Hashable) -> str:
    return f"{key[0]}, {key[-1]}" if isinstance(key, tuple) else str(key)


def _bar(ax: Axes, place: float, row: pd.Series, height: float) -> None:
    """One stacked bar with the shares written into the segments that have room."""
    left = 0.0
    for soi in ORDER:
        share = float(row[soi.name])
        ax.barh(
            place,
            share,
            left=left,
            height=height,
            color=SOI_COLORS[soi],
            hatch=SOI_HATCHES[soi],
            edgecolor="white",
            lw=0.5,
        )
        if share >= 0.055:
            box = {"facecolor": SOI_COLORS[soi], "edgecolor": "none", "pad": 1.4}
            color = ink(SOI_COLORS[soi])
            ax.text(
                left + share / 2,
                place,
                f"{share * 100:.0f}",
                color=color,
                ha="center",
                va="center",
                fontsize=8.5,
                bbox=box,
            )
        left += share


def _stack(ax: Axes, groups: list[tuple[str, pd.DataFrame]], headed: bool) -> tuple[list[float], list[str]]:
    places: list[float] = []
    labels: list[str] = []
    y = 0.0
    for name, rows in groups:
        if headed:
            ax.text(0, y - 0.1, name, fontweight="bold", va="center", fontsize=9.5)
            y += 0.75
        for key, row in rows.iterrows():
            _bar(ax, y, row, 0.8)
            places.append(y)
            labels.append(str(key[-1] if isinstance(key, tuple) else key))
            y += 1.0
        y += 0.2 if headed else 0
    ax.set_ylim(y - 0.4, -0.55)
    return places, labels


def _share_axis(ax: Axes, last: bool = True) -> None:
    ax.set_xlim(0, 1)
    ax.set_xticks([])
    if last:
        ax.set_xticks(np.linspace(0, 1, 5), ["0", "25", "50", "75", "100"])
        ax.set_xlabel("share of training examples (%)")
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def _soi_legend(figure: Figure) -> None:
    handles = [Patch(facecolor=SOI_COLORS[s], hatch=SOI_HATCHES[s], edgecolor="white", label=s.label) for s in ORDER]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, handlelength=1.4, columnspacing=1.2)
