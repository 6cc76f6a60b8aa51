"""Commands that use trained models: `second-stage` and `predict`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from soi_lib.cli.shared import (
    OWN_DATA,
    DeviceOption,
    ForceOption,
    JobsOption,
    JsonOption,
    QuietOption,
    Texts,
    app,
    print_json,
    say,
    table,
    write_table,
)
from soi_lib.cli.training import HeaderOption
from soi_lib.errors import CorpusError, SelectionError, nearest

if TYPE_CHECKING:
    from soi_lib.data.table_files import Table


@app.command("second-stage", rich_help_panel=OWN_DATA)
def second_stage(
    folder: Annotated[Path, Argument(help="An output folder of soi train.", metavar="DIR")],
    subset: Annotated[
        Texts, Option(help="A category or map region; repeat to combine several [default: UNE, FRGE_1, FRGE_2].")
    ] = None,
    ids: Annotated[Path | None, Option(help="A file of ids instead, one per line.")] = None,
    epochs: Annotated[int, Option(min=1, max=64, help="Passes over the subset.")] = 4,
    learning_rate_factor: Annotated[float, Option(min=1e-6, help="Multiplies the original learning rate.")] = 0.1,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be trained.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Continue training the models of a folder on a subset of their examples, and report whether that helped.

    As controls, each model is also continued on random examples and on all examples, for as many updates; only a gain
    over these controls is due to the subset. The continued models are kept next to the original ones.

    Example: `soi second-stage reviews --subset UNE --subset FRGE_1 --subset FRGE_2`
    """
    from soi_lib.runs.own_stage import case, cost_words, cut_words, gain_table, left_words, prepare_stage, train_stage

    if ids is not None and subset:
        raise SelectionError("both a subset and a file of ids are given", hint="give either --subset or --ids")
    job = prepare_stage(
        folder,
        [name for one in subset or ("UNE+FRGE_1+FRGE_2",) for name in one.split("+")],
        ids=_lines(ids) if ids is not None else (),
        epochs=epochs,
        learning_rate_factor=learning_rate_factor,
        device=device,
    )
    if not quiet:
        reached = [reason or f"{share:.0%}" for reason, share in job.left[["reason", "left to learn"]].to_numpy()]
        shown = job.left.astype(str).assign(**{"left to learn": reached}).drop(columns="reason")
        table(shown.to_dict("records"), err=True)
        if cut := cut_words(job.left):
            typer.echo(cut, err=True)
        typer.echo(left_words(job.left["left to learn"].mean()), err=True)
        if job.unknown:
            few = ", ".join(job.unknown[:6]) + (" ..." if len(job.unknown) > 6 else "")
            typer.echo(f"caution: {len(job.unknown)} ids do not belong to training examples: {few}", err=True)
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
    say(quiet, "models: " + (", ".join(str(folder / name) for name in job.models) or "none"))
    say(quiet, f"next:\n  soi report {shlex.quote(str(folder))} --force")


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SelectionError("the file of ids cannot be read", where=path, found=error) from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise SelectionError("the file contains no ids", where=path, expected="one id per line")
    return found


@app.command(rich_help_panel=OWN_DATA)
def predict(
    model: Annotated[Path, Argument(help="The folder of a model kept by soi train.", metavar="DIR")],
    rows: Annotated[Path, Argument(help="The rows to label: CSV, TSV, TXT, JSON or Parquet.", metavar="FILE")],
    text: Annotated[str | None, Option(metavar="COLUMN", help="Column with the texts.")] = None,
    text_pair: Annotated[str | None, Option(metavar="COLUMN", help="Column with the second texts, for pairs.")] = None,
    dataset: Annotated[str | None, Option(help="Whose labels to predict, if the model has several datasets.")] = None,
    separator: Annotated[str | None, Option(help="Column separator, if it is not detected: ; or tab.")] = None,
    encoding: Annotated[str | None, Option(help="Encoding of a text file, if not UTF-8: cp1252, utf-16.")] = None,
    header: HeaderOption = True,
    out: Annotated[
        Path | None, Option("--out", "-o", help="Output: .csv .tsv .jsonl .json .parquet [default: print CSV].")
    ] = None,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict the labels of texts with a model kept by `soi train`.

    The output is the input file with two more columns: `predicted`, the most probable label, and `p`, its probability.

    Example: `soi predict reviews/models/reviews-seed0 new.csv --out labelled.csv`
    """
    from soi_lib.data.table_files import read_table
    from soi_lib.training.classifier import load_classifier

    table = read_table(rows, separator, encoding, header)
    texts, pairs = _texts(table, text, text_pair)
    found = load_classifier(model, device=device).predict(texts, pairs, dataset=dataset)
    made = table.frame.assign(predicted=found["label"].to_numpy(), p=found["p"].astype(float).round(4).to_numpy())
    if out is None:
        typer.echo(made.to_csv(index=False), nl=False)
        return
    write_table(out, made, overwrite=force)
    say(quiet, f"{len(made)} rows of {rows}")
    typer.echo(out)


def _texts(table: Table, text: str | None, text_pair: str | None) -> tuple[list[str], list[str] | None]:
    """Return the texts of a table, and the second texts of pairs, from the named columns or those with usual names."""
    from soi_lib.data.columns import longest_column, text_columns, text_of

    have = [str(name) for name in table.frame.columns]
    named = [name for name in (text, text_pair) if name is not None]
    for name in named:
        if name not in have:
            raise CorpusError(f"there is no column {name!r}", where=table.where, hint=nearest(name, have))
    chosen = named if text is not None else [*text_columns(have), *named]
    if not chosen and have == ["1"]:  # a single column without a header must be the text
        chosen = have
    if not chosen:
        likely = json.dumps(longest_column(table, have), ensure_ascii=False)
        hint = f"name it, such as --text {likely}, and --text-pair for pairs"
        hint += "" if have[0] == "1" else "; give --no-header if the file has no header"
        raise CorpusError("no column looks like the text", where=table.where, found=", ".join(have), hint=hint)
    columns = [[text_of(value) for value in table.frame[name]] for name in chosen[:2]]
    empty = [n for n, values in enumerate(zip(*columns, strict=True)) if any(v is None or v == "" for v in values)]
    if empty:
        what, hint = f"{len(empty)} rows have no text", "fill them in, or remove these rows"
        what = "1 row has no text" if len(empty) == 1 else what
        raise CorpusError(what, where=table.where, found=table.row(empty[0]), hint=hint)
    return columns[0], columns[1] if len(columns) > 1 else None


# --- from options to datasets ---------------------------------------------------------------------------------------
