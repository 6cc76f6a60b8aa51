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

from soi_lib.cli import doctor, predicting, reading, second_stage_command, selecting, training  # noqa: F401  (each adds its commands)
from soi_lib.cli.app import app
from soi_lib.errors import OutputExistsError, SoiError

_INTERRUPTED = 130
_PANELS = {
    "Your own data": ("train", "report", "second-stage", "predict"),
    "Dynamics, from anywhere": ("categorize", "compare", "reliability", "map", "select", "label-issues"),
    "This machine": ("doctor", "fetch"),
}
"""The order of `soi --help`; a command that is not listed comes last."""
_Click: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")  # Typer may carry its own


def _arrange() -> None:
    """Put the commands into their panels, in order."""
    panel = {name: title for title, names in _PANELS.items() for name in names}
    order = {name: place for place, name in enumerate(panel)}
    names = {id(c): c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands}
    for command in app.registered_commands:
        command.rich_help_panel = panel.get(names[id(command)], "Further commands")
    app.registered_commands.sort(key=lambda command: order.get(names[id(command)], len(order)))


_arrange()


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

        from soi_lib.cli.shared import console, printable

        console(stderr=True, soft_wrap=True).print(Text("error:", style="bold red"), printable(message))
    sys.exit(2)
