"""Commands that pick out examples: `select` for a subset, `label-issues` for labels that may be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from soi_lib.cli.shared import (
    ANY_DYNAMICS,
    DatasetOption,
    DynamicsOrRun,
    EarlyOption,
    ForceOption,
    JsonOption,
    QuietOption,
    Texts,
    app,
    dynamics_in,
    json_of,
    print_json,
    printable,
    seeds_in,
    table,
    write_table,
)
from soi_lib.errors import SoiError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FromOption = Annotated[Path | None, Option("--from", help="Your file with these examples, in any format of soi train.")]
IdOption = Annotated[str | None, Option("--id", help="Its id column [default: id, idx or guid, else row numbers].")]


# Typer turns the parameters of a function into options, which is why these functions have so many.
@app.command(rich_help_panel=ANY_DYNAMICS)
def select(
    file: DynamicsOrRun,
    subsets: Annotated[
        Texts,
        Argument(
            help="Categories (UNE ACE ELE LLE FRGE_1 FRGE_2) or regions of the data map (easy ambiguous hard); "
            "several are combined.",
            metavar="SUBSET...",
        ),
    ] = None,
    n: Annotated[int | None, Option("--n", "-n", help="Number of examples to draw at random [default: all].")] = None,
    balance: Annotated[bool, Option("--balance", help="Draw equally many examples of each label.")] = False,
    control: Annotated[
        Literal["random"] | None,
        Option(help="Draw a control instead: as many examples of each label, from all examples."),
    ] = None,
    seed: Annotated[int, Option(help="Seed of the random draw.")] = 0,
    early: EarlyOption = 0.5,
    fraction: Annotated[float, Option(help="Share of all examples in each region of the data map.")] = 1 / 3,
    source: FromOption = None,
    id_column: IdOption = None,
    dataset: DatasetOption = None,
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="The output: ids (.txt .csv .json .parquet) or, with --from, the filtered copy."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the ids of a subset or, with `--from`, its rows in your own file, in the same format and with all columns.

    Example: `soi select run/dynamics/fr.parquet UNE FRGE_1 --n 500 --balance --from train.csv --id id --out hard.csv`.
    The same arguments always select the same examples.
    """
    import numpy as np

    from soi_lib.analysis.selection import select as draw

    path, dynamics = dynamics_in(file, dataset)
    ids = draw(dynamics, _known(subsets or []), n, balance, seed, control, early=early, fraction=fraction)
    names = dynamics.meta.label_names or tuple(map(str, range(dynamics.meta.classes)))
    counted = np.bincount(dynamics.gold[np.isin(dynamics.ids, ids)], minlength=len(names)).tolist()
    told = {
        "file": str(path), "subset": _known(subsets or []), "control": control, "seed": seed, "n": len(ids),
        "labels": dict(zip(names, counted, strict=True)),
    }  # fmt: skip
    if source is not None:
        told |= _copy(source, ids, id_column, path, out, force=force, quiet=quiet)
    elif id_column is not None:
        raise SoiError("--id is given without a file", hint="give the file with --from")
    elif out is not None:
        _write_ids(out, ids, force)
        told["out"] = str(out)
        _say(quiet, f"{len(ids)} of {len(dynamics)} ids")
    if as_json:
        print_json(told if out is not None else told | {"ids": ids.tolist()})
    else:
        typer.echo(out or "\n".join(map(str, ids.tolist())))


def _copy(
    source: Path, ids: np.ndarray, id_column: str | None, dynamics: Path, out: Path | None, *, force: bool, quiet: bool
) -> dict[str, str]:
    """Write the rows of the user's file with these `ids` to `out`; return a summary as JSON values."""
    import numpy as np

    from soi_lib.data.match import copy_rows, match, trained_rows

    if out is None:
        raise SoiError("no output is given for the filtered copy", where=source, hint=f"give --out NAME{source.suffix}")
    found = match(source, ids.tolist(), id_column, trained_rows(dynamics))
    copy_rows(source, found.table, out, np.sort(found.rows), overwrite=force)  # in the order of the file
    _say(quiet, f"{len(ids)} of {len(found.table.frame)} rows of {source}, matched by {found.by}")
    return {"from": str(source), "matched": found.by, "out": str(out)}


@app.command("label-issues", rich_help_panel=ANY_DYNAMICS)
def label_issues(
    file: DynamicsOrRun,
    top: Annotated[
        int | None, Option("--top", "-n", min=1, help="Number of examples [default: 20 on the screen, all in a file].")
    ] = None,
    rule: Annotated[str, Option(help="Ranking rule; the library reference lists the rules.")] = "",
    source: FromOption = None,
    id_column: IdOption = None,
    text: Annotated[Texts, Option(help="Column of your file to add; repeatable.")] = None,
    dataset: DatasetOption = None,
    fix: Annotated[
        Path | None,
        Option(help='Write a copy of --from with the labels of this reviewed list instead (columns id, "corrected").'),
    ] = None,
    out: Annotated[
        Path | None, Option("--out", "-o", help="The output: a ranking (.csv .tsv .jsonl .json .parquet) or the copy.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rank examples by how likely their label is wrong, judging by how the model learned them; most suspicious first.

    `soi label-issues run --from train.csv --top 50 --out review.csv` adds the texts. "given" is the current label of
    the example, "suggested" the label that the model preferred.

    Review each example before you change its label. With a tenth of the labels flipped, average precision was 1.0, 0.8
    and 0.2 on three corpora, and the ranking cannot tell errors from examples on which people disagree.

    Afterwards, delete the rows that you did not review, add a column "corrected" with the right label of each remaining
    row, and write a corrected copy: `soi label-issues run --from train.csv --fix review.csv --out corrected.csv`.
    """
    from soi_lib.analysis.label_issues import DEFAULT_RULE
    from soi_lib.analysis.label_issues import label_issues as rank
    from soi_lib.analysis.soi import SOI

    runs = [dynamics_in(path, dataset) for path in seeds_in(file, dataset)]
    path, dynamics = runs[0]
    if fix is not None:
        _fix(fix, source, path, out, id_column, force=force, quiet=quiet)
        return
    ranking = rank([found for _, found in runs], rule or DEFAULT_RULE)
    if len(runs) > 1:
        _say(quiet, f"scores are averaged over {len(runs)} runs")
    ranking.insert(0, "rank", range(1, len(ranking) + 1))
    ranking = ranking.head(top if top is not None else len(ranking) if out is not None else 20)
    ranking["soi"] = [SOI(code).name for code in ranking["soi"]]
    if source is not None:
        ranking = _with_texts(ranking, path, source, id_column, text, len(dynamics), quiet)
    elif id_column is not None or text:
        raise SoiError("--id or --text is given without a file", hint="give the file with --from")
    if out is not None:
        write_table(out, ranking, overwrite=force)
        _say(quiet, f"{len(ranking)} of {len(dynamics)} examples of {path}")
    if as_json:
        told: dict[str, Any] = {"file": str(path), "rule": rule or DEFAULT_RULE, "n": len(dynamics)}
        print_json(told | ({"out": str(out)} if out is not None else {"label_issues": json_of(ranking)}))
    elif out is not None:
        typer.echo(out)
    else:
        shown = ranking.drop(columns=["gold", "score", "variability", "correctness"])
        if dynamics.meta.classes > 2 and dynamics.logits is None:
            shown = shown.drop(columns="suggested")
            _say(quiet, "no labels are suggested: with more than two classes, this needs soi train --keep-logits")
        table([{str(name): _brief(value) for name, value in row.items()} for row in shown.to_dict("records")])


def _fix(
    reviewed: Path,
    source: Path | None,
    dynamics: Path,
    out: Path | None,
    id_column: str | None,
    *,
    force: bool,
    quiet: bool,
) -> None:
    """Write a copy of the user's file with the labels from a reviewed list."""
    from soi_lib.data.match import write_corrected

    if source is None or out is None:
        what, hint = "a corrected copy needs an input file and an output", "give --from FILE and --out NAME"
        raise SoiError(what, where="--fix", hint=hint)
    n, changed = write_corrected(source, reviewed, dynamics, out, id_column=id_column, overwrite=force)
    _say(quiet, f"{changed} of {n} reviewed labels changed")
    typer.echo(out)


def _with_texts(
    ranking: pd.DataFrame,
    dynamics: Path,
    source: Path,
    id_column: str | None,
    text: Texts,
    n: int,
    quiet: bool,
) -> pd.DataFrame:
    """Return the ranking with the ids and text columns of the user's file; print which columns were guessed."""
    import pandas as pd

    from soi_lib.data.match import match, trained_rows

    found = match(source, ranking["id"].tolist(), id_column, trained_rows(dynamics))
    columns = text or list(found.text)
    if not columns:
        have = ", ".join(map(str, found.table.frame.columns))
        raise SoiError("no column looks like the text", where=source, found=have, hint="name it with --text")
    beside = found.values(columns).rename(columns={name: f"{name} (file)" for name in columns if name in ranking})
    _say(quiet, f"{source}: matched by {found.by}; text from {', '.join(map(repr, columns))}")
    if (rest := len(found.table.frame) - n) > 0:
        _say(
            quiet,
            f"{rest} of its {len(found.table.frame)} rows were not trained on (held out for testing, or left out) and "
            "are not ranked; to rank all rows, give soi train separate test rows (--test FILE)",
        )
    return pd.concat([ranking.reset_index(drop=True).assign(id=found.keys), beside], axis=1)


def _brief(value: Any) -> Any:
    """Shorten a value for a table cell: numbers to three decimals, texts to one line, missing values to nothing."""
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return round(value, 3)
    return value if isinstance(value, int) else printable(" ".join(str(value).split()), 100)


def _known(subsets: list[str]) -> list[str]:
    """Return the canonical names of subsets, ignoring case and splitting at commas."""
    from soi_lib.analysis.datamap import REGIONS
    from soi_lib.analysis.soi import SOI

    names = {name.lower(): name for name in (*(s.name for s in SOI), *REGIONS)}
    given = [part for item in subsets for part in item.split(",") if part]
    return [names.get(item.lower(), item) for item in given]


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        typer.echo(text, err=True)


def _write_ids(out: Path, ids: np.ndarray, force: bool) -> None:
    import pandas as pd

    from soi_lib import files

    values = ids.tolist()
    if out.suffix == ".txt":
        if any("\n" in str(i) or "\r" in str(i) for i in values):
            raise SoiError("an id contains a line break", where=out, hint="write .json or .parquet")
        files.write_text(out, "".join(f"{i}\n" for i in values), overwrite=force)
    elif out.suffix == ".json":
        files.write_json(out, values, overwrite=force)
    else:
        write_table(out, pd.DataFrame({"id": values}), overwrite=force, more=" or .txt")
