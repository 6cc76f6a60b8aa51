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
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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
    for path in sorted(path for path in files if path.suffix in (".py", ".js", ".css", ".j2")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def is_made(made: Path, stamp: str) -> bool:
    """Return whether a file or folder exists and was made from the inputs of `stamp`."""
    kept = made.with_suffix(".sha256")
    return made.exists() and kept.exists() and kept.read_text(encoding="utf-8").strip() == stamp


def mark_made(made: Path, stamp: str) -> None:
    """Write the stamp of a file or folder beside it, for `is_made`."""
    write_text(made.with_suffix(".sha256"), stamp + "\n")


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
    pending: list[tuple[Path, str]] = []
    for path, given in parameters.items():
        text = json.dumps([source_of(root / path), library, reads, given], sort_keys=True, default=str)
        stamp, kept = hashlib.sha256(text.encode()).hexdigest(), out / path
        if not kept.exists() or not is_made(kept, f"{stamp} {sha256_file(kept)}"):
            pending.append((path, stamp))

    def one(item: tuple[Path, str]) -> Path:
        path, stamp = item
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = root / path
        declared = inspect_notebook(source)
        values = {
            name: os.path.relpath(root / value, source.parent) if isinstance(value, Path) else value
            for name, value in parameters[path].items()
            if name in declared
        }
        run_notebook(source, target, values, cwd=source.parent, environment=environment)
        mark_made(target, f"{stamp} {sha256_file(target)}")
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
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
            raise SoiError(
                "the notebook failed", where=source, found=lines[-1] if lines else "no message", hint=f"see {partial}"
            )
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
