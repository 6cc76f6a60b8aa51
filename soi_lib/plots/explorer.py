"""Figures to explore: a data map that filters by category and shows every example, and a flow of examples.

Special about it: one file and no server. Everything is in the page; plotly.min.js comes from a path that the caller
gives (a copy out of the installed package), so that pages work from file:// and load nothing from elsewhere. The
filters are two dozen lines of script on top of a plain plotly figure.
"""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from soi_lib import atomic
from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI, history_string
from soi_lib.dynamics import TrainingDynamics, align
from soi_lib.errors import FormatError
from soi_lib.plots.style import LABELS, ORDER, SOI_COLORS, caption, sentence
from soi_lib.plots.transitions import SIDES, in_order, moves_told

if TYPE_CHECKING:
    import pandas as pd

PLOTLY_JS = "../_static/plotly.min.js"
_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", "size": 13}
_LONGEST = 300  # characters of a text in a hover box


def interactive_map(
    single: TrainingDynamics,
    multi: TrainingDynamics | None,
    texts: Mapping[Any, str] | None = None,
    *,
    early: float = 0.5,
    title: str = "",
    note: str = "",
    sides: tuple[str, ...] = SIDES,
) -> go.Figure:
    """A data map of the examples that two runs share, or of one run; `interactive_html` adds its filters.

    Hovering shows the text (`texts` by id; the id where there is none), both histories as small squares, and both
    categories. Points lie where the first run puts them; the page can switch to the second. Raises AlignmentError.
    """
    runs = (single,) if multi is None else align(single, multi)
    a, sides = runs[0], sides[: len(runs)]
    maps = [data_map(run, early) for run in runs]
    names = a.meta.label_names
    codes: list[list[int]] = [m["soi"].astype(int).tolist() for m in maps]
    rows = []
    for i, key in enumerate(a.ids.tolist()):
        gold = names[a.gold[i]] if names else str(a.gold[i])
        squares = [history_string(run.history[i], run.epochs) for run in runs]
        labels = [SOI(code[i]).label for code in codes]
        rows.append([_wrapped((texts or {}).get(key, str(key))), _plain(gold), *squares, *labels])
    place = [[_rounded(m["variability"]), _rounded(m["confidence"])] for m in maps]
    told = [
        f"<br>{_plain(side)}: %{{customdata[{k + 2}]}} %{{customdata[{k + 2 + len(sides)}]}}"
        for k, side in enumerate(sides)
    ]
    hover = f"%{{customdata[0]}}<br><br>gold: %{{customdata[1]}}{''.join(told)}<extra></extra>"
    figure = go.Figure(
        go.Scatter(
            x=place[0][0],
            y=place[0][1],
            mode="markers",
            customdata=rows,
            hovertemplate=hover,
            marker={"size": 7, "opacity": 0.8, "color": [SOI_COLORS[SOI(c)] for c in codes[0]], "line": {"width": 0}},
            showlegend=False,
        )
    )
    for soi in ORDER:  # the legend: plotly draws one for traces only
        look = {"size": 9, "color": SOI_COLORS[soi]}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=soi.label, marker=look, hoverinfo="skip"))
    top = max(max(x) for x, _ in place)
    categories = f"categories {' and '.join(sides)}" if len(sides) > 1 else "category"
    text = f"""Interactive data map of {len(a):,} training examples: variability across epochs (x), confidence (y) and
        category (colour); hover for the text, the history and the {categories}.
        {title + "." if title else ""}{sentence(note)}"""
    figure.update_layout(
        title={"text": _plain(title), "x": 0.01, "font": {"size": 16}} if title else None,
        xaxis={"title": "variability of p(gold)", "range": [-0.015, max(0.3, top * 1.08)], "zeroline": False},
        yaxis={"title": "confidence, mean p(gold)", "range": [-0.03, 1.03], "zeroline": False},
        legend={"orientation": "h", "y": -0.2, "x": 0, "itemclick": False, "itemdoubleclick": False},
        meta={"caption": " ".join(text.split()), "soi": {"place": place, "codes": codes, "sides": list(sides)}},
        margin={"l": 55, "r": 10, "t": 45 if title else 10, "b": 40},
        height=520,
        hovermode="closest",
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"size": 13, "color": "#202124"}},
        template="plotly_white",
        font=_FONT,
        dragmode="pan",
    )
    return figure


def flow_sankey(counts: pd.DataFrame, *, title: str = "", note: str = "", sides: tuple[str, str] = SIDES) -> go.Figure:
    """A flow of examples from their categories in one setting to those in the other; `flow_plot` is its static twin."""
    table = in_order(counts)
    values = table.to_numpy(dtype=float)
    rows, columns = np.nonzero(values)
    colors = [SOI_COLORS[soi] for soi in ORDER]
    nodes = [f"{label} {side}" for side in sides for label in LABELS]
    places = _node_places(values.sum(axis=1)) + _node_places(values.sum(axis=0))
    # a node without flow is left out by plotly, and its place would go to the next one
    used = np.flatnonzero(np.concatenate([values.sum(axis=1), values.sum(axis=0)]))
    number = np.full(2 * len(ORDER), -1)
    number[used] = np.arange(len(used))
    text = f"Flow of examples from their category {sides[0]} (left) to their category {sides[1]} (right)."
    text += (f" {title}." if title else "") + f" {moves_told(table)}{sentence(note)}"
    figure = go.Figure(
        go.Sankey(
            arrangement="fixed",
            node={
                "label": [_plain(nodes[k]) for k in used],
                "color": [(colors * 2)[k] for k in used],
                "pad": 22,
                "thickness": 14,
                "x": [0.001 if k < len(ORDER) else 0.999 for k in used],
                "y": [places[k] for k in used],
                "hovertemplate": "%{label}: %{value:,} examples<extra></extra>",
            },
            link={
                "source": number[rows].tolist(),
                "target": number[columns + len(ORDER)].tolist(),
                "value": values[rows, columns].tolist(),
                "color": [_faded(colors[i], 0.3 if i == j else 0.6) for i, j in zip(rows, columns, strict=True)],
                "hovertemplate": "%{source.label} to %{target.label}: %{value:,} examples<extra></extra>",
            },
        )
    )
    figure.update_layout(
        title={"text": _plain(title), "x": 0.01, "font": {"size": 16}} if title else None,
        meta={"caption": text},
        margin={"l": 10, "r": 10, "t": 45 if title else 10, "b": 20},
        height=480,
        font={**_FONT, "size": 12},
    )
    return figure


def interactive_html(figure: go.Figure, *, name: str, plotly_js: str | None = PLOTLY_JS) -> str:
    """An HTML fragment with the figure, its filters (a data map has them) and its caption, for a page of the book.

    `name` is unique on the page (letters, digits, dashes) and makes the output the same every time; `plotly_js` is the
    path of plotly.min.js as the page sees it, None where the page has the script inside.
    """
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise FormatError("the name of a figure is no plain word", found=name, expected="letters, digits and dashes")
    text = caption(figure)
    state = dict(figure.layout.meta or {}).get("soi")
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=plotly_js or False,
        div_id=f"soi-{name}",
        config={"responsive": True, "displaylogo": False, "scrollZoom": False, "modeBarButtonsToRemove": ["lasso2d"]},
    )
    controls = _controls(name, state) if state else ""
    return (
        f'<figure class="soi-figure soi-interactive" role="group" aria-label="{html.escape(text)}">{controls}{body}'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
    )


def write_page(
    figure: go.Figure, path: Path, *, name: str = "figure", title: str = "", plotly_js: str = PLOTLY_JS
) -> None:
    """A page of its own that opens without a server; the same arguments as `interactive_html`."""
    heading = f"<h1>{html.escape(title)}</h1>" if title else ""
    atomic.write_text(
        path,
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title or name)}</title><style>{_PAGE}</style></head>"
        f"<body>{heading}{interactive_html(figure, name=name, plotly_js=plotly_js)}</body></html>\n",
    )


def write_plotly_js(path: Path) -> None:
    """Copy plotly.min.js out of the installed package, to lie beside the pages that use it."""
    from plotly.offline import get_plotlyjs

    atomic.write_text(path, get_plotlyjs())


_PAGE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 .75rem;color:#202124}
h1{font-size:1.4rem}figure{margin:0}figcaption{font-size:.9rem;color:#5f6368}"""

_STYLE = """<style>.soi-controls{display:flex;flex-wrap:wrap;gap:.4rem 1rem;align-items:center;margin:.2rem 0 .6rem;
font-size:.92rem}.soi-controls label{display:flex;gap:.4rem;align-items:center}
.soi-controls label[hidden]{display:none}.soi-controls select{font:inherit;
padding:.15rem .3rem;max-width:12rem}.soi-controls output{font-weight:600}</style>"""

_SCRIPT = """<script>(function(){
const name=%(name)s,box=document.getElementById('soi-'+name+'-controls'),state=%(state)s,colors=%(colors)s;
const pick=k=>box.querySelector('[data-pick="'+k+'"]').value;
let all=null;
function draw(){
  const plot=document.getElementById('soi-'+name);
  if(!window.Plotly||!plot||!plot.data){return setTimeout(draw,60);}
  if(!all){all=plot.data[0].customdata;}
  const at=+pick('place'),want=state.sides.map((s,k)=>pick('soi-'+k)),keep=[];
  for(let i=0;i<all.length;i++){
    if(want.every((w,k)=>w===''||state.codes[k][i]===+w)){keep.push(i);}
  }
  Plotly.restyle(plot,{x:[keep.map(i=>state.place[at][0][i])],y:[keep.map(i=>state.place[at][1][i])],
    customdata:[keep.map(i=>all[i])],'marker.color':[keep.map(i=>colors[state.codes[at][i]])]},[0]);
  box.querySelector('output').textContent=keep.length.toLocaleString('en')+' of '+all.length.toLocaleString('en')+
    ' examples';
}
box.addEventListener('change',draw);
if(document.readyState==='loading'){document.addEventListener('DOMContentLoaded',draw);}else{draw();}
})();</script>"""


def _controls(name: str, state: Mapping[str, Any]) -> str:
    """The filters over an interactive data map, and the script that applies them."""
    sides = [html.escape(side) for side in state["sides"]]
    options = '<option value="">all</option>' + "".join(f'<option value="{int(s)}">{s.label}</option>' for s in ORDER)
    colors = [SOI_COLORS[soi] for soi in SOI]
    values = {"name": json.dumps(name), "state": _script_json(state), "colors": json.dumps(colors)}
    places = "".join(f'<option value="{k}">{side}</option>' for k, side in enumerate(sides))
    hidden = " hidden" if len(sides) == 1 else ""
    picks = "".join(
        f'<label>Category {side if len(sides) > 1 else ""} <select data-pick="soi-{k}">{options}</select></label>'
        for k, side in enumerate(sides)
    )
    return (
        f'{_STYLE}<div class="soi-controls" id="soi-{name}-controls">'
        f'<label{hidden}>Positions <select data-pick="place">{places}</select></label>'
        f"{picks}<output aria-live=polite></output></div>{_SCRIPT % values}"
    )


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    plain = json.loads(json.dumps(value, default=list))
    return json.dumps(plain, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(values: pd.Series) -> list[float]:
    return [round(float(v), 4) for v in values]


def _wrapped(text: str) -> str:
    """A text as plotly's hover boxes take it: no markup of its own, lines that fit a phone, not endless."""
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "<br>".join(_plain(line) for line in textwrap.wrap(short, 44) or [""])


def _plain(text: str) -> str:
    """A text without markup of its own; plotly shows quotes as they are, and `&quot;` as six characters."""
    return html.escape(text, quote=False)


def _faded(color: str, alpha: float) -> str:
    r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"


def _node_places(sums: np.ndarray) -> list[float]:
    """Middles of the nodes from top to bottom (plotly refuses 0 and 1)."""
    heights = np.maximum(sums / sums.sum(), 0.04)  # room for a label
    heights = heights / heights.sum()
    middles = np.cumsum(heights) - heights / 2
    return [float(np.clip(m, 0.001, 0.999)) for m in middles]
