"""Who may import whom: every room only rooms below it, and the light rooms nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import soi_lib

ROOT = Path(soi_lib.__file__).parent
# from the top to the bottom of the house; a room imports itself and what is below
ROOMS = [
    {"cli", "__main__"},
    {"experiments"},
    {"integrations"},
    {"training"},
    {"encoders"},
    {"corpora"},
    {"plots"},
    {"analysis"},
    {"dynamics", "dynamics_file"},
    {"packages", "atomic", "paths", "errors"},
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
LIGHT = {"plots", "analysis", "dynamics", "dynamics_file", "packages", "atomic", "paths", "errors"}
HEAVY = {"torch", "transformers", "accelerate", "datasets", "tokenizers"}
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Dotted names of everything that a module imports, in functions too; relative imports spelled out."""
    package = ["soi_lib", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{stem}.{alias.name}" for alias in node.names]
    return found


def test_every_module_has_a_room() -> None:
    unknown = {room_of(path) for path in MODULES} - set(LEVEL) - {"__init__"}
    assert unknown == set()
    assert len(MODULES) > 15


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards_only(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":  # the face of the library: brings names in on their first use
        return
    wrong = []
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "soi_lib" and len(parts) > 1 and parts[1] in LEVEL and LEVEL[parts[1]] < LEVEL[room]:
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in LIGHT], ids=lambda p: str(p.relative_to(ROOT)))
def test_light_rooms_import_nothing_heavy(path: Path) -> None:
    assert [name for name in imports(path) if name.split(".")[0] in HEAVY] == []


def test_the_rule_would_notice(tmp_path: Path) -> None:
    """The reader of imports sees those inside functions, relative ones, and names of a package."""
    module = ROOT / "analysis" / "invented.py"
    text = "def f():\n    from ..training import engine\n    import torch.nn\n    from soi_lib import cli\n"
    tree = tmp_path / "invented.py"
    tree.write_text(text)

    class Elsewhere(type(module)):  # type: ignore[misc]
        def read_text(self, *args: object, **kwargs: object) -> str:
            return text

    assert imports(Elsewhere(module)) == ["soi_lib.training.engine", "torch.nn", "soi_lib.cli"]


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded after `code` ran in a process of its own."""
    script = f"import sys\n{code}\nprint(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_library_loads_nothing() -> None:
    assert (
        loaded_by("import soi_lib; soi_lib.__version__") & {*HEAVY, "pandas", "numpy", "matplotlib", "pyarrow"} == set()
    )


def test_the_essentials_load_neither_torch_nor_pandas() -> None:
    code = "import soi_lib; soi_lib.TrainingDynamics; soi_lib.categorize; soi_lib.SOI.ACE"
    found = loaded_by(code)
    assert "numpy" in found
    assert found & {*HEAVY, "pandas", "matplotlib"} == set()


def test_figures_and_analysis_load_no_torch() -> None:
    code = "import soi_lib.plots, soi_lib.plots.explorer, soi_lib.analysis.excess, soi_lib.analysis.selection"
    assert loaded_by(code) & HEAVY == set()
