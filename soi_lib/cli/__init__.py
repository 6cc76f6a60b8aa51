"""The `soi` command: parses, calls, prints.

Everything is imported inside the commands, so that `soi --help` answers at once. What a person asked for goes to
standard output, progress and messages to standard error. Exit codes: 0 done, 2 an error with its one-line reason,
130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys

import typer

from soi_lib.cli import reading, reproducing  # noqa: F401  (each adds its commands)
from soi_lib.cli.app import app
from soi_lib.errors import SoiError


def main() -> None:
    """Entry point: run the command; turn errors into one line and exit code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app()
    except SoiError as error:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_escape(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command continues", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
