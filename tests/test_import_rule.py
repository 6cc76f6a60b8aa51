"""Which module may import which: one list of layers, from the top down; light modules never load torch."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    "paper", "cli", "report", "runs", "training", "models", "data", "plots", "integrations", "analysis", "recorder",
    "dynamics", "io", "distributed", "packages", "files", "errors",
]  # fmt: skip
"""A module imports its own layer and those below it."""
LIGHT = ("soi_lib.plots", "soi_lib.analysis", "soi_lib.io", "soi_lib.dynamics")
HEAVY = {"torch", "transformers", "accelerate", "datasets", "tokenizers"}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("soi_lib", "paper")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "cluster" not in path.parts
}


def imports(path: Path) -> set[str]:
    """Return all imports of a module, also inside functions, except those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def layer(module: str) -> int:
    return LAYERS.index(module.removeprefix("soi_lib.").split(".")[0])


@functools.cache
def edges() -> dict[str, set[str]]:
    """Return our own modules that each module imports. `soi_lib` itself only lists names and is left out."""
    return {m: imports(p) & set(FILES) - {"soi_lib", m} for m, p in FILES.items() if m != "soi_lib"}


def test_imports_go_downwards_and_light_modules_import_nothing_heavy() -> None:
    upward = [f"{a} imports {b}" for a, targets in edges().items() for b in targets if layer(b) < layer(a)]
    assert upward == []
    light = {m: imports(p) for m, p in FILES.items() if m.startswith(LIGHT)}
    assert [m for m, names in light.items() if {n.split(".")[0] for n in names} & HEAVY] == []


@pytest.mark.parametrize("package", ["soi_lib", "paper"])
def test_imports_have_no_cycles(package: str) -> None:
    """Repeatedly remove modules that import none of the remaining ones; what is left forms a cycle."""
    left = {m: targets for m, targets in edges().items() if m.split(".")[0] == package}
    while done := {m for m, targets in left.items() if not targets & set(left)}:
        left = {m: targets for m, targets in left.items() if m not in done}
    assert left == {}


def test_light_modules_load_nothing_heavy() -> None:
    code = "import sys, soi_lib.plots, soi_lib.analysis.selection; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} & HEAVY == set()
