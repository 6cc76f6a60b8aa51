"""Moves between categories: heatmaps, and flow bands from one setting to the other.

Rows and columns are ordered from easy to hard, so examples below the diagonal became easier. Shades of grey show how
many examples move; colours and frames mark moves beyond chance, which can be detected only with at least three seeds
per setting. With fewer seeds, nothing is coloured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from soi_lib.analysis.transitions import as_frame, common_codes, mean_transition, noise_floor, transition_test
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import FormatError
from soi_lib.plots.style import (
    DOWN,
    INK,
    NAMES,
    ORDER,
    SOI_COLORS,
    SOI_HATCHES,
    UP,
    WIDTH,
    finish,
    grid,
    percent,
    span,
    style,
    subplots,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    Table = pd.DataFrame | npt.NDArray[Any]

Sides = tuple[str, str]
SIDES: Sides = ("alone", "together")
SEEDS = 3  # per setting, needed to call a move more than noise
FEW = 5  # examples; rows with fewer show no percentages
_GREYS = LinearSegmentedColormap.from_list("share", ["#FFFFFF", "#A8ADB3"])
_READING = "Rows: from; columns: to; examples below the diagonal became easier, above it harder."
_DASH = f"A dash marks rows with fewer than {FEW} examples."


@style()
def transition_heatmap(counts: pd.DataFrame, *, title: str = "", note: str = "", sides: Sides = SIDES) -> Figure:
    """Draw where the examples of each category went, in per cent of each row; row labels show the number of examples.

    Args:
        counts: 6x6, not normalised, as returned by `transition_matrix` or `mean_transition`.

    Returns:
        the figure; its values are the counts.
    """
    table = in_order(counts)
    figure, ax = subplots(figsize=(WIDTH * 0.8, 3.9))
    _rows(ax, table, sides)
    text = f"""Heatmap of the moves between categories from {sides[0]} to {sides[1]}, in % of each row. {_READING}
        {_DASH} Of {number(table.to_numpy().sum())} examples, {_summary(table)}. Moves are not tested against chance."""
    return finish(figure, table, text, title=title, note=note)


@dataclass(frozen=True)
class Moves:
    """The moves of examples from one setting to another, and between seeds of the first setting (the noise floor).

    transition, floor: 6x6 counts or shares, rows = from, columns = to, with the names of SOI (or arrays in the order of
    its codes). beyond: 6x6 bool, the moves beyond chance. n: examples. seeds: seeds per setting, the smaller number.
    """

    transition: Table
    floor: Table
    beyond: Table
    n: int
    seeds: int

    @classmethod
    def of(cls, single: Sequence[TrainingDynamics], multi: Sequence[TrainingDynamics]) -> Moves:
        """Compute the moves from `single` to `multi`: runs of the same seeds in the same order, at least two.

        Two seeds give a noise floor but no test (`transition_test` needs three).
        """
        seeds, codes = len(single), common_codes([*single, *multi])
        if seeds >= SEEDS:
            test = transition_test(codes[:seeds], codes[seeds:])
            return cls(test.transition, test.floor, test.beyond_chance(), test.n, seeds)
        pairs = [(a, b) for i, a in enumerate(single) for j, b in enumerate(multi) if i != j]
        return cls(mean_transition(pairs), noise_floor(single), np.zeros((6, 6)), codes.shape[1], seeds)

    def cells(self) -> pd.DataFrame:
        """Return one row per cell (36, easy to hard): from, to, floor and transition (shares of all), beyond (bool).

        beyond is False everywhere if a setting has fewer than three seeds.
        """
        import pandas as pd

        table = pd.DataFrame({name: self.table(name).stack() for name in ("floor", "transition", "beyond")})
        return table.reset_index()

    def table(self, column: Literal["floor", "transition", "beyond"]) -> pd.DataFrame:
        """Return one column of `cells` as a 6x6 table."""
        table = in_order(getattr(self, column)).rename_axis(index="from", columns="to")
        if column == "beyond":
            return table.astype(bool) & (self.seeds >= SEEDS)
        return table / table.to_numpy().sum()


@style()
def transition_beside_floor(moves: Moves, *, title: str = "", note: str = "", sides: Sides = SIDES) -> Figure:
    """Draw the moves between seeds of a setting (left) and from that setting to another (right) as heatmaps.

    Returns:
        the figure; its values are `moves.cells()`.
    """
    floor, transition = (moves.table(name) for name in ("floor", "transition"))
    figure, axes = subplots(1, 2, figsize=(WIDTH, 2.75), sharey=True)
    _rows(axes[0], floor * moves.n, (sides[0], "another seed"))
    axes[0].set_title("only the seed differs")
    _rows(axes[1], transition * moves.n, sides)
    _frames(axes[1], transition - floor, moves.table("beyond"))
    axes[1].set_title(f"{sides[0]} to {sides[1]}")
    axes[1].set_ylabel("")
    text = f"""Heatmaps of the moves between categories in % of each row, between seeds ({sides[0]}; noise floor) and
        from {sides[0]} to {sides[1]}. {_READING} {_DASH} {_evidence([moves])}"""
    return finish(figure, moves.cells(), text, title=title, note=note)


@style()
def transition_panels(panels: Mapping[str, Moves], *, title: str = "", note: str = "", sides: Sides = SIDES) -> Figure:
    """Draw the difference between each move and its noise floor in % of all examples, one panel per dataset or pair.

    Args:
        panels: a transition and its noise floor, by the name of the panel.

    Returns:
        the figure; its values are the `cells()` of all panels. Raises FormatError if there are no panels.
    """
    import pandas as pd

    figure, axes = grid(len(panels), 2.4, 0.5)
    for ax, (name, moves) in zip(axes, panels.items(), strict=True):
        shift = (moves.table("transition") - moves.table("floor")) * 100
        words = shift.map(lambda v: f"{v:+.{abs(v) < 9.95:d}f}".replace("-", "−") if abs(v) >= 0.05 else "")
        _cells(ax, np.zeros((6, 6)), words, NAMES)
        _frames(ax, shift, moves.table("beyond"))
        ax.set_title(name, fontsize=9)
    figure.supylabel(f"{sides[0]} (from)", fontsize=10)
    figure.supxlabel(f"{sides[1]} (to)", fontsize=10)
    text = f"""Heatmaps of how much more often each move happens from {sides[0]} to {sides[1]} than between two seeds
        ({sides[0]}), in % of all examples. {_READING} {_evidence(list(panels.values()))}"""
    cells = pd.concat([moves.cells().assign(panel=name) for name, moves in panels.items()], ignore_index=True)
    return finish(figure, cells, text, title=title, note=note)


@style()
def flow_plot(counts: pd.DataFrame, *, title: str = "", note: str = "", sides: Sides = SIDES) -> Figure:
    """Draw bands from the categories in one setting to those in the other; their width shows how many examples move.

    Args:
        counts: 6x6, not normalised, as returned by `transition_matrix` or `mean_transition`.

    Returns:
        the figure; its values are the counts.
    """
    table = in_order(counts)
    text = f"""Bands from the category of each example when trained {sides[0]} (left) to its category {sides[1]}
        (right). Of {number(table.to_numpy().sum())} examples, {_summary(table)}."""
    figure, ax = subplots(figsize=(WIDTH, 4.2))
    _flow(ax, table, sides)
    return finish(figure, table, text, title=title, note=note)


@style()
def flow_beside_floor(moves: Moves, *, title: str = "", note: str = "", sides: Sides = SIDES) -> Figure:
    """Draw the moves between two seeds of a setting (above) and from that setting to another (below) as bands.

    Args:
        moves: the transition and its noise floor, of one dataset or summed over several.

    Returns:
        the figure; its values are `moves.cells()`.
    """
    floor, transition = (moves.table(name) for name in ("floor", "transition"))
    figure, axes = subplots(2, 1, figsize=(WIDTH, 7.0))
    _flow(axes[0], floor, (f"{sides[0]}, one seed", f"{sides[0]}, another seed"))
    _flow(axes[1], transition, sides, moves.table("beyond"))
    text = f"""Bands from the category of each example in one training to its category in another: between two seeds
        ({sides[0]}, above) and from {sides[0]} to {sides[1]} (below). Between seeds, {_summary(floor)}; from {sides[0]}
        to {sides[1]}, {_summary(transition)}. {_count([moves])}, drawn in colour."""
    return finish(figure, moves.cells(), text, title=title, note=note)


def in_order(table: Table) -> pd.DataFrame:
    """Return a 6x6 table ordered from easy to hard. Raises FormatError if `table` is not 6x6."""
    import pandas as pd

    table = as_frame(table) if isinstance(table, np.ndarray) and table.shape == (6, 6) else pd.DataFrame(table)
    if table.shape != (6, 6) or set(table.index) != set(NAMES) or set(table.columns) != set(NAMES):
        raise FormatError("this is not a 6x6 table of categories", found=table.shape, hint="give a transition_matrix")
    return table.loc[NAMES, NAMES]


def _summary(table: pd.DataFrame) -> str:
    """Describe how many examples of a transition stay, become easier, or become harder."""
    counts = table.to_numpy(dtype=float)
    total = float(counts.sum())
    if total <= 0:
        raise FormatError("the transition contains no examples")
    parts = [np.diag(counts).sum(), np.tril(counts, -1).sum(), np.triu(counts, 1).sum()]
    stay, easier, harder = (percent(float(part) / total) for part in parts)
    return f"{stay} stay in their category, {easier} move to an easier one and {harder} to a harder one"


def _evidence(panels: Sequence[Moves]) -> str:
    """Describe the evidence behind the colours of a figure."""
    seeds = [moves.seeds for moves in panels]
    size = f"{span(moves.n for moves in panels)} examples, {span(seeds)} seeds"
    if min(seeds) < SEEDS:
        return f"Detecting moves beyond chance takes {SEEDS} seeds per setting; with fewer, nothing is framed ({size})."
    return f"{_count(panels)} ({size}): framed in blue if more examples move, in orange if fewer."


def _count(panels: Sequence[Moves]) -> str:
    found = sum(int(moves.table("beyond").to_numpy().sum()) for moves in panels)
    return f"{found or 'No'} move{' is' if found == 1 else 's are'} beyond chance"


def number(value: float) -> str:
    """Format a count, or a mean of counts with one decimal if it is small and not an integer."""
    return f"{value:,.0f}" if value >= 99.5 or float(value).is_integer() else f"{value:.1f}"


def _rows(ax: Axes, table: pd.DataFrame, sides: Sides) -> None:
    """Show per cent of each row in grey, with dashes for rows with too few examples."""
    totals = table.sum(axis=1)
    shares = table.div(totals.where(totals >= FEW), axis=0).astype(float)
    text = shares.map(lambda v: "–" if np.isnan(v) else f"{v * 100:.0f}")
    _cells(ax, shares.fillna(0).to_numpy(), text, [f"{name} ({number(n)})" for name, n in totals.items()])
    ax.set(ylabel=f"{sides[0]} (from)", xlabel=f"{sides[1]} (to)")


def _cells(ax: Axes, shares: np.ndarray, text: pd.DataFrame, rows: list[str]) -> None:
    """Draw one cell per share, darker for larger shares, with its text; `rows` are the names of the rows."""
    ax.pcolormesh(shares, cmap=_GREYS, norm=PowerNorm(0.6, 0, 1), linewidth=1, edgecolor="#E3E5E8")
    ax.set(xlim=(0, 6), ylim=(6, 0), aspect="equal")
    ax.spines[:].set_visible(False)
    for (i, j), words in np.ndenumerate(text.to_numpy()):
        ax.text(j + 0.5, i + 0.5, words, ha="center", va="center", fontsize=8, color=INK)
    ax.set_xticks(np.arange(6) + 0.5, NAMES, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(np.arange(6) + 0.5, rows, va="center", fontsize=8)
    ax.tick_params(length=0)


def _frames(ax: Axes, shift: pd.DataFrame, beyond: pd.DataFrame) -> None:
    """Frame the cells `beyond` chance, in blue if more examples move and in orange if fewer."""
    for i, j in zip(*np.nonzero(beyond.to_numpy()), strict=True):
        color = UP if shift.iloc[i, j] > 0 else DOWN
        ax.add_patch(Rectangle((j + 0.05, i + 0.05), 0.9, 0.9, fc=f"{color}33", lw=1.8, ec=color))


def _flow(ax: Axes, table: pd.DataFrame, sides: Sides, beyond: pd.DataFrame | None = None) -> None:
    """Draw one alluvial diagram; bands are grey, or in the colour of their category if they are `beyond` chance."""
    shares = table.to_numpy(dtype=float) / table.to_numpy(dtype=float).sum()
    tops = np.zeros((2, 6))  # where the next band begins
    for side, sums in enumerate((shares.sum(axis=1), shares.sum(axis=0))):
        y, label, align = 0.0, -1.0, ("right", "left")[side]
        for k, (soi, height) in enumerate(zip(ORDER, sums, strict=True)):
            look: dict[str, Any] = {"fc": SOI_COLORS[soi], "hatch": SOI_HATCHES[soi], "ec": "white", "lw": 0.5}
            ax.add_patch(Rectangle((side if side else -0.03, y), 0.03, height, **look))
            tops[side, k] = y
            label = max(label + 0.07, y + height / 2)  # keep the labels of small categories apart
            x = 1.045 if side else -0.045
            ax.text(x, label, f"{soi.name} {percent(height)}", va="center", ha=align, fontsize=9)
            y += max(height, 0.012) + 0.02
        ax.text(side, -0.04, sides[side], ha=align, va="bottom", fontweight="bold")
    for i, j in np.ndindex(shares.shape):
        if width := shares[i, j]:
            left, right = tops[0, i], tops[1, j]
            points = [(0, left), (0.5, left), (0.5, right), (1, right), (1, right + width), (0.5, right + width)]
            points += [(0.5, left + width), (0, left + width), (0, left)]
            curve = [Path.CURVE4] * 3
            band = Path(points, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])
            in_color = beyond is not None and beyond.iloc[i, j]
            look = {"fc": SOI_COLORS[ORDER[i]], "alpha": 0.8} if in_color else {"fc": "#9AA0A6", "alpha": 0.35}
            ax.add_patch(PathPatch(band, ec="none", **look))
            tops[0, i] += width
            tops[1, j] += width
    ax.set(xlim=(-0.34, 1.34), ylim=(1.2, -0.02))
    ax.axis("off")
