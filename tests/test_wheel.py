"""The wheel as users install it: it is complete, and the code on the pages runs from it.

Nothing is downloaded: a new environment gets links to the packages of this one, but only to those that the wheel and
its extras require, so that a requirement that was not declared is missing there. pip resolves the rest.
"""

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from soi_lib import SOI, __version__, select
from soi_lib.dynamics import TrainingDynamics

ROOT = Path(__file__).resolve().parents[1]
STORED = min((ROOT / "data" / "recorded" / "quick").glob("*/dynamics/tweets.parquet"))
HEAVY = ("torch", "transformers", "accelerate", "datasets", "matplotlib", "plotly", "sklearn", "pytest")
CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "MAKEFLAGS")}
CLEAN |= {"PYTHONNOUSERSITE": "1", "ACCELERATE_USE_CPU": "true", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

PAGES = """
import io, os, re, sys
from contextlib import redirect_stdout
from pathlib import Path
import soi_lib
assert Path(soi_lib.__file__).is_relative_to(sys.prefix), soi_lib.__file__
here = Path.cwd()
for page in map(Path, sys.argv[1:]):
    (here / page.stem).mkdir()
    os.chdir(here / page.stem)
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```([\\w{}-]*)\\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    names, ran = {"__name__": page.stem}, 0
    for (kind, code), (following, expected) in zip(blocks, [*blocks[1:], ("", "")]):
        if kind != "python":
            continue
        said = io.StringIO()
        with redirect_stdout(said):
            exec(compile(code, page.name, "exec"), names)
        assert following != "text" or said.getvalue() == expected, (page.name, code, said.getvalue())
        ran += 1
    print(page.stem, ran)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
"""A program that runs the code of pages as printed, each page in its own folder."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, ROOT]
    subprocess.run(command, check=True, env=CLEAN, cwd=out)
    (path,) = out.glob("*.whl")
    return path


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"soi_lib-{__version__}.dist-info/METADATA").decode())


def wanted(lines: Iterable[str], extras: Iterable[str]) -> dict[str, set[str]]:
    """Return the packages that the requirements select on this machine, each with its extras."""
    out: dict[str, set[str]] = {}
    for requirement in map(Requirement, lines):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
            out.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return out


def environment(folder: Path, wheel: Path, extras: str = "", also: Iterable[str] = ()) -> Path:
    """Make an environment with the wheel, its requirements and perhaps another package; return its bin folder."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    todo = list(wanted(metadata(wheel).get_all("Requires-Dist", []), extras.split(",")).items())
    todo += [(name, set()) for name in also]
    seen: dict[str, set[str]] = {}
    while todo:
        name, own = todo.pop()
        if name in seen and own <= seen[name]:
            continue
        seen[name] = own | seen.get(name, set())
        package = distribution(name)
        todo += wanted(package.requires or (), seen[name]).items()
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(package.locate_file(top))))
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    subprocess.run([*install, f"{wheel}[{extras}]" if extras else wheel], check=True, env=CLEAN, cwd=folder)
    return folder / "bin"


def run(folder: Path, *command: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program of a new environment, outside this checkout."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=CLEAN, cwd=folder)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def test_the_wheel_contains_the_library_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        packages = archive.read("soi_lib/resources/packages.txt")
    files = (path for kind in ("py", "js", "css", "j2") for path in (ROOT / "soi_lib").rglob(f"*.{kind}"))
    here = {path.relative_to(ROOT).as_posix() for path in files}
    about = {f"soi_lib-{__version__}.dist-info/{n}" for n in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    about.add(f"soi_lib-{__version__}.dist-info/licenses/LICENSE")
    assert set(names) == here | about | {"soi_lib/py.typed", "soi_lib/resources/packages.txt"}
    assert len(names) == len(set(names))
    assert packages == (ROOT / "data" / "packages.txt").read_bytes()
    assert wheel.stat().st_size < 1_000_000


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("core") / "env", wheel)


def test_the_core_is_light(core: Path, tmp_path: Path) -> None:
    """The core installs no heavy package, and importing it and showing its help load no others either."""
    script = f"""
import io, sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
import soi_lib
assert Path(soi_lib.__file__).is_relative_to(sys.prefix), soi_lib.__file__
assert [name for name in {HEAVY} if find_spec(name)] == []
from soi_lib.cli import main
sys.argv = ["soi", "--help"]
said = io.StringIO()
try:
    with redirect_stdout(said):
        main()
except SystemExit as end:
    assert end.code == 0
assert "categorize" in said.getvalue()
print(*sorted(set(sys.modules) & {{"numpy", "pandas", "pyarrow", "scipy", "pydantic", "yaml", "tqdm"}}))
"""
    assert run(tmp_path, core / "python", "-c", script).stdout.split() == []
    assert run(tmp_path, core / "soi", "--help").stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_the_core_names_the_extra_that_is_missing(core: Path, tmp_path: Path, wheels: list[Path]) -> None:
    found = json.loads(run(tmp_path, core / "soi", "doctor", "--json", code=2).stdout)
    assert "missing" not in found["packages"]["the core"].values()
    assert found["would train on"] == {}
    (problem,), (note,) = found["problems"], found["notes"]
    assert problem.endswith("Next: `pip install 'soi_lib[train]'`")
    assert note.endswith("Next: `pip install 'soi_lib[book]'`")
    said = run(tmp_path, core / "soi", "report", STORED, code=2).stderr
    assert said.startswith("error: ")
    assert said.endswith("Next: `pip install 'soi_lib[book]'`\n")
    assert list(tmp_path.iterdir()) == []


def test_the_core_reads_stored_runs_and_files_of_other_tools(core: Path, tmp_path: Path) -> None:
    words = ("select", STORED.parents[1], "FRGE_1", "LLE", "--dataset", "tweets", "--json")
    found = json.loads(run(tmp_path, core / "soi", *words).stdout)
    expected = select(TrainingDynamics.load(STORED), [SOI.FRGE_1, SOI.LLE])
    assert found["ids"] == expected.tolist()
    assert len(expected) > 0
    said = run(tmp_path, core / "python", "-c", PAGES, ROOT / "book" / "howto_cartography.md").stdout.splitlines()
    assert said[0].startswith("howto_cartography ")
    assert not {*HEAVY} & set(said[-1].split())


@pytest.fixture(scope="module")
def full(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("full") / "env", wheel, "train,book", also=["peft"])  # howto_trainer


def test_loops_and_trainers_run_as_printed(full: Path, tmp_path: Path, wheels: list[Path]) -> None:
    names = ("README.md", "book/api.md", "book/howto_loop.md", "book/howto_trainer.md")
    said = run(tmp_path, full / "python", "-c", PAGES, *(ROOT / name for name in names)).stdout.splitlines()
    assert [line.split()[0] for line in said[:-1]] == ["README", "api", "howto_loop", "howto_trainer"]
    assert all(int(line.split()[1]) >= 1 for line in said[:-1])
    assert "pytest" not in said[-1].split()


def test_training_on_a_file_and_its_report(full: Path, tmp_path: Path, wheels: list[Path]) -> None:
    rows = "".join(f"{'a fine film' if i % 2 else 'a sad film'} {i},{i % 2}\n" for i in range(40))
    (tmp_path / "films.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    run(tmp_path, full / "soi", "train", "--train", "films.csv", "--epochs", 2, "--out", "trained")
    page = tmp_path / run(tmp_path, full / "soi", "report", "trained").stdout.strip()
    assert "a sad film" in page.read_text(encoding="utf-8")
