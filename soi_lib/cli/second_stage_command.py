"""The command of the second stage: continue the models of a folder on the examples that matter."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from soi_lib.cli.app import app
from soi_lib.cli.shared import DeviceOption, JobsOption, JsonOption, QuietOption, print_json, table
from soi_lib.errors import SelectionError

if TYPE_CHECKING:
    import pandas as pd


@app.command("second-stage")
def second_stage(
    folder: Annotated[Path, typer.Argument(help="A folder that soi train made.", metavar="DIR")],
    subset: Annotated[
        list[str] | None,
        Option("--subset", help="A category or map region; repeat to unite [default: UNE, FRGE_1, FRGE_2]."),
    ] = None,
    ids: Annotated[Path | None, Option("--ids", help="Instead: a file of ids, one a line.")] = None,
    epochs: Annotated[int, Option("--epochs", min=1, max=64, help="Passes over the subset.")] = 4,
    learning_rate_factor: Annotated[
        float, Option("--learning-rate-factor", min=1e-6, help="Of the first training's learning rate.")
    ] = 0.1,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be trained.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Continue the models of a folder on a subset of their training examples, and say whether that helped.

    Each model is also continued on random examples and on all examples, with as many updates: what the subset gains
    over these is the subset's own. The continued models are kept beside the first ones.

    `soi second-stage reviews --subset UNE --subset FRGE_1 --subset FRGE_2`
    """
    from soi_lib.runs.own_stage import case, cost_words, cut_words, gain_table, left_words, prepare_stage, train_stage

    if ids is not None and subset:
        raise SelectionError("a subset and a file of ids are given", hint="give one of --subset and --ids")
    job = prepare_stage(
        folder,
        [name for one in subset or ("UNE+FRGE_1+FRGE_2",) for name in one.split("+")],
        ids=_lines(ids) if ids is not None else (),
        epochs=epochs,
        learning_rate_factor=learning_rate_factor,
        device=device,
    )
    if not quiet:
        table(_left(job.left), err=True)
        if cut := cut_words(job.left):
            typer.echo(cut, err=True)
        typer.echo(left_words(job.left["left to learn"].mean()), err=True)
        if job.unknown:
            few = ", ".join(job.unknown[:6]) + (" ..." if len(job.unknown) > 6 else "")
            typer.echo(f"caution: {len(job.unknown)} ids are not those of training examples: {few}", err=True)
        typer.echo(f"{job.recipe}; {cost_words(job)}", err=True)
    if dry_run:
        typer.echo("nothing was trained (--dry-run)", err=True)
        return
    found = train_stage(job, jobs=jobs, quiet=quiet)
    if as_json:
        gained = found.to_dict("records")
        print_json({"folder": str(folder), "subset": job.name, "models": job.models, "gains": gained})
        return
    table(gain_table(found))
    for _, row in found.iterrows():
        typer.echo(f"{case(row)}: {row['advice']}", err=True)
    if not quiet:
        typer.echo("models: " + (", ".join(str(folder / name) for name in job.models) or "none"), err=True)
        typer.echo(f"next:\n  soi report {shlex.quote(str(folder))} --force", err=True)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SelectionError("the file of ids cannot be read", where=path, found=error) from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise SelectionError("there are no ids", where=path, expected="an id a line")
    return found


def _left(frame: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {str(name): str(value) for name, value in row.items() if name != "reason"}
        | {"left to learn": row["reason"] or f"{row['left to learn']:.0%}"}
        for _, row in frame.iterrows()
    ]
