"""Shared by all commands: the Typer application, common options, and the printing of tables and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from soi_lib.errors import SchemaError, SoiError, nearest

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from soi_lib.dynamics import TrainingDynamics

app = typer.Typer(
    name="soi",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Record how a language model learns every training example during fine-tuning, and sort the examples into six "
    "Subsets of Interest: unlearned (UNE), always correct (ACE), early learned (ELE), late learned (LLE), forgotten "
    "once (FRGE_1), and forgotten at least twice (FRGE_2).\n\nTo get started, run `soi doctor`, then "
    "`soi train --train reviews.csv --out reviews` and `soi report reviews`.",
)
OWN_DATA, ANY_DYNAMICS, THIS_MACHINE = "Train on your own data", "Analyse training dynamics", "Set up this machine"
"""The panels of `soi --help`."""

Texts = list[str] | None
"""The type of an option that can be repeated."""
JobsOption = Annotated[
    int | None, Option("-j", "--jobs", min=1, help="Number of parallel runs [default: one per core, or by GPU memory].")
]
DeviceOption = Annotated[str, Option(help="Device: auto, cpu, cuda, or cuda:N.")]
PrecisionOption = Annotated[
    str | None,
    Option(help="fp32, bf16, or auto: bf16 if the device computes in it [default: as the profile or folder has it]."),
]
JsonOption = Annotated[bool, Option("--json", help="Print JSON instead of a table.")]


def _silence(context: typer.Context, quiet: bool) -> bool:
    """Turn off all progress bars until the command ends, including those of other libraries."""
    if quiet and not context.resilient_parsing and "TQDM_DISABLE" not in os.environ:
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported, which happens later
        context.call_on_close(lambda: os.environ.pop("TQDM_DISABLE", None))
    return quiet


QuietOption = Annotated[bool, Option("--quiet", "-q", help="Print no progress to standard error.", callback=_silence)]
ForceOption = Annotated[bool, Option("--force", help="Replace an existing output file.")]
_TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_OTHERS = (".csv", ".tsv", ".json", ".jsonl", ".npy", ".npz")
_OTHERS_HINT = (
    "read files of other tools in Python (soi_lib.integrations: cartography.read_dynamics, arrays.read_table, "
    "arrays.from_arrays), and save the result as .parquet"
)


def dynamics_in(path: Path, dataset: str | None = None) -> tuple[Path, TrainingDynamics]:
    """Return a dynamics file, and the dynamics in it, for a file or for one dataset of a run's folder.

    Files of a folder with a manifest are checked against it. Raises SoiError.
    """
    from soi_lib.dynamics import TrainingDynamics

    if not path.is_dir():
        if dataset is not None:
            raise SoiError("--dataset needs the folder of a run", where=path, hint="give the folder, or omit --dataset")
        if path.is_file() and path.suffix in _OTHERS:
            what = "this is not a dynamics file"
            raise SchemaError(what, where=path, found=path.suffix, expected=".parquet", hint=_OTHERS_HINT)
        beside = path.parent.parent / "dynamics" / path.name
        if path.parent.name == "predictions" and beside.is_file():
            what = "this file holds the final predictions of a run, not its dynamics"
            raise SchemaError(what, where=path, hint=f"give {beside}")
        return path, TrainingDynamics.load(path)
    runs = _runs_in(path, dataset)
    if len(runs) > 1:
        listing = ", ".join(f"{run} ({', '.join(what)})" for run, what in list(runs.items())[:6])
        hint = f"give one: {listing}{' ...' if len(runs) > 6 else ''}"
        raise SoiError("this folder holds several runs", where=path, found=f"{len(runs)}", hint=hint)
    path = next(iter(runs), path)
    if (path / "manifest.json").is_file():
        from soi_lib.runs.store import open_run

        open_run(path)
    files = {file.stem: file for file in sorted((path / "dynamics").glob("*.parquet"))}
    if not files:
        hint = _OTHERS_HINT if any(path.rglob("dynamics_epoch_*.jsonl")) else "name a file"
        expected = "a subfolder `dynamics` with .parquet files"
        raise SoiError("this folder is not a run", where=path, expected=expected, hint=hint)
    if dataset is None and len(files) > 1:
        hint = "choose one with --dataset"
        raise SoiError("the run has several datasets", where=path, found=", ".join(files), hint=hint)
    if dataset is not None and dataset not in files:
        raise SoiError("no such dataset in this run", where=path, found=repr(dataset), hint=nearest(dataset, files))
    file = files[dataset or next(iter(files))]
    return file, TrainingDynamics.load(file)


def _runs_in(path: Path, dataset: str | None) -> dict[Path, tuple[str, ...]]:
    """Map the runs of a folder that hold `dataset` to their setting and seed in words, or to "run" without an index."""
    try:
        index = json.loads((path / "runs.json").read_text(encoding="utf-8"))
        rows = [row for row in index["runs"] if row["state"] == "done"]
    except (OSError, ValueError, KeyError, TypeError):
        return {manifest.parent: ("run",) for manifest in sorted(path.glob("runs/*/manifest.json"))}
    from soi_lib.runs.own_folder import setting_words

    return {
        path / row["folder"]: (setting_words(row["setting"]), f"seed {row['seed']}")
        for row in rows
        if dataset is None or dataset in row["setting"]
    }


def seeds_in(path: Path, dataset: str | None) -> list[Path]:
    """Return the runs of a folder if they differ only in the seed, else the path itself (left to `dynamics_in`)."""
    runs = _runs_in(path, dataset) if path.is_dir() else {}
    settings = {what[0] for what in runs.values() if len(what) > 1}
    return list(runs) if len(settings) == 1 else [path]


def say(quiet: bool, text: str) -> None:
    """Print a message to standard error, unless `quiet`."""
    if not quiet:
        typer.echo(text, err=True)


def table(rows: Sequence[Mapping[Any, Any]], *, title: str | None = None, err: bool = False) -> None:
    """Print rows as a table that fits the terminal; keys are never wrapped, so that they can be copied."""
    from rich.table import Table

    out = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in rows[0] if rows else []:
        number = all(isinstance(row[name], int | float) for row in rows)
        out.add_column(str(name), justify="right" if number else "left", overflow="fold", no_wrap=name == "key")
    for row in rows:
        out.add_row(*(printable(str(value)) for value in row.values()))
    console(stderr=err).print(out)


def console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console that prints text verbatim: `[/b]` and `:warning:` are not interpreted."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def printable(text: str, longest: int | None = None) -> str:
    """Make text from a file safe to print: replace control characters, and cut it after `longest` characters."""
    plain = "".join(c if c.isprintable() or c in "\u200c\u200d" else "�" for c in text)
    return plain if longest is None or len(plain) <= longest else plain[: longest - 1] + "…"


def print_json(value: Any) -> None:
    """Print a value as indented JSON; NaN raises ValueError, because JSON does not have it."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def json_of(frame: pd.DataFrame, orient: Literal["records", "index"] = "records") -> Any:
    """Convert a table to JSON values; numbers that are not finite become null."""
    return json.loads(frame.to_json(orient=orient, double_precision=15))


def write_table(out: Path, frame: pd.DataFrame, *, overwrite: bool, more: str = "") -> None:
    """Write a table in the format given by the file's suffix; `more` names further formats in the error message."""
    from soi_lib import files

    if out.suffix not in _TABLES:
        expected = " ".join(_TABLES) + more
        raise SoiError("unknown output format", where=out, found=repr(out.suffix), expected=expected)
    with files.replacing(out, overwrite=overwrite) as tmp:
        if out.suffix == ".parquet":
            frame.to_parquet(tmp, index=False)
        elif out.suffix in (".json", ".jsonl"):
            frame.to_json(tmp, orient="records", lines=out.suffix == ".jsonl", force_ascii=False, double_precision=9)
        else:
            frame.to_csv(tmp, index=False, sep="\t" if out.suffix == ".tsv" else ",")
