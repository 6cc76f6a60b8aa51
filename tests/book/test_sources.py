"""Sources of pages: public names are listed and used, code runs, and commands, links, numbers and targets are valid."""

import functools
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
import yaml

import soi_lib
from soi_lib import TrainingDynamics

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
FOR_USE, BEHIND = PAGE.split("\n## Behind the commands\n")


def public(module: ModuleType) -> list[str]:
    """Return the public functions and classes that a module defines, or that its `__all__` lists."""
    listed = getattr(module, "__all__", None)
    values = {name: getattr(module, name) for name in listed or vars(module) if not name.startswith("_")}
    kinds = {name: value for name, value in values.items() if inspect.isfunction(value) or inspect.isclass(value)}
    return [name for name, value in kinds.items() if listed or value.__module__ == module.__name__]


@functools.cache
def names(text: str) -> dict[str, Any]:
    """Return every function and class that the directives of a part of the page list, by dotted name."""
    out: dict[str, Any] = {}
    for kind, target, lines in re.findall(
        r"^\.\. auto(module|function|class):: ([\w.]+)[^\n]*\n((?:   :.*\n)*)", text, flags=re.MULTILINE
    ):
        options = dict(re.findall(r":([\w-]+):[ ]*(.*)", lines))
        if kind != "module":
            out[target] = resolve_name(target)
        elif "members" in options:
            excluded = re.findall(r"\w+", options.get("exclude-members", ""))
            members = re.findall(r"\w+", options["members"]) or public(resolve_name(target))
            out |= {f"{target}.{n}": resolve_name(f"{target}.{n}") for n in members if n not in excluded}
    return out


def shown() -> str:
    """Return all code that tests run as printed: blocks of the pages and the README, cells of the notebooks."""
    pages = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
    code = [c for p in pages for c in re.findall(r"^```python\n(.*?)^```$", p.read_text("utf-8"), flags=re.S | re.M)]
    for path in [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "book").glob("*.ipynb"))]:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return "\n".join(code)


def test_every_name_of_the_package_itself_is_listed() -> None:
    taken = [getattr(soi_lib, name) for name in soi_lib.__all__ if name != "__version__"]
    assert {f"{value.__module__}.{value.__name__}" for value in taken} - set(names(FOR_USE)) == set()
    assert len(names(FOR_USE)) > 70
    assert set(names(FOR_USE)) & set(names(BEHIND)) == set()


def test_every_name_is_used_in_code_that_is_run() -> None:
    """Or, for a class, a function or method that returns it."""
    words = set(re.findall(r"\w+", shown()))
    work = {name: value for name, value in names(FOR_USE).items() if not name.startswith("soi_lib.errors.")}
    given = " ".join(
        str(inspect.get_annotations(function).get("return", ""))
        for name, value in work.items()
        if name.rpartition(".")[2] in words
        for function in (value, *(vars(value).values() if inspect.isclass(value) else ()))
        for function in [getattr(function, "fget", function)]
        if inspect.isfunction(function)
    )
    words |= set(re.findall(r"\w+", given))
    assert {name for name in work if name.rpartition(".")[2] not in words} == set()
    assert {"SoiError", "AlignmentError", "OutputExistsError"} <= words


FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def test_every_source_page_is_in_the_contents() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    named = {toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])}
    written = [path for folder in ("book", "notebooks") for path in (ROOT / folder).glob("*")]
    sources = [path.relative_to(ROOT).with_suffix("") for path in written if path.suffix in (".md", ".ipynb")]
    made = {name for name in named if name.startswith("reproduced/")}  # by `make book`
    assert set(map(Path.as_posix, sources)) == named - made


def test_entry_page_runs_on_any_dynamics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of the other pages is run by test_wheel, with the installed library."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    dyn, single, multi = (
        TrainingDynamics(np.arange(4000), np.arange(4000) % 2, draw.random((6, 4000)), draw.random((6, 4000)) < 0.5)
        for _ in range(3)
    )
    page = (ROOT / "book" / "own.md").read_text(encoding="utf-8")
    (code,) = (code for kind, code in FENCE.findall(page) if kind == "python")
    exec(compile(code, "book/own.md", "exec"), {"dyn": dyn, "single": single, "multi": multi})
    assert TrainingDynamics.load(tmp_path / "dynamics.parquet").fingerprint() == dyn.fingerprint()


def tutorial() -> list[dict[str, Any]]:
    return json.loads((ROOT / "notebooks" / "own_data.ipynb").read_text(encoding="utf-8"))["cells"]


def test_tutorial_trains_as_its_command_line_says() -> None:
    (given,) = (c for c in tutorial() if "parameters" in c["metadata"].get("tags", []))
    names: dict[str, Any] = {}
    exec("".join(given["source"]), names)
    seeds = " ".join(f"--seed {seed}" for seed in names["seeds"])
    expected = f"train --train messages.csv --epochs {names['epochs']} {seeds} --out trained"
    assert ("own_data", "soi", expected) in commands()


LINE = re.compile(r"(?:[A-Z_]+=\S+ )*(?:accelerate launch .*-m |\S*python -m |\.venv/bin/|)(soi|paper) ([a-z].*)")
"""One of our commands, also after environment variables or given to a launcher."""


def commands() -> list[tuple[str, str, str]]:
    """Return each of our commands in a block or in backticks: its page, `soi` or `paper`, and its words."""
    out = []
    pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "book").glob("*.md"))}
    pages["own_data"] = "\n".join("".join(c["source"]) for c in tutorial() if c["cell_type"] == "markdown")
    for page, text in pages.items():
        whole = [block.replace("\\\n", " ") for kind, block in FENCE.findall(text) if kind in ("", "bash")]
        lines = [line for block in whole for line in block.splitlines()]
        lines += re.findall(r"`(soi [a-z]+ [^`]*-[^`]*|python -m paper [^`]*)`", text)
        out += [(page, *match.groups()) for match in map(LINE.match, lines) if match]
    return out


def test_every_command_line_on_a_page_is_valid() -> None:
    import paper.cli
    from soi_lib.cli import app

    known: dict[str, Any] = {"soi": typer.main.get_command(app), "paper": typer.main.get_command(paper.cli.app)}
    lines = commands()
    assert len(lines) > 12
    assert {program for page, program, _ in lines if page == "on_a_gpu"} == set(known)
    assert [line for page, _, line in lines if page == "cluster" and line.startswith("run KEY")]
    for page, program, line in lines:
        name, *arguments = shlex.split(line, comments=True)
        assert name in known[program].commands, f"{page}: {line}"
        try:
            known[program].commands[name].make_context(name, arguments)
        except Exception as error:  # typer has its own copy of the classes of click
            pytest.fail(f"{page}: {line}: {error}")


README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "data/README.md", "CHANGELOG.md"])
def test_links_to_files_are_valid(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).parent.joinpath(target).is_file(), target


def test_findings_are_those_of_the_first_page() -> None:
    """As committed; nbval compares that page with the recorded runs."""
    page = (ROOT / "book" / "index.ipynb").read_text(encoding="utf-8")
    number = r"[+-]?0\.\d{2,3}(?: \[[^]]*\])?|\b\d+%|\d+ of \d+"
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
