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
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm

from paper.looking import look_files, write_look
from soi_lib.errors import SoiError
from soi_lib.files import replacing, write_bytes, write_json, write_text
from soi_lib.runs.progress import error_stream

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


def source_of(path: Path) -> str:
    """A notebook's cells and metadata without its outputs, as text: what its result depends on."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [[c["cell_type"], "".join(c["source"]), c.get("metadata", {}).get("tags", [])] for c in notebook["cells"]]
    return json.dumps(cells, ensure_ascii=False)


def library_hash() -> str:
    """sha256 over all that the pages are made with: the library's own source files and those of `paper`."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    files = [path for name in ("soi_lib", "paper") for path in (root / name).rglob("*")]
    for path in sorted(path for path in files if path.suffix in (".py", ".js", ".css", ".j2")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def execute(
    parameters: Mapping[Path, dict[str, Any]],
    *,
    root: Path,
    out: Path,
    reads: str,
    jobs: int,
    quiet: bool,
    environment: Mapping[str, str] | None = None,
) -> list[Path]:
    """Execute the notebooks whose stamp under `out` is missing or old; return those that were executed.

    `parameters` holds the values for each notebook; those that it does not declare are not given. A folder of runs is
    given relative to the notebook. Raises SoiError that names the notebook, its failing cell's error, and the file
    with the partial output.
    """
    stamps = out.parent / "stamps"
    library = library_hash()
    pending: list[tuple[Path, str]] = []
    for path, given in parameters.items():
        text = json.dumps([source_of(root / path), library, reads, given], sort_keys=True)
        stamp = hashlib.sha256(text.encode()).hexdigest()
        kept = stamps / path.with_suffix(".ipynb")
        if kept.exists() and (stamps / path.with_suffix(".sha256")).exists():
            known = (stamps / path.with_suffix(".sha256")).read_text(encoding="utf-8").split()
            if known == [stamp, hashlib.sha256(kept.read_bytes()).hexdigest()]:
                continue
        pending.append((path, stamp))

    def one(item: tuple[Path, str]) -> Path:
        path, stamp = item
        target = stamps / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = root / path
        declared = parameter_names(source)
        values = {k: v for k, v in parameters[path].items() if k in declared}
        for name in {"runs", "own"} & set(values):
            values[name] = Path(os.path.relpath(root / values[name], source.parent)).as_posix()
        run_notebook(source, target, values, cwd=source.parent, environment=environment)
        body = target.read_bytes()
        write_text(target.with_suffix(".sha256"), f"{stamp} {hashlib.sha256(body).hexdigest()}\n")
        return path

    with (
        ThreadPoolExecutor(max_workers=max(1, jobs)) as pool,
        tqdm(total=len(pending), desc="notebooks", unit="", disable=quiet or not pending, file=error_stream()) as bar,
    ):
        done = []
        for path in pool.map(one, pending):
            done.append(path)
            bar.set_postfix_str(path.stem, refresh=False)
            bar.update()
    return done


def parameter_names(path: Path) -> set[str]:
    """The names that a notebook's `parameters` cell assigns."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return set(re.findall(r"^(\w+)\s*(?::[^=\n]+)?=", "".join(cell["source"]), flags=re.MULTILINE))
    return set()


def run_notebook(
    source: Path, target: Path, parameters: dict[str, Any], *, cwd: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Execute one notebook with papermill in a process of its own, from `source` to `target`.

    Strings in `parameters` arrive as they are, whatever is in them: papermill writes them as string literals.
    """
    for name, value in parameters.items():
        if not name.isidentifier():
            raise SoiError("cannot be the name of a parameter", where=source, found=repr(name))
        if "\0" in str(value):
            raise SoiError(f"a NUL character in the parameter {name}", where=source, found=repr(value))
    with replacing(target) as tmp:
        call = {"source": str(source.resolve()), "target": str(tmp.resolve()), "parameters": parameters}
        quieter = {"PYTHONWARNINGS": "ignore", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        done = subprocess.run(
            [sys.executable, "-c", f"import json, sys, {__name__} as m; m._papermill(**json.load(sys.stdin))"],
            input=json.dumps(call | {"cwd": str(cwd.resolve())}),
            capture_output=True,
            text=True,
            env=os.environ | quieter | dict(environment or {}),
        )
        if done.returncode != 0:
            partial = target.with_name(f"{target.stem}-failed.ipynb")
            if tmp.stat().st_size:
                shutil.copyfile(tmp, partial)
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
            raise SoiError(
                "the notebook failed", where=source, found=lines[-1] if lines else "no message", hint=f"see {partial}"
            )
        _clean(tmp)


def _papermill(source: str, target: str, parameters: dict[str, Any], cwd: str) -> None:
    """Execute a notebook in this process and a kernel. Raises PapermillExecutionError for a cell that fails.

    The kernel talks through sockets in a folder of its own: TCP ports are chosen some time before they are opened, so
    kernels that start at the same moment may choose the same ones, and die.
    """
    import papermill
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="soi-") as private:  # a short path: that of a socket has 107 bytes at most
        kernel = {"transport": "ipc", "connection_file": str(Path(private, "kernel.json"))}
        papermill.execute_notebook(
            source,
            target,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=cwd,
            config=Config(KernelManager=kernel),
        )


def _clean(path: Path) -> None:
    """Take out of an executed notebook what differs from run to run without meaning: times, paths, versions."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"].pop("papermill", None)
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"].get("language_info", {}).pop("version", None)
    for cell in notebook["cells"]:
        for name in ("papermill", "execution"):
            cell["metadata"].pop(name, None)
        if cell["cell_type"] == "code":
            cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


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
    from soi_lib.runs import results
    from soi_lib.runs.config import load_profile
    from soi_lib.runs.run import commit
    from soi_lib.runs.scheduler import reproduce, reproduce_stages
    from soi_lib.runs.store import RunStore, open_run
    from soi_lib.training.device import default_jobs, resolve_device

    _checkout(root)
    pages = notebooks(root)
    if findings := set(FINDINGS) & set(pages):
        results.verify_recorded(root / RECORDED)
    if profile == "recorded":
        runs = RECORDED
        results.verify_recorded(root / runs)
        sizes = results.recorded_profile(root / runs)
        done = [open_run(p.parent) for p in sorted((root / runs).glob("*/manifest.json"))]
        findings = set()
    else:
        sizes = load_profile(profile)
        if lacking := sorted({"task", "source", "lingual"} - set(sizes.comparisons)):
            raise SoiError(
                "the book needs all three comparisons",
                where=f"profile {profile}",
                found=f"no {', '.join(lacking)}",
                hint=f"add them, or train without a book: python -m paper reproduce --profile {profile}",
            )
        store = RunStore(root / runs)
        done = reproduce(sizes, store, device=device, precision=precision, jobs=jobs, quiet=quiet)
        if sizes.stages:
            reproduce_stages(sizes, store, device=device, precision=precision, jobs=jobs, quiet=quiet)
            findings = set()
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
    from soi_lib.runs.results import verify_recorded

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
