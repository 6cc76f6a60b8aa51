"""The README and its neighbours: links, numbers and make targets are valid, and the lock fits the requirements."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "data/README.md", "CHANGELOG.md"])
def test_links_to_files_are_valid(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).parent.joinpath(target).is_file(), target


def test_findings_are_those_of_the_first_page() -> None:
    """As committed; nbval compares that page with the recorded runs."""
    page = (ROOT / "book" / "index.ipynb").read_text(encoding="utf-8")
    number = r"[+-]?0\.\d{3}(?: \[[^]]*\])?|\b\d+%"
    numbers = re.findall(number, README[: README.index("![")])
    assert len(numbers) >= 6
    assert set(numbers) <= set(re.findall(number, page))


def test_the_table_of_benchmarks_is_made_from_their_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    expected = importlib.import_module("table").table(ROOT / "benchmarks" / "results")
    assert (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8") == expected


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a fresh shell, even when make runs this test."""
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean)


def test_every_mentioned_make_target_exists() -> None:
    pages = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
    prose = README + "".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]+)", prose, flags=re.MULTILINE))
    assert {"book", "test", "help", "test-browser", "notebooks"} <= named
    listed = make("help").stdout
    for target in sorted(named):
        assert re.search(rf"^  {target} ", listed, flags=re.MULTILINE), target


def test_a_wrong_interpreter_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    """A site customisation makes the interpreter pretend to be 3.9."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9, 2, 'final', 0)\n")
    python = tmp_path / "python3.9"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = make("venv", f"PYTHON={python}", f"VENV={tmp_path}/env")
    assert done.returncode == 2
    assert "expected Python 3.11" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "env").exists()


def test_lock_satisfies_every_requirement_of_the_project() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = {canonicalize_name(pin.split("==")[0]): pin.split("==")[1] for pin in lines if not pin.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = [v for k, v in project["project"]["optional-dependencies"].items() if k != "scale"]  # has its own lock
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], *chain(*extras)]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
