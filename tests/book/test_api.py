"""The library reference: every name for use stands there, says what it takes and raises, and is shown at work.

The examples themselves are run by test_wheel (pages), test_pages_code and nbval (notebooks).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import soi_lib

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
FOR_USE, BEHIND = PAGE.split("\n## Behind the commands\n")


def found(dotted: str) -> Any:
    """What a dotted name means."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part)
        return value
    raise AssertionError(dotted)


def public(module: ModuleType) -> list[str]:
    """The functions and classes that a module defines, or that its `__all__` names."""
    own = getattr(module, "__all__", None)
    names = [name for name in (own or vars(module)) if not name.startswith("_")]
    values = {name: getattr(module, name) for name in names}
    return [n for n, v in values.items() if callable(v) and hasattr(v, "__module__") and not isinstance(v, type(Any))
            and (own or v.__module__ == module.__name__) and (inspect.isfunction(v) or inspect.isclass(v))]  # fmt: skip


def listed(text: str) -> dict[str, Any]:
    """Every function and class that the directives of a part of the page show, by dotted name."""
    out: dict[str, Any] = {}
    for kind, target, lines in re.findall(
        r"^\.\. auto(module|function|class):: ([\w.]+)[^\n]*\n((?:   :.*\n)*)", text, flags=re.MULTILINE
    ):
        options = dict(re.findall(r":([\w-]+):[ ]*(.*)", lines))
        if kind != "module":
            out[target] = found(target)
        elif "members" in options:
            excluded = {name.strip() for name in options.get("exclude-members", "").split(",")}
            named = [name.strip() for name in options["members"].split(",") if name.strip()]
            out |= {
                f"{target}.{n}": found(f"{target}.{n}") for n in named or public(found(target)) if n not in excluded
            }
    return out


@functools.cache
def used() -> dict[str, Any]:
    """What the page shows for use. Read in tests: it imports all of the library, which collecting tests need not."""
    return listed(FOR_USE)


@functools.cache
def inner() -> dict[str, Any]:
    """What the page shows behind the commands."""
    return listed(BEHIND)


def shown() -> str:
    """All code that is run as printed: blocks of the pages and of the README, cells of the notebooks."""
    pages = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
    code = [c for p in pages for c in re.findall(r"^```python\n(.*?)^```$", p.read_text("utf-8"), flags=re.S | re.M)]
    for path in [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "book").glob("*.ipynb"))]:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return "\n".join(code)


def test_everything_that_can_be_taken_from_the_library_itself_is_there() -> None:
    taken = [getattr(soi_lib, name) for name in soi_lib.__all__ if name != "__version__"]
    assert {f"{value.__module__}.{value.__name__}" for value in taken} - set(used()) == set()
    assert len(used()) > 70
    assert set(used()) & set(inner()) == set()


def test_every_name_is_documented() -> None:
    for name, value in (used() | inner()).items():
        assert len(inspect.getdoc(value) or "") > 20, name
        for part, member in vars(value).items() if inspect.isclass(value) else ():
            if not part.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
                assert inspect.getdoc(getattr(value, part, member)) or overridden(value, part), f"{name}.{part}"


def overridden(kind: type, part: str) -> bool:
    """Whether a method is another library's, whose own documentation holds."""
    return any(part in vars(base) for base in kind.__mro__[1:] if not base.__module__.startswith("soi_lib"))


def test_every_name_is_shown_at_work() -> None:
    """In code that is run as printed; a class also where a function or method that gives it is."""
    words = set(re.findall(r"\w+", shown()))
    work = {name: value for name, value in used().items() if not name.startswith("soi_lib.errors.")}
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
