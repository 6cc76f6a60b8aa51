"""What the book asks of Sphinx beyond its extensions: the command line reference, and signatures that read well.

`book/cli.md` holds a marker that is replaced by the reference which Typer makes of the real commands, and
`book/cluster.md` one for the costs of the profiles, so the pages cannot fall behind them. The page of examples gets its
explorer when the texts are there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

MARKER = "<!-- soi command line -->"
COSTS = "<!-- soi cost table -->"
LOOK = "notebooks/look"


@cache
def command_line() -> str:
    """The reference of every `soi` command as Markdown, one level below the page's title."""
    command = [sys.executable, "-m", "typer", "soi_lib.cli", "utils", "docs", "--name", "soi"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    made = re.sub(r"\A# .*?(?=^## )", "", made, flags=re.DOTALL | re.MULTILINE)
    made = made.replace("* `--help`: Show this message and exit.\n", "")
    return re.sub(r"\*\*(Arguments|Options)\*\*:\n\n(?!\*)", "", made)


@cache
def costs() -> str:
    """What the profiles cost, as Markdown."""
    from paper.grid_costs import as_markdown, cost_table
    from soi_lib.runs.config import load_profile

    return as_markdown(cost_table(*map(load_profile, ("quick", "standard", "paper"))))


def fill_in(app: Any, docname: str, source: list[str]) -> None:
    """Replace the marker of a page by what it stands for."""
    for marker, made in ((MARKER, command_line), (COSTS, costs)):
        if marker in source[0]:
            source[0] = source[0].replace(marker, made())


def plain_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A signature without the module paths of types, and with `...` for defaults that are made on the spot."""
    if signature:
        signature = re.sub(r"~(?:\w+\.)+", "", signature).replace("<factory>", "...")
    return signature, returns


def explore(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Give the page of examples its explorer, where the build has made what that shows (it holds texts)."""
    if pagename == LOOK and (Path(app.srcdir) / "book/_static/look/index.js").is_file():
        app.add_css_file("look/explorer.css")
        app.add_js_file("look/index.js")
        app.add_js_file("look/explorer.js")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("html-page-context", explore)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
