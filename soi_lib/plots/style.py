"""One look for all figures, and a caption that belongs to each of them.

Special about it: six colours that people with any colour vision can tell apart (after Okabe and Ito), each with a
hatch for grey print, in one fixed order from easy to hard; and every figure carries a caption computed from the data
that it shows, which can stand alone and describes the picture to those who do not see it.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from soi_lib.analysis.soi import SOI

ORDER = (SOI.ACE, SOI.ELE, SOI.LLE, SOI.FRGE_1, SOI.FRGE_2, SOI.UNE)  # from easy to hard, in every figure
NAMES = [soi.name for soi in ORDER]
LABELS = [soi.label for soi in ORDER]
SOI_COLORS = {
    SOI.ACE: "#0072B2",
    SOI.ELE: "#7FC4EE",
    SOI.LLE: "#009E73",
    SOI.FRGE_1: "#F0B429",
    SOI.FRGE_2: "#D55E00",
    SOI.UNE: "#3B3B3B",
}
SOI_HATCHES = {
    SOI.ACE: "",
    SOI.ELE: "",
    SOI.LLE: "....",
    SOI.FRGE_1: "////",
    SOI.FRGE_2: "xxxx",
    SOI.UNE: "",
}
WIDTH = 7.2  # inches; fills the book's column, and at a phone's width its text is still readable or it scrolls
MUTED = "#5F6368"

_RC: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9AA0A6",
    "axes.axisbelow": True,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.5,
    "xtick.color": "#3C4043",
    "ytick.color": "#3C4043",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "grid.color": "#E3E5E8",
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.hashsalt": "soi",
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for the duration of the block; nothing global changes."""
    before = set(plt.get_fignums())
    with plt.rc_context(_RC):
        try:
            yield
        except BaseException:  # a figure that was refused half-way is not shown by the next cell
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
            raise


def finish(figure: Figure, caption: str, *, wide: bool = False) -> Figure:
    """Attach the caption, and take the figure out of pyplot's hands so that a notebook shows it once."""
    plt.close(figure)
    figure.soi_caption, figure.soi_wide = " ".join(caption.split()), wide  # type: ignore[attr-defined]
    return figure


def caption(figure: Any) -> str:
    """The caption of a figure of this room (static or interactive); its first sentence says what is drawn."""
    if isinstance(figure, Figure):
        return str(getattr(figure, "soi_caption", ""))
    return str((figure.layout.meta or {}).get("caption", ""))


@dataclass(frozen=True)
class Shown:
    """A figure as one piece of HTML: the picture inside, its description in `alt`, its caption below."""

    markup: str
    text: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return f"[figure] {self.text}"


def show(figure: Figure, *, dpi: int = 200) -> Shown:
    """Make a static figure ready for a notebook or page: `<figure>` with an embedded PNG, alt text and caption."""
    text = caption(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    picture = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)  # a third of the bytes
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = round(figure.get_figwidth() * 100)
    kind = "soi-figure wide" if getattr(figure, "soi_wide", False) else "soi-figure"
    return Shown(
        f'<figure class="{kind}"><img src="data:image/png;base64,{data}" alt="{html.escape(first_sentence(text))}" '
        f'width="{width}"><figcaption>{html.escape(text)}</figcaption></figure>',
        text,
    )


def first_sentence(text: str) -> str:
    """The text up to its first full stop that is followed by a space."""
    head, dot, _ = text.partition(". ")
    return head + "." if dot else text


def ink(color: str) -> str:
    """Black or white, whichever is easier to read on `color` (relative luminance of WCAG 2)."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return "black" if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 else "white"


def percent(share: float) -> str:
    """A share for reading: `42 %`, and `<1 %` rather than a 0 that is none."""
    if 0 < share < 0.005:
        return "<1 %"
    return f"{share * 100:.0f} %"


def listing(items: list[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def sentence(note: str) -> str:
    """A note as the last sentence of a caption, or nothing."""
    note = note.strip()
    return f" {note}{'' if note.endswith('.') else '.'}" if note else ""
