"""The source pages of the book: all are in the contents, their code runs, and their commands are valid."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from soi_lib import TrainingDynamics

ROOT = Path(__file__).resolve().parents[2]
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
    """Parse it with all its options, without running it."""
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
