"""The `soi` command: parse the arguments, call the library, print the result.

Heavy modules are imported inside the commands, so that `soi --help` answers at once. Results go to standard output,
progress and messages to standard error. Exit codes: 0 success, 2 error (with its reason in one line), 130 interrupted.
Usage errors are printed in one line, too, instead of Typer's box of five lines.
"""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any, NoReturn

import typer

# each module registers its commands, in the order of `soi --help`
from soi_lib.cli import training, trained, analysis, doctor  # noqa: F401  isort:skip
from soi_lib.cli.shared import app, console, printable
from soi_lib.errors import OutputExistsError, SoiError

_INTERRUPTED = 130
_Click: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")  # Typer may vendor Click


def main() -> None:
    """Run `soi`."""
    run(app, "soi")


def run(app: typer.Typer, name: str) -> None:
    """Run a command-line application; print errors in one line and exit with code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # batch systems send it: handle it like Ctrl-C
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
        typer.echo("interrupted; run the same command again to continue", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    """Describe a usage error and point to the help of the command."""
    message = " ".join(error.format_message().split()).replace("Value error, ", "").removesuffix(".")
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    end = "" if message.endswith("?") else "."
    return f"{context.command_path}: {message[0].lower()}{message[1:]}{end} Next: see `{context.command_path} --help`"


def _stop(message: str) -> NoReturn:
    """Print the error, unless it has been printed already, and exit with code 2."""
    if message:
        from rich.text import Text

        console(stderr=True, soft_wrap=True).print(Text("error:", style="bold red"), printable(message))
    sys.exit(2)
