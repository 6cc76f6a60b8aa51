"""The README and its neighbours say what is true: its code runs, its links arrive, its commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from soi_lib import TrainingDynamics, __version__

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_library_example_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    dynamics = TrainingDynamics.load(tmp_path / "dynamics.parquet")
    assert (dynamics.epochs, len(dynamics)) == (5, 200)
    assert "variability" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["README.md", "data/README.md", "CHANGELOG.md"])
def test_links_to_files_arrive(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).parent.joinpath(target).is_file(), target


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a fresh shell, even when make runs this test."""
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean)


def test_every_make_target_that_is_named_exists() -> None:
    pages = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
    prose = README + "".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]+)", prose, flags=re.MULTILINE))
    assert {"book", "test", "help", "test-browser", "notebooks"} <= named
    listed = make("help").stdout
    for target in sorted(named):
        assert re.search(rf"^  {target} ", listed, flags=re.MULTILINE), target


def test_make_alone_prints_help_and_does_nothing() -> None:
    done = make()
    assert done.returncode == 0
    assert done.stdout == make("help").stdout


def test_make_book_trains_on_the_device_that_is_named() -> None:
    assert make("-n", "book", "DEVICE=cuda").stdout.splitlines()[-1].endswith('--device "cuda"')
    assert make("-n", "book").stdout.splitlines()[-1].endswith('--device "auto"')


def test_missing_interpreter_is_one_line() -> None:
    done = make("venv", "PYTHON=no-such-python", "VENV=_build/none")
    assert done.returncode == 2
    assert "error: no-such-python: no such interpreter. Next:" in done.stderr
    assert not (ROOT / "_build" / "none").exists()


def test_wrong_interpreter_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """An interpreter that says that it is 3.9, by a site customisation that it reads before the program."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9, 2, 'final', 0)\n")
    python = tmp_path / "python3.9"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = make("venv", f"PYTHON={python}", f"VENV={tmp_path}/env")
    assert done.returncode == 2
    assert "expected Python 3.11" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "env").exists()


def test_citation_is_complete() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "title", "message", "authors", "version", "license"} <= set(citation)
    assert citation["version"] == __version__
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2507.15236"


def test_changelog_has_the_present_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_lock_holds_exact_versions_and_nothing_of_this_machine() -> None:
    pins = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin), pin
    assert "torch==2.13.0" in pins
    assert len({canonicalize_name(pin.split("==")[0]) for pin in pins}) == len(pins)


def test_lock_satisfies_every_requirement_of_the_project() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = {canonicalize_name(pin.split("==")[0]): pin.split("==")[1] for pin in lines if not pin.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = [v for k, v in project["project"]["optional-dependencies"].items() if k != "scale"]  # has its own lock
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], *chain(*extras)]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
