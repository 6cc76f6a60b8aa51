"""Which program has a command: `soi`, or `python -m paper` for the paper's grid and book."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

PAPER = {"plan", "run", "reproduce", "results", "book", "notebooks"}


def command(*words: object) -> list[str]:
    """The command line of a process of its own."""
    module = "paper" if words and words[0] in PAPER else "soi_lib.cli"
    return [sys.executable, "-m", module, *map(str, words)]


def main_of(words: Sequence[object]) -> Callable[[], None]:
    """The entry point that has the command."""
    if words and words[0] in PAPER:
        from paper.cli import main
    else:
        from soi_lib.cli import main
    return main
