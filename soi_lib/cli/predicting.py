"""The command that predicts: a kept model on new texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from soi_lib.cli.app import app
from soi_lib.cli.shared import DeviceOption, ForceOption, HeaderOption, QuietOption
from soi_lib.errors import CorpusError, nearest

if TYPE_CHECKING:
    from soi_lib.data.table_files import Table


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="The folder of a model that soi train kept.", metavar="DIR")],
    rows: Annotated[Path, typer.Argument(help="The rows to predict: CSV, TSV, TXT, JSON, Parquet.", metavar="FILE")],
    text: Annotated[str | None, Option("--text", metavar="COLUMN", help="Column of texts.")] = None,
    text_pair: Annotated[str | None, Option("--text-pair", metavar="COLUMN", help="Column of second texts.")] = None,
    dataset: Annotated[str | None, Option("--dataset", help="Whose labels, where it was trained on several.")] = None,
    separator: Annotated[
        str | None, Option("--separator", help="What divides columns, if not found: ; or tab.")
    ] = None,
    encoding: Annotated[str | None, Option("--encoding", help="Of a text file, if not UTF-8: cp1252, utf-16.")] = None,
    header: HeaderOption = True,
    out: Annotated[Path | None, Option("--out", "-o", help="A CSV file [default: print it].")] = None,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict the labels of texts with a model that `soi train` kept.

    Every row of the file comes back with two more columns: `predicted`, the most probable label, and `p`, its
    probability.

    `soi predict reviews/models/reviews-seed0 new.csv --out labelled.csv`
    """
    from soi_lib.data.table_files import read_table
    from soi_lib.files import write_text
    from soi_lib.training.classifier import load_classifier

    table = read_table(rows, separator, encoding, header)
    texts, pairs = _texts(table, text, text_pair)
    found = load_classifier(model, device=device).predict(texts, pairs, dataset=dataset)
    made = table.frame.assign(predicted=found["label"].to_numpy(), p=found["p"].round(4).to_numpy())
    if out is None:
        typer.echo(made.to_csv(index=False), nl=False)
        return
    write_text(out, made.to_csv(index=False), overwrite=force)
    if not quiet:
        typer.echo(f"{len(made)} rows of {rows}", err=True)
    typer.echo(out)


def _texts(table: Table, text: str | None, text_pair: str | None) -> tuple[list[str], list[str] | None]:
    """The texts of a table and their pairs: the columns that are named, or have the usual names."""
    from soi_lib.data.columns import longest_column, text_columns, text_of

    have = [str(name) for name in table.frame.columns]
    named = [name for name in (text, text_pair) if name is not None]
    for name in named:
        if name not in have:
            raise CorpusError(f"there is no column {name!r}", where=table.where, hint=nearest(name, have))
    chosen = named if text is not None else [*text_columns(have), *named]
    if not chosen and have == ["1"]:  # without a header, what else could it be
        chosen = have
    if not chosen:
        likely = json.dumps(longest_column(table, have), ensure_ascii=False)
        hint = f"name it, such as --text {likely}, and --text-pair for pairs"
        hint += "" if have[0] == "1" else "; give --no-header if the first line is a row already"
        raise CorpusError("no column looks like the text", where=table.where, found=", ".join(have), hint=hint)
    columns = [[text_of(value) for value in table.frame[name]] for name in chosen[:2]]
    empty = [n for n, values in enumerate(zip(*columns, strict=True)) if any(v is None or v == "" for v in values)]
    if empty:
        raise CorpusError(
            f"{len(empty)} rows have no text",
            where=table.where,
            found=table.row(empty[0]),
            hint="fill them, or leave them out",
        )
    return columns[0], columns[1] if len(columns) > 1 else None
