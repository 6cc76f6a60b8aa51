"""Which program a command belongs to: `soi`, or `python -m paper` for the grid and the book of the paper."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

PAPER = {"plan", "run", "reproduce", "results", "book", "notebooks"}


def command(*words: object) -> list[str]:
    """Return the command line for a separate process."""
    module = "paper" if words and words[0] in PAPER else "soi_lib.cli"
    return [sys.executable, "-m", module, *map(str, words)]


def main_of(words: Sequence[object]) -> Callable[[], None]:
    """Return the entry point of the command."""
    if words and words[0] in PAPER:
        from paper.cli import main
    else:
        from soi_lib.cli import main
    return main
