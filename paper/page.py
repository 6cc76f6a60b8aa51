"""Turn a notebook into its page in the book: figures become separate files with their values beside them, and only the
code of figures and tables is shown.

The notebook itself is not changed; every page offers it with all its code, ready to run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

FIGURES = "_static/figures"  # where the pages find the extracted files
_EMBEDDED = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')
_RUNS = re.compile(r'<details class="soi-runs"><summary>(.*?)</summary>')


def page_of(notebook: str, name: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as its page shows it, and the files that the page needs.

    A cell tagged `hide-input` keeps its button "Show the code" if it made a figure or a table; otherwise its code is
    removed. Embedded pictures become files named after their content. Below each figure and table, a line links to its
    values as CSV and, if the notebook shows `paper.provenance.runs_behind`, to the runs. Tables can be scrolled with
    the keyboard.

    Args:
        notebook: the notebook's JSON.
        name: the page's name in the book, such as `notebooks/claims`.

    Returns:
        The JSON of the page's notebook, and the files by their path in the built book.
    """
    page = json.loads(notebook)
    files: dict[str, bytes] = {}
    runs = _RUNS.search("".join(_markup(out) for cell in page["cells"] for out in cell.get("outputs", [])))

    def kept(body: bytes, ending: str) -> str:
        place = f"{FIGURES}/{hashlib.sha256(body).hexdigest()[:16]}.{ending}"
        files[place] = body
        return "../" * name.count("/") + place

    def shown(markup: str, csv: str) -> str:
        markup = markup.replace('<figure class="soi-table">', '<figure class="soi-table" tabindex="0">')
        markup = _EMBEDDED.sub(lambda match: f'src="{kept(base64.b64decode(match[1]), "png")}"', markup)
        head, end, tail = markup.rpartition("</figure>")
        if csv and end:
            count = sum(place.endswith(".csv") for place in files) + 1
            saved = f"{name.rpartition('/')[2]}-{count}.csv"
            line = f'<a href="{kept(csv.encode(), "csv")}" download="{saved}">Values (CSV)</a>'
            line += f'; <a href="#runs">{runs[1]}</a>' if runs else ""
            markup = f'{head}<p class="soi-origin">{line}</p>{end}{tail}'
        return markup

    for cell in page["cells"]:
        if cell["cell_type"] != "code":
            continue
        tags = cell.setdefault("metadata", {}).setdefault("tags", [])
        if "injected-parameters" in tags:
            tags.append("remove-cell")
        elif "hide-input" in tags and not any(_markup(out).startswith("<figure") for out in cell["outputs"]):
            tags[tags.index("hide-input")] = "remove-input"
        for out in cell["outputs"]:
            if markup := _markup(out):
                out["data"]["text/html"] = shown(markup, out["metadata"].get("soi", {}).get("csv", ""))
    return json.dumps(page, ensure_ascii=False), files


def _markup(output: dict[str, Any]) -> str:
    return "".join(output.get("data", {}).get("text/html", ""))
