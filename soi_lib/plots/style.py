"""The common style of all figures, and the caption and values attached to each of them.

The six categories have colours that can be told apart with any colour vision (after Okabe and Ito), a hatch for grey
print, and a fixed order from easy to hard. Elsewhere, colour marks evidence: an interval that excludes zero, or a move
beyond chance. The width of the figures is readable both on a phone and in print.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt  # notebooks display figures once it is imported
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from soi_lib.analysis.soi import SOI
from soi_lib.errors import FormatError

if TYPE_CHECKING:
    import pandas as pd

_CATEGORIES = {  # colour, colour of text on it, hatch, marker; from easy to hard in every figure
    SOI.ACE: ("#0072B2", "white", "", "o"),
    SOI.ELE: ("#7FC4EE", "black", "", "o"),
    SOI.LLE: ("#009E73", "black", "....", "s"),
    SOI.FRGE_1: ("#F0B429", "black", "////", "^"),
    SOI.FRGE_2: ("#D55E00", "black", "xxxx", "D"),
    SOI.UNE: ("#3B3B3B", "white", "", "X"),
}
ORDER = tuple(_CATEGORIES)
NAMES = [soi.name for soi in ORDER]
LONG_NAMES = {soi: f"{soi.name} {soi.description.partition(':')[0]}" for soi in ORDER}  # for legends
SOI_COLORS = {soi: look[0] for soi, look in _CATEGORIES.items()}
SOI_INKS = {soi: look[1] for soi, look in _CATEGORIES.items()}
SOI_HATCHES = {soi: look[2] for soi, look in _CATEGORIES.items()}
SOI_MARKERS = {soi: look[3] for soi, look in _CATEGORIES.items()}
UP, DOWN, OPEN, INK, MUTED = "#0072B2", "#D55E00", "#5F6368", "#202124", "#5F6368"
WIDTH = 5.2  # inches: on a phone 390 pixels wide, 10 points are still 9 pixels high

_RC: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9AA0A6",
    "axes.axisbelow": True,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "xtick.color": "#3C4043",
    "ytick.color": "#3C4043",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.title_fontsize": 9.0,
    "grid.color": "#E3E5E8",
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of all figures in a block or a decorated function, without changing global settings."""
    with plt.rc_context(_RC):
        yield


def subplots(rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **look: Any) -> tuple[Figure, Any]:
    """Like `pyplot.subplots`, but unknown to pyplot, so that a notebook shows a figure only where it is returned."""
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **look)


def finish(figure: Figure, values: pd.DataFrame, caption: str, *, title: str = "", note: str = "") -> Figure:
    """Attach values and caption to a figure, and add its title."""
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    first, dot, rest = " ".join(caption.split()).partition(". ")
    parts = [first + dot.rstrip(), title and f"{title}.", rest, note and f"{note.removesuffix('.')}."]
    figure.soi_caption = " ".join(part for part in parts if part)  # type: ignore[attr-defined]
    figure.soi_values = values  # type: ignore[attr-defined]
    return figure


def caption(figure: Figure) -> str:
    """Return the caption of a figure; its first sentence says what is drawn."""
    return str(getattr(figure, "soi_caption", ""))


def values(figure: Figure) -> pd.DataFrame:
    """Return the data that a figure shows: a table with one row per bar, point or cell."""
    return figure.soi_values  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Shown:
    """A figure or table as HTML, with plain text as a fallback and its values as CSV."""

    markup: str
    text: str
    csv: str = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        """Return HTML and text for a notebook, with the values in the output's metadata."""
        return {"text/html": self.markup, "text/plain": self.text}, {"soi": {"csv": self.csv}}

    def __html__(self) -> str:  # Jinja does not escape it
        return self.markup

    def __repr__(self) -> str:
        return self.text


def show(figure: Figure, *, dpi: int = 200) -> Shown:
    """Prepare a figure for a notebook or page: `<figure>` with an embedded PNG, alternative text and caption."""
    text = caption(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pil_kwargs={"compress_level": 0})
    picture = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)  # a third of the bytes
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = round(figure.get_figwidth() * 120)  # CSS pixels
    return Shown(
        f'<figure class="soi-figure"><img src="data:image/png;base64,{data}" alt="{html.escape(first_sentence(text))}" '
        f'width="{width}"><figcaption>{html.escape(text)}</figcaption></figure>',
        f"[figure] {text}",
        _csv(values(figure)),
    )


def show_table(frame: pd.DataFrame, caption: str = "", *, digits: int = 3) -> Shown:
    """Prepare a table for a notebook or page: complete, with numbers aligned right and a caption below.

    Args:
        frame: any table; floats get `digits` decimals, bools are yes or no; named row names are shown.
        caption: the text below, with n, seeds and device.
        digits: decimals of floats.
    """
    import pandas as pd

    table = frame.reset_index() if any(name is not None for name in frame.index.names) else frame
    numeric = [pd.api.types.is_numeric_dtype(t) and not pd.api.types.is_bool_dtype(t) for t in table.dtypes]

    def cell(value: Any) -> str:
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "no"
        if isinstance(value, float):
            return "" if value != value else f"{value:.{digits}f}"
        return str(value)

    def row(tag: str, values: list[str]) -> str:
        starts = [f'<{tag} class="num">' if number else f"<{tag}>" for number in numeric]
        cells = [f"{start}{html.escape(value)}</{tag}>" for start, value in zip(starts, values, strict=True)]
        return f"<tr>{''.join(cells)}</tr>"

    head = [str(c) for c in table.columns]
    rows = [[cell(v) for v in values] for values in table.itertuples(index=False, name=None)]
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    markup = (
        f'<figure class="soi-table"><table class="dataframe"><thead>{row("th", head)}</thead>'
        f"<tbody>{''.join(row('td', r) for r in rows)}</tbody></table>{below}</figure>"
    )
    text = "\n".join(["\t".join(r) for r in [head, *rows]] + ([caption] if caption else []))
    return Shown(markup, text, _csv(table.reset_index(drop=True)))


def _csv(table: pd.DataFrame) -> str:
    """Return a table as CSV, with the index unless it is a plain range; floats get six significant digits."""
    import pandas as pd

    named = not isinstance(table.index, pd.RangeIndex)
    return str(table.to_csv(index=named, float_format="%.6g", lineterminator="\n"))


def grid(n: int, height: float, below: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of `n` panels with common axes, two side by side; heights (of a row, and below) in inches.

    Raises FormatError if `n` is 0.
    """
    if not n:
        raise FormatError("there is nothing to draw", found="no panels", expected="at least one")
    rows, columns = -(-n // 2), min(2, n)
    size = (WIDTH, height * rows + below)
    figure, axes = subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for k, ax in enumerate(axes.flat):
        if k >= n:
            ax.axis("off")
        elif k >= n - columns:  # the lowest in its column, even if the last row is not full
            ax.tick_params(labelbottom=True)
    return figure, list(axes.flat[:n])


def legend_below(figure: Figure, ax: Axes, **look: Any) -> None:
    """Add the legend of one panel below the figure, and remove those in the panels."""
    known = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    known = {name: handle for name, handle in known.items() if name not in ("setting", "split")}  # seaborn's titles
    for legend in figure.findobj(Legend):
        legend.remove()
    ncols = min(len(known), 2 if max(map(len, known)) > 16 else 4)
    figure.legend(list(known.values()), list(known), loc="outside lower center", **{"ncols": ncols, **look})


def need(table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise FormatError unless `table` has rows and all of `columns`."""
    missing = sorted(set(columns) - set(table.columns))
    if missing or table.empty:
        found = f"no column {', '.join(missing)}" if missing else "no rows"
        raise FormatError("there is nothing to draw", found=found, expected=f"a table with {', '.join(columns)}")


def first_sentence(text: str) -> str:
    """Return the text up to the first full stop followed by a space."""
    head, dot, _ = text.partition(". ")
    return head + "." if dot else text


def percent(share: float) -> str:
    """Format a share: `42 %`, and `<1 %` for small shares above zero."""
    if 0 < share < 0.005:
        return "<1 %"
    return f"{share * 100:.0f} %"


def span(counts: Iterable[int]) -> str:
    """Format counts: `1,000`, or `500 to 1,000` if they differ."""
    known = sorted(counts)
    return " to ".join(f"{count:,}" for count in dict.fromkeys((known[0], known[-1])))
