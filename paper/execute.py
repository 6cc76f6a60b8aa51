"""Execute notebooks with papermill, only once for the same inputs.

An executed notebook is stored with a stamp: a hash of its source, the library, the runs that it reads and its
parameters. It is executed again only if the stamp changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from soi_lib.errors import SoiError
from soi_lib.files import replacing, sha256_file, write_text
from soi_lib.runs.scheduler import error_stream


def source_of(path: Path) -> str:
    """Return a notebook's cells and tags without its outputs, as text: what its result depends on."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [[c["cell_type"], "".join(c["source"]), c.get("metadata", {}).get("tags", [])] for c in notebook["cells"]]
    return json.dumps(cells, ensure_ascii=False)


def library_hash() -> str:
    """Return the sha256 of all source files that make the pages: those of the library and of `paper`."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    files = [path for name in ("soi_lib", "paper") for path in (root / name).rglob("*")]
    for path in sorted(path for path in files if path.suffix in (".py", ".js", ".css", ".j2", ".yaml", ".csv")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def make_once(made: Path, stamp: str, make: Callable[[], object]) -> bool:
    """Call `make`, which writes the file or folder `made`, unless that was made from the inputs of `stamp`.

    The stamp is kept beside it, with the hash of a file. Returns whether `make` was called.
    """
    if is_made(made, stamp):
        return False
    make()
    write_text(made.with_suffix(".sha256"), _state(made, stamp))
    return True


def is_made(made: Path, stamp: str) -> bool:
    """Return whether `make_once` made `made` from the inputs of `stamp`, and it is unchanged since."""
    kept = made.with_suffix(".sha256")
    return made.exists() and kept.exists() and kept.read_text(encoding="utf-8") == _state(made, stamp)


def _state(made: Path, stamp: str) -> str:
    return f"{stamp} {sha256_file(made)}\n" if made.is_file() else f"{stamp}\n"


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
    """Execute the notebooks whose stamp under `out` is missing or outdated; return those that were executed.

    `parameters` holds the values for each notebook; those that it does not declare are not passed. Paths are passed
    relative to the notebook. Raises SoiError naming the notebook, the error of its failing cell, and the file
    with the partial output.
    """
    from papermill import inspect_notebook

    library = library_hash()

    stamps = {}
    for path, given in parameters.items():
        text = json.dumps([source_of(root / path), library, reads, given], sort_keys=True, default=str)
        stamps[path] = hashlib.sha256(text.encode()).hexdigest()
    pending = [path for path, stamp in stamps.items() if not is_made(out / path, stamp)]

    def one(path: Path) -> None:
        source, target = root / path, out / path
        declared = inspect_notebook(source)
        values = {
            name: os.path.relpath(root / value, source.parent) if isinstance(value, Path) else value
            for name, value in parameters[path].items()
            if name in declared
        }
        run = partial(run_notebook, source, target, values, cwd=source.parent, environment=environment)
        make_once(target, stamps[path], run)

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        look = {"desc": "notebooks", "unit": "", "disable": quiet or not pending, "file": error_stream()}
        list(tqdm(pool.map(one, pending), total=len(pending), **look))
    return pending


def run_notebook(
    source: Path, target: Path, parameters: dict[str, Any], *, cwd: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Execute one notebook with papermill in a separate process, from `source` to `target`."""
    with replacing(target) as tmp:
        call = {"source": str(source.resolve()), "target": str(tmp.resolve()), "parameters": parameters}
        quieter = {"PYTHONWARNINGS": "ignore", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("one_notebook.py"))],
            input=json.dumps(call | {"cwd": str(cwd.resolve())}),
            capture_output=True,
            text=True,
            env=os.environ | quieter | dict(environment or {}),
        )
        if done.returncode != 0:
            partial = target.with_name(f"{target.stem}-failed.ipynb")
            if tmp.exists():
                shutil.copyfile(tmp, partial)
            said = done.stderr.strip() or "no message"
            raise SoiError("the notebook failed", where=source, found=said.splitlines()[-1], hint=f"see {partial}")
        _clean(tmp)


def _clean(path: Path) -> None:
    """Remove from an executed notebook what differs between executions without meaning: times, paths, versions."""
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
