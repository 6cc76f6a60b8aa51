"""What the book shows of a notebook: figures as files of their own, code only where there is something to see.

The notebook itself is not changed; every page offers it whole, with its code and its figures.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re

FIGURES = "_static/figures"  # where the pages find what was embedded
_EMBEDDED = re.compile(r'(src|href)="data:(?:image/|text/)(png|csv);base64,([A-Za-z0-9+/=]+)"')


def page_of(notebook: str, depth: int = 1) -> tuple[str, dict[str, bytes]]:
    """A notebook as its page shows it, and the files that the page needs.

    A cell tagged `hide-input` keeps its "show code" button where it made a figure or a table. Everywhere else its code
    leaves the page. Embedded pictures and CSV tables become files, named by their content. Tables can be scrolled with
    the keyboard.

    Args:
        notebook: the notebook's JSON.
        depth: how many folders deep the page is.

    Returns:
        The JSON of the page's notebook, and by their path in the built book the files.
    """
    page = json.loads(notebook)
    files: dict[str, bytes] = {}

    def as_file(match: re.Match[str]) -> str:
        body = base64.b64decode(match[3])
        name = f"{FIGURES}/{hashlib.sha256(body).hexdigest()[:16]}.{match[2]}"
        files[name] = body
        return f'{match[1]}="{"../" * depth}{name}"'

    for cell in page["cells"]:
        if cell["cell_type"] != "code":
            continue
        shown = ["".join(out.get("data", {}).get("text/html", "")) for out in cell["outputs"]]
        tags = cell.setdefault("metadata", {}).setdefault("tags", [])
        if "injected-parameters" in tags:
            tags.append("remove-cell")
        elif "hide-input" in tags and not any("<figure" in markup for markup in shown):
            tags[tags.index("hide-input")] = "remove-input"
        for out, markup in zip(cell["outputs"], shown, strict=True):
            if markup:
                reachable = markup.replace('<figure class="soi-table">', '<figure class="soi-table" tabindex="0">')
                out["data"]["text/html"] = _EMBEDDED.sub(as_file, reachable)
    return json.dumps(page, ensure_ascii=False), files
