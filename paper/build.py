"""From runs to the rendered book: a staging copy, executed notebooks, one call of Jupyter Book.

The book never executes. Notebooks are executed by papermill into `_build/stage`, each under a stamp that is a hash of
all that it reads (its source, the library, the runs), and the book is rendered when any staged file changed. So a
second call with nothing changed does nothing, and a changed sentence costs one notebook.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tqdm.auto import tqdm

from paper.execute import execute, library_hash, run_notebook
from paper.looking import look_files, write_look
from soi_lib.errors import SoiError
from soi_lib.files import write_bytes, write_json, write_text
from soi_lib.runs.progress import error_stream

if TYPE_CHECKING:
    from soi_lib.runs.config import Profile

STAGE = Path("_build/stage")
RECORDED = Path("data/recorded/standard")
"""The runs that ship with the project: several seeds, and their second stages."""
FINDINGS = tuple(
    map(
        Path,
        (
            "book/index.ipynb",
            "notebooks/two_stage.ipynb",
            "notebooks/claims.ipynb",
            "notebooks/sensitivity.ipynb",
            "book/provenance.ipynb",
        ),
    )
)
"""Pages that need several seeds and second stages: of the recorded runs, unless the profile has stages of its own."""
FIXED = tuple(map(Path, ("notebooks/predecessor.ipynb", "notebooks/suspects.ipynb")))
"""Pages of recorded runs, or of a measurement, that no profile of the book makes."""
MEASURED = Path("benchmarks/results/suspects.json")
_COPIED = ("book", "notebooks", "_config.yml", "_toc.yml", "CHANGELOG.md", "CONTRIBUTING.md")


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
    """The pages of _toc.yml in reading order, without their endings."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"]]

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            pages.extend([node["file"]] if "file" in node else [])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk({k: v for k, v in toc.items() if k != "root"})
    return pages


def notebooks(root: Path) -> list[Path]:
    """The notebooks of the book, relative to `root`, in reading order."""
    pages = (Path(f"{page}.ipynb") for page in toc_files(root))
    return [page for page in pages if (root / page).exists()]


def stage(root: Path, executed: Path) -> bool:
    """Bring `_build/stage` up to date with the book's sources and the executed notebooks; True when it changed."""
    target = root / STAGE
    wanted: dict[str, Path] = {}
    for name in _COPIED:
        source = root / name
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        for file in files:
            if file.is_file() and not {".ipynb_checkpoints", "__pycache__"} & set(file.parts):
                wanted[file.relative_to(root).as_posix()] = file
    for path in notebooks(root):
        if (executed / path).exists():
            wanted[path.as_posix()] = executed / path
    wanted |= look_files(root)
    changed = False
    for file in sorted(target.rglob("*")):
        if file.is_file() and file.relative_to(target).as_posix() not in wanted:
            file.unlink()
            changed = True
    for name, source in wanted.items():
        body = source.read_bytes()
        place = target / name
        if not place.exists() or place.read_bytes() != body:
            write_bytes(place, body)
            changed = True
    return changed


def render(root: Path, *, quiet: bool) -> Path:
    """Render the staged book to `_build/html` with warnings as errors; return its first page. Raises SoiError."""
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        str(root / STAGE),
        "--path-output",
        str(root),
        "-n",
        "-W",
        "--keep-going",
        "--all",
        "--quiet",
    ]
    log = root / "_build" / "render.log"
    if not quiet:
        print("rendering the book (about half a minute)", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)  # colours are for a terminal
    write_text(log, said)
    if done.returncode != 0:
        lines = re.findall(r".*(?:WARNING|ERROR).*", said)
        raise SoiError(
            "the book could not be rendered", where=log, found=lines[0] if lines else "an error", hint="read the log"
        )
    index = root / "_build" / "html" / "index.html"
    first = f"{toc_files(root)[0]}.html"
    # Jupyter Book's own front door has no icon, so browsers ask for one that is not there.
    write_text(index, _FRONT_DOOR.format(first=first))
    return index


def make_book(
    root: Path,
    profile: str,
    runs: Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    jobs: int | None,
    quiet: bool,
) -> Path:
    """Everything from runs to `_build/html/index.html`; only what is missing or changed is done.

    `device` and `precision` as for `plan`; the notebooks find the same runs through `$SOI_DEVICE` and `$SOI_PRECISION`.
    """
    from paper import recorded as results
    from soi_lib.runs.machine import commit
    from soi_lib.runs.scheduler import reproduce, reproduce_stages
    from soi_lib.runs.store import RunStore, open_run
    from soi_lib.training.device import cards, default_jobs, resolve_device

    _checkout(root)
    cards(resolve_device(device))  # a GPU that is not there is told before anything is read
    pages = notebooks(root)
    if set(FINDINGS) & set(pages) or profile == "recorded":
        results.verify_recorded(root / RECORDED)
    if profile == "recorded":
        runs = RECORDED
        sizes = results.recorded_profile(root / runs)
        done = [open_run(p.parent) for p in sorted((root / runs).glob("*/manifest.json"))]
    else:
        sizes = _whole_profile(profile)
        how: dict[str, Any] = {"device": device, "precision": precision, "jobs": jobs, "quiet": quiet}
        done = reproduce(sizes, RunStore(root / runs), **how)
        reproduce_stages(sizes, RunStore(root / runs), **how)
    findings = set() if profile == "recorded" or sizes.stages else set(FINDINGS)
    target = root / "_build" / "results.json"
    value = results.summary(sizes, done, commit())
    held = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    if held | {"commit": value["commit"]} != value:
        write_json(target, value)
    own = Path(profile).suffix in (".yaml", ".yml")  # seen from a notebook, a file lies elsewhere
    name = os.path.relpath(root / profile, root / "notebooks") if own else sizes.name
    of_runs: dict[str, Any] = {"profile": name, "runs": runs.as_posix()}
    beside: dict[str, Any] = {"own_profile": name, "own": runs.as_posix()}
    execute(
        {page: {} if page in FIXED else beside if page in findings else of_runs for page in pages},
        root=root,
        out=root / "_build" / "stamps",
        reads=" ".join([*(run.manifest["sha256"] for run in done), *_recorded_lists(root)]),
        jobs=jobs or default_jobs("cpu"),
        quiet=quiet,
        environment={"SOI_DEVICE": resolve_device(device)} | ({"SOI_PRECISION": precision} if precision else {}),
    )
    index = root / "_build" / "html" / "index.html"
    rendered = root / "_build" / "rendered.sha256"
    write_look(root, sizes, done, quiet=quiet)
    stage(root, root / "_build" / "stamps")
    stamp = _stage_hash(root / STAGE) + library_hash()
    if not index.exists() or not rendered.exists() or rendered.read_text(encoding="utf-8").strip() != stamp:
        render(root, quiet=quiet)
        write_text(rendered, stamp + "\n")
    return index


def _whole_profile(name: str) -> Profile:
    """A profile that has what the pages show. Raises SoiError when a comparison is missing."""
    from soi_lib.runs.config import load_profile

    profile = load_profile(name)
    if lacking := sorted({"task", "source", "lingual"} - set(profile.comparisons)):
        raise SoiError(
            "the book needs all three comparisons",
            where=f"profile {name}",
            found=f"no {', '.join(lacking)}",
            hint=f"add them, or train without a book: python -m paper reproduce --profile {name}",
        )
    return profile


def _recorded_lists(root: Path) -> list[str]:
    """The sha256 of every recorded folder's list and of the measurement: with it changes what is read from there."""
    lists = sorted((root / "data" / "recorded").glob("*/checksums.txt"))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in [*lists, *root.glob(MEASURED.as_posix())]]


def _checkout(root: Path) -> None:
    """Raise SoiError unless `root` is a checkout of the project."""
    if not (root / "_toc.yml").exists():
        raise SoiError("there is no book here", where=root, expected="_toc.yml", hint="run it in a checkout")


def refresh_notebooks(root: Path, runs: Path, *, quiet: bool) -> list[Path]:
    """Execute the notebooks in place with the parameters that they declare, for committing; return them."""
    from paper.recorded import verify_recorded

    _checkout(root)
    verify_recorded(root / runs)
    paths = notebooks(root)
    for path in tqdm(paths, desc="notebooks", disable=quiet, file=error_stream()):
        run_notebook(root / path, root / path, {}, cwd=(root / path).parent)
    return paths


def _stage_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
