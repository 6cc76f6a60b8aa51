"""What the commands share: the options that several take, tables and JSON on standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

ProfileOption = Annotated[str, typer.Option("--profile", "-p", help="quick, standard, paper, or a YAML file.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="The folder that stores runs by key.")]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", help="Keep one comparison (task, source, lingual); may be repeated.")
]
JobsOption = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Runs side by side [default: cores].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an output that is already there.")]
EarlyOption = Annotated[
    float, typer.Option("--early", help="Learned before this share of the epochs is early, else late.")
]
Dynamics = Annotated[Path, typer.Argument(help="A dynamics file (.parquet).", metavar="FILE")]


def table(rows: list[dict[str, Any]], *, title: str | None = None) -> None:
    """Print rows as a table that fits the terminal; numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    out = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in rows[0] if rows else []:
        number = all(isinstance(row[name], int | float) for row in rows)
        out.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        out.add_row(*(str(value) for value in row.values()))
    Console().print(out)


def print_json(value: Any) -> None:
    """Print a value as indented JSON; NaN is refused, because JSON has none."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
