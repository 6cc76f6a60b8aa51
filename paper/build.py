"""From runs to the rendered book: this machine's runs and pages, a staging copy, one call of Jupyter Book.

Jupyter Book executes nothing, and the main pages show the recorded runs as committed. Only the pages of this machine's
runs are executed, by papermill, each with a stamp that is a hash of all its inputs (source, library, runs), and the
book is rendered only if a staged file has changed. So a second call with nothing changed does nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm

from paper import first_page, recorded, reproduced
from paper.claims import verdicts
from paper.execute import execute, library_hash, make_once, run_notebook
from paper.looking import LOOK, PLACE, write_look
from soi_lib.errors import SoiError
from soi_lib.files import checksums, write_bytes, write_json, write_text
from soi_lib.runs.config import load_profile
from soi_lib.runs.run import commit
from soi_lib.runs.scheduler import error_stream, reproduce
from soi_lib.runs.store import RunStore
from soi_lib.training.device import cards, default_jobs, resolve_device

STAGE = Path("_build/stage")
RECORDED = Path("data/recorded/standard")
"""The runs that the main pages show."""
QUICK = Path("data/recorded/quick")
"""Five seeds of the profile quick, with which this machine's runs are compared."""
REPRODUCED = Path("notebooks/reproduced.ipynb")
COMPARISONS = {"task": "multi_task", "source": "multi_source", "lingual": "multi_lingual"}
"""The notebook of each comparison; it appears twice in the book, with the recorded runs and with this machine's."""
_COPIED = ("book", "notebooks", "_config.yml", "CHANGELOG.md", "CONTRIBUTING.md")


_FRONT_DOOR = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Subsets of Interest</title>
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url={first}">
<a href="{first}">Subsets of Interest</a>
</html>
"""


def toc_files(root: Path) -> list[str]:
    """Return the pages of _toc.yml in reading order, without file extensions."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    return list(parse_toc_yaml(root / "_toc.yml"))


def notebooks(root: Path) -> list[Path]:
    """Return the notebooks of the book, relative to `root`, in reading order."""
    pages = (Path(f"{page}.ipynb") for page in toc_files(root))
    return [page for page in pages if (root / page).exists()]


def stage(root: Path, executed: Mapping[Path, Path]) -> None:
    """Make `_build/stage` from the book's sources and the executed pages.

    `executed` maps pages of the book to the files executed here; the other pages are used as committed. A page that
    exists in neither form is left out of the table of contents.
    """
    target = root / STAGE
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    folders = {name: root / name for name in _COPIED} | {PLACE: root / LOOK}
    for name, source in folders.items():
        if source.is_dir():
            unwanted = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
            shutil.copytree(source, target / name, ignore=unwanted, dirs_exist_ok=True)
        elif source.exists():
            shutil.copyfile(source, target / name)
    for page, made in executed.items():
        (target / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, target / page)
    pages = {file.relative_to(target).with_suffix("").as_posix() for file in target.rglob("*") if file.is_file()}
    write_bytes(target / "_toc.yml", _toc(root, pages))


def _toc(root: Path, pages: set[str]) -> bytes:
    """Return _toc.yml without the pages that this machine has not made."""

    def kept(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: part for key, value in node.items() if (part := kept(value)) != []}
        if isinstance(node, list):
            return [kept(item) for item in node if not isinstance(item, dict) or item.get("file") in {None, *pages}]
        return node

    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return yaml.safe_dump(kept(toc), sort_keys=False, allow_unicode=True).encode()


def render(root: Path, *, quiet: bool) -> Path:
    """Render the staged book to `_build/html`; return its index. Raises SoiError for errors and warnings."""
    run_jupyter_book(root, "html", quiet=quiet)
    index = root / "_build" / "html" / "index.html"
    first = f"{toc_files(root)[0]}.html"
    # Jupyter Book's own index page has no icon, so browsers would request one that does not exist.
    write_text(index, _FRONT_DOOR.format(first=first))
    return index


def run_jupyter_book(root: Path, builder: str, *, quiet: bool) -> Path:
    """Render the staged book with a Sphinx builder; return the folder. Raises SoiError for errors and warnings."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(root / STAGE)]
    command += ["--path-output", str(root), "-n", "-W", "--keep-going", "--all", "--quiet"]
    command += ["--builder", "custom", "--custom-builder", builder] if builder != "html" else []
    log = root / "_build" / "render.log"
    if not quiet:
        print("rendering the book (about half a minute)", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)  # without the terminal's colours
    write_text(log, said)
    if done.returncode != 0:
        first = next(iter(re.findall(r".*(?:WARNING|ERROR).*", said)), "an error")
        raise SoiError("the book could not be rendered", where=log, found=first, hint="read the log")
    return root / "_build" / builder


def make_book(
    root: Path,
    profile: str,
    runs: Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    jobs: int | None,
    quiet: bool,
) -> tuple[Path, str]:
    """Make everything from runs to `_build/html/index.html`, redoing only what is missing or has changed.

    The main pages show the recorded runs, as committed. What this machine trains is shown in the part *Reproduced on
    this machine*; the profile "recorded" trains nothing. Returns the first page and the verdict on reproduction.
    `device` and `precision` are as for `plan`; the notebooks find the same runs through `$SOI_DEVICE` and
    `$SOI_PRECISION`.
    """
    _checkout(root)
    cards(resolve_device(device))  # a missing GPU is reported before any data are read
    _judge(root)
    shown, kept = recorded.recorded_profile(root / RECORDED), recorded.recorded_runs(root / RECORDED)
    sizes, done = shown, []
    if profile != "recorded":
        sizes = load_profile(profile)
        done = reproduce(sizes, RunStore(root / runs), device=device, precision=precision, jobs=jobs, quiet=quiet)
    write_json(root / "_build" / "results.json", recorded.summary(sizes, done or kept, commit()))
    reads = " ".join([*(run.manifest["sha256"] for run in done), _text(root / QUICK / recorded.CHECKSUMS)])
    compared = root / "_build" / "reproduced.json"

    def compare() -> None:
        write_json(compared, reproduced.as_json(reproduced.reproduction(sizes.name, done, root / QUICK)))

    make_once(compared, _hash(library_hash(), sizes.name, reads), compare)
    own = _prepare_own(root, [c for c in COMPARISONS if done and c in sizes.comparisons])
    values = {
        "profile": (root / profile).resolve() if Path(profile).suffix in (".yaml", ".yml") else sizes.name,
        "runs": (root / runs).resolve() if done else "",
        "recorded": (root / QUICK).resolve(),
    }
    execute(
        dict.fromkeys(own, values),
        root=root / "_build" / "own",
        out=root / "_build" / "stamps",
        reads=reads,
        jobs=jobs or default_jobs("cpu"),
        quiet=quiet,
        environment={"SOI_DEVICE": resolve_device(device)} | ({"SOI_PRECISION": precision} if precision else {}),
    )
    write_look(root, shown, kept, quiet=quiet)
    stage(root, {page: root / "_build" / "stamps" / page for page in own})
    html = root / "_build" / "html"
    if not (html / "index.html").exists():
        html.with_suffix(".sha256").unlink(missing_ok=True)
    inputs = _hash(json.dumps(checksums(root / STAGE)), library_hash())
    make_once(html, inputs, lambda: render(root, quiet=quiet))
    return html / "index.html", json.loads(_text(compared))["sentence"]


def _judge(root: Path) -> None:
    """Check all recorded runs, and write `_build/claims.json` unless it is up to date."""
    listed = (path.parent for path in (root / RECORDED.parent).glob(f"*/{recorded.CHECKSUMS}"))
    folders = sorted({root / RECORDED, *listed})
    for folder in folders:
        recorded.verify_recorded(folder)
    claims = root / "_build" / "claims.json"

    def judge() -> None:
        evidence = verdicts.open_evidence(root / RECORDED, stages=root / RECORDED.parent)
        write_json(claims, verdicts.claims_json(verdicts.verdicts(evidence), evidence))

    make_once(claims, _hash(library_hash(), *(_text(folder / recorded.CHECKSUMS) for folder in folders)), judge)


def _prepare_own(root: Path, comparisons: list[str]) -> list[Path]:
    """Write the pages of this machine's runs to `_build/own`; a comparison's is its notebook with a different title."""
    pages = {REPRODUCED: root / REPRODUCED}
    pages |= {
        Path("reproduced", f"{COMPARISONS[c]}.ipynb"): root / f"notebooks/{COMPARISONS[c]}.ipynb" for c in comparisons
    }
    for page, source in pages.items():
        notebook = json.loads(source.read_text(encoding="utf-8"))
        if page != REPRODUCED:
            first = notebook["cells"][0]
            title, _, rest = "".join(first["source"]).partition("\n")
            link = f"[{title.removeprefix('# ')}](../notebooks/{page.name}) shows the recorded runs"
            first["source"] = f"{title} on this machine\n\n*The runs of this machine. {link}.*\n{rest}"
        write_json(root / "_build" / "own" / page, notebook)
    return list(pages)


def _checkout(root: Path) -> None:
    """Raise SoiError unless `root` is a checkout of the project."""
    if not (root / "_toc.yml").exists():
        raise SoiError("there is no book here", where=root, expected="_toc.yml", hint="run this in a checkout")


def refresh_notebooks(root: Path, *, quiet: bool) -> list[Path]:
    """Execute the notebooks in place with the parameters that they declare, ready to commit; return their paths."""
    _checkout(root)
    paths = notebooks(root)
    for path in tqdm(paths, desc="notebooks", disable=quiet, file=error_stream()):
        run_notebook(root / path, root / path, {}, cwd=(root / path).parent)
    first_page.write_picture(root)
    return paths


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
