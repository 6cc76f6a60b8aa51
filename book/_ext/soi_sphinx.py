"""What the book asks of Sphinx beyond its extensions: the command line reference, and signatures that read well.

`book/cli.md` holds a marker that is replaced by the reference which Typer makes of the real commands, and
`book/cluster.md` one for the costs of the profiles, so the pages cannot fall behind them. The page of examples gets its
explorer when the texts are there. Formulas are rendered to MathML while the book is built, so no page needs a script
for them, and what the theme brings but no page loads is left out.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.ext.autodoc.mock import MockFinder

MARKER = "<!-- soi command line -->"
COSTS = "<!-- soi cost table -->"
LOOK = "notebooks/look"
UNUSED = ("**/*.map", "**/*.ttf", "locales")  # of the theme, never loaded by a page


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
    """Replace the marker of a page by what it stands for, and a notebook by what its page shows."""
    if str(app.env.doc2path(docname)).endswith(".ipynb"):
        from paper.page import page_of

        source[0], files = page_of(source[0], docname)
        for name, body in files.items():
            place = Path(app.outdir) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(body)
    for marker, made in ((MARKER, command_line), (COSTS, costs)):
        if marker in source[0]:
            source[0] = source[0].replace(marker, made())


def stay_mocked(app: Any) -> None:
    """Mock for good what autodoc mocks: it would import it after all, to read the source of a mocked base class."""
    sys.meta_path.insert(0, MockFinder(app.config.autodoc_mock_imports))


def plain_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A signature without the module paths of types, and with `...` for defaults that are made on the spot."""
    if signature:
        signature = re.sub(r"~(?:\w+\.)+", "", signature).replace("<factory>", "...")
    return signature, returns


def complete(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Link a page to its notebook; give the page of examples its explorer where the build has made what that shows.

    The roles that docutils gives to works cited are deprecated, and accessibility checkers refuse them.
    """
    name = context.get("sourcename", "")
    if name.endswith(".ipynb"):
        link = f'<a href="{context["pathto"]("_sources/" + name, 1)}" download>{name.rpartition("/")[2]}</a>'
        context["body"] = context["body"].replace("</h1>", f'</h1>\n<p class="soi-notebook">Notebook: {link}</p>', 1)
    if "citation-list" in context.get("body", ""):
        context["body"] = re.sub(' role="(?:doc-biblioentry|list)"', "", context["body"])
    if pagename == LOOK and (Path(app.srcdir) / "book/_static/look/index.js").is_file():
        app.add_css_file("look/explorer.css")
        app.add_js_file("look/index.js")
        app.add_js_file("look/explorer.js")


def formula(self: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers draw themselves."""
    block = isinstance(node, nodes.math_block)
    self.body.append(tex2mathml(node.astext(), as_block=block).strip())
    raise nodes.SkipNode


def leave_out(app: Any, error: Exception | None) -> None:
    """Remove from the built book pages and figures of earlier builds and what no page loads.

    The notebooks that it offers lose their outputs: the pages show those.
    """
    from paper.page import FIGURES

    for folder in {Path(name).parts[0] for name in app.env.found_docs if "/" in name}:  # pages of earlier builds
        for page in (Path(app.outdir) / folder).rglob("*.html"):
            if page.relative_to(app.outdir).with_suffix("").as_posix() not in app.env.found_docs:
                page.unlink()
    static, pages = Path(app.outdir) / "_static", Path(app.outdir).rglob("*.html")
    named = {name for page in pages for name in re.findall(rf"{FIGURES}/([\w.]+)", page.read_text(encoding="utf-8"))}
    for path in (Path(app.outdir) / FIGURES).glob("*"):
        if path.name not in named:
            path.unlink()
    for path in [path for pattern in UNUSED for path in static.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (Path(app.outdir) / "_sources").rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("builder-inited", stay_mocked)
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("html-page-context", complete)
    app.connect("build-finished", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
