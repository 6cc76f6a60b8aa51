"""The `soi` command: parses, calls, prints.

Everything is imported inside the commands, so that `soi --help` answers at once. What a person asked for goes to
standard output, progress and messages to standard error. Exit codes: 0 done, 2 an error with its one-line reason,
130 interrupted. What Typer says in a box of five lines is one line here too.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, NoReturn

import typer

# each adds its commands, in the order of `soi --help`
from soi_lib.cli import training, trained, reading, selecting, doctor  # noqa: F401  isort:skip
from soi_lib.cli.shared import app, console, printable
from soi_lib.errors import OutputExistsError, SoiError

_INTERRUPTED = 130
_Click: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")  # Typer may carry its own


def main() -> None:
    """Entry point of `soi`."""
    run(app, "soi")


def run(app: typer.Typer, name: str) -> None:
    """Run a command line; turn errors into one line and exit code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        code = app(prog_name=name, standalone_mode=False)
    except OutputExistsError as error:
        _stop(str(error).replace("overwrite=True", "--force"))
    except SoiError as error:
        _stop(str(error))
    except _Click as error:
        _stop(_usage(error))
    except ModuleNotFoundError as error:
        remedy = doctor.remedy(error)
        if remedy is None:
            raise
        _stop(remedy)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        typer.echo("interrupted; the same command continues", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    """What was wrong with the words of a command, and where to read about it."""
    message = " ".join(error.format_message().split()).replace("Value error, ", "").removesuffix(".")
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    end = "" if message.endswith("?") else "."
    return (
        f"{context.command_path}: {message[0].lower()}{message[1:]}{end} Next: `{context.command_path} --help` explains"
    )


def _stop(message: str) -> NoReturn:
    """Say what went wrong, if it has not been said, and end with 2."""
    if message:
        from rich.text import Text

        console(stderr=True, soft_wrap=True).print(Text("error:", style="bold red"), printable(message))
    sys.exit(2)
