"""The code on the pages of the book: every block runs as printed, and prints what stands below it."""

from __future__ import annotations

import io
import json
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from soi_lib import TrainingDynamics

ROOT = Path(__file__).resolve().parents[2]
RUN = ("howto_loop", "howto_trainer", "howto_cartography", "api")  # from nothing, one program a page
FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of a page, in order."""
    return FENCE.findall((ROOT / "book" / f"{page}.md").read_text(encoding="utf-8"))


def run(page: str, names: dict[str, Any]) -> int:
    """Run the Python blocks of a page in one namespace; compare what each prints with a `text` block that follows."""
    found = blocks(page)
    ran = 0
    for (kind, code), (following, expected) in zip(found, [*found[1:], ("", "")], strict=True):
        if kind != "python":
            continue
        said = io.StringIO()
        with redirect_stdout(said):
            exec(compile(code, f"book/{page}.md", "exec"), names)
        if following == "text":
            assert said.getvalue() == expected, f"{page}: {code}"
        ran += 1
    return ran


@pytest.mark.parametrize("page", RUN)
def test_page_runs_as_printed(page: str, wheels: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert run(page, {"__name__": page}) >= 4
    printed = [code for kind, code in blocks(page) if kind == "python" and "print(" in code]
    assert len(printed) == sum(kind == "text" for kind, _ in blocks(page)), "what a block prints stands below it"


def test_entry_page_runs_on_dynamics_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    dyn, single, multi = (
        TrainingDynamics(np.arange(4000), np.arange(4000) % 2, draw.random((6, 4000)), draw.random((6, 4000)) < 0.5)
        for _ in range(3)
    )
    assert run("own", {"dyn": dyn, "single": single, "multi": multi}) == 1
    assert TrainingDynamics.load(tmp_path / "dynamics.parquet").fingerprint() == dyn.fingerprint()


def tutorial() -> list[dict[str, Any]]:
    """The cells of the tutorial notebook."""
    return json.loads((ROOT / "notebooks" / "own_data.ipynb").read_text(encoding="utf-8"))["cells"]


def test_tutorial_trains_what_its_command_line_says() -> None:
    (given,) = (c for c in tutorial() if "parameters" in c["metadata"].get("tags", []))
    names: dict[str, Any] = {}
    exec("".join(given["source"]), names)
    seeds = " ".join(f"--seed {seed}" for seed in names["seeds"])
    expected = f"train --train messages.csv --epochs {names['epochs']} {seeds} --out trained"
    assert ("own_data", "soi", expected) in commands()


LINE = re.compile(r"(?:[A-Z_]+=\S+ )*(?:accelerate launch .*-m |\S*python -m |\.venv/bin/|)(soi|paper) ([a-z].*)")
"""A command of ours, also after variables of the environment, or given to a launcher."""


def commands() -> list[tuple[str, str, str]]:
    """Every command of ours in a block or in backticks: its page, `soi` or `paper`, and its words."""
    out = []
    pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "book").glob("*.md"))}
    pages["own_data"] = "\n".join("".join(c["source"]) for c in tutorial() if c["cell_type"] == "markdown")
    for page, text in pages.items():
        whole = [block.replace("\\\n", " ") for kind, block in FENCE.findall(text) if kind in ("", "bash")]
        lines = [line for block in whole for line in block.splitlines()]
        lines += re.findall(r"`(soi [a-z]+ [^`]*-[^`]*|python -m paper [^`]*)`", text)
        out += [(page, *match.groups()) for match in map(LINE.match, lines) if match]
    return out


def test_every_command_line_on_a_page_is_understood() -> None:
    """Parsed with all its options, without being run."""
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
        except Exception as error:  # typer's own copy of click has classes of its own
            pytest.fail(f"{page}: {line}: {error}")


def test_pins_and_rows_that_the_page_on_a_gpu_names_are_there() -> None:
    text = (ROOT / "book" / "on_a_gpu.md").read_text(encoding="utf-8")
    (pin,) = re.findall(r"^torch==.*", (ROOT / "requirements.lock").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"torch==[\w.]+", text)) == {pin}
    assert "(GPU)" in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for script in re.findall(r"^bash (\S+)", text, flags=re.MULTILINE):
        assert (ROOT / script).is_file()
