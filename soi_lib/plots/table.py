"""A DataFrame as a table that reads well on a page: nothing cut, numbers to the right, a caption below.

pandas' own HTML cuts texts at fifty characters and shows the index of rows that have no names.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ShownTable:
    """A table as HTML, and as plain text where there is no HTML."""

    markup: str
    text: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.text


def show_table(frame: pd.DataFrame, caption: str = "", *, digits: int = 3, index: bool | None = None) -> ShownTable:
    """Make `frame` ready for a notebook or page; floats get `digits` decimals, bools become yes and no.

    `index` shows the row names; by default where they are named. A caption says n, seeds and device.
    """
    import pandas as pd

    if index is None:
        index = any(name is not None for name in frame.index.names)
    table = frame.reset_index() if index else frame
    numeric = [pd.api.types.is_numeric_dtype(t) and not pd.api.types.is_bool_dtype(t) for t in table.dtypes]

    def cell(value: Any) -> str:
        if isinstance(value, bool) or type(value).__name__ == "bool":
            return "yes" if value else "no"
        if isinstance(value, float):
            return "" if value != value else f"{value:.{digits}f}"
        return str(value)

    def row(tag: str, values: list[str]) -> str:
        cells = (
            f'<{tag} class="num">{html.escape(v)}</{tag}>' if number else f"<{tag}>{html.escape(v)}</{tag}>"
            for v, number in zip(values, numeric, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head = [str(c) for c in table.columns]
    rows = [[cell(v) for v in values] for values in table.itertuples(index=False, name=None)]
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    markup = (
        f'<figure class="soi-table"><table class="dataframe"><thead>{row("th", head)}</thead>'
        f"<tbody>{''.join(row('td', r) for r in rows)}</tbody></table>{below}</figure>"
    )
    lines = ["\t".join(r) for r in [head, *rows]] + ([caption] if caption else [])
    return ShownTable(markup, "\n".join(lines))
