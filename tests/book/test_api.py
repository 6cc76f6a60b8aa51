"""The library reference: it lists every public name, each is documented, and code that is run uses it."""

from __future__ import annotations

import functools
import inspect
import json
import re
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import soi_lib

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
