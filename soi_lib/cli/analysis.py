"""Commands on dynamics files: `categorize`, `compare`, `reliability`, `map`, `select`, `label-issues`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from soi_lib.cli.shared import (
    ANY_DYNAMICS,
    ForceOption,
    JsonOption,
    QuietOption,
    Texts,
    app,
    dynamics_in,
    json_of,
    print_json,
    printable,
    say,
    seeds_in,
    table,
    write_table,
)
from soi_lib.errors import SoiError

if TYPE_CHECKING:
    import pandas as pd

    from soi_lib.dynamics import TrainingDynamics

DynamicsOrRun = Annotated[Path, Argument(help="A dynamics file (.parquet) or the folder of a run.", metavar="FILE")]
DatasetOption = Annotated[str | None, Option(help="The dataset to use, if the run has several.")]
EarlyOption = Annotated[float, Option(help="Examples learned before this share of the epochs are early, others late.")]
FromOption = Annotated[Path | None, Option("--from", help="Your file with these examples, in any format of soi train.")]
IdOption = Annotated[str | None, Option("--id", help="Its id column [default: id, idx or guid, else row numbers].")]


@app.command(rich_help_panel=ANY_DYNAMICS)
def categorize(
    file: DynamicsOrRun, dataset: DatasetOption = None, early: EarlyOption = 0.5, as_json: JsonOption = False
) -> None:
    """Count the examples of a dynamics file in each of the six categories."""
    from soi_lib.analysis.soi import SOI, soi_counts
    from soi_lib.analysis.soi import categorize as codes_of

    file, dynamics = dynamics_in(file, dataset)
    counts = soi_counts(codes_of(dynamics, early))
    if as_json:
        print_json({"file": str(file), "n": len(dynamics), "epochs": dynamics.epochs, "early": early, "soi": counts})
        return
    rows = [
        {"code": soi.name, "category": soi.description.partition(":")[0], "examples": counts[soi.name],
         "share": f"{counts[soi.name] / len(dynamics):.1%}"}
        for soi in SOI
    ]  # fmt: skip
    table(rows, title=f"{len(dynamics)} examples, {dynamics.epochs} epochs")


@app.command(rich_help_panel=ANY_DYNAMICS)
def compare(
    single: Annotated[Path, Argument(help="Dynamics of the first run (the rows).", metavar="SINGLE")],
    multi: Annotated[Path, Argument(help="Dynamics of the second run (the columns).", metavar="MULTI")],
    normalize: Annotated[Literal["row", "all"] | None, Option(help="Shares of each row or of all, not counts.")] = None,
    dataset: DatasetOption = None,
    early: EarlyOption = 0.5,
    as_json: JsonOption = False,
) -> None:
    """Show how examples move between categories from one run to another, as a 6 x 6 table; examples are matched by id.

    Each row shows where the examples of one category in SINGLE end up in MULTI. Give dynamics files or the folders of
    runs; for folders, `--dataset` selects the dataset.
    """
    from soi_lib.analysis.transitions import transition_matrix
    from soi_lib.data.match import check_same_rows

    (one, first), (two, second) = _side(single, dataset), _side(multi, dataset)
    check_same_rows(one, two)
    moves = transition_matrix(first, second, normalize=normalize, early=early)
    if as_json:
        print_json(json_of(moves, "index"))  # shares of an empty row are null
        return
    shown = moves.round(3).astype(object).where(moves.notna(), "–").rename_axis("from / to").reset_index()
    table(shown.to_dict("records"))


def _side(path: Path, dataset: str | None) -> tuple[Path, TrainingDynamics]:
    """Return the file and the dynamics of one side; `dataset` applies only to folders, so files can be mixed in."""
    return dynamics_in(path, dataset if path.is_dir() else None)


@app.command(rich_help_panel=ANY_DYNAMICS)
def reliability(
    runs: Annotated[
        list[Path],
        Argument(
            help="Runs with different seeds: files, run folders, or one output folder of soi train.", metavar="RUN..."
        ),
    ],
    dataset: DatasetOption = None,
    early: EarlyOption = 0.5,
    as_json: JsonOption = False,
) -> None:
    """Show how well the scores of examples agree between seeds, and how many runs to average to make them reliable.

    Agreement is measured between pairs of runs (kappa for categories, Spearman's correlation for other scores; with
    95 % intervals); early and late use only the first and the last half of the epochs. With four or more runs, it is
    also measured between averages of k runs and compared with the prediction from single runs.
    """
    from soi_lib.analysis.reliability import reliability as measure
    from soi_lib.data.match import check_same_rows

    given, runs = runs[0], seeds_in(runs[0], dataset) if len(runs) == 1 else runs
    if len(runs) == 1:
        hint = "give the folders or files of two or more: soi reliability RUN RUN"
        raise SoiError("agreement needs several runs of one setting", where=given, hint=hint)
    sides = [_side(path, dataset) for path in runs]
    for file, _ in sides[1:]:
        check_same_rows(sides[0][0], file)
    found = measure([dynamics for _, dynamics in sides], early=early)
    if as_json:
        about = {"n": found.n, "runs": found.runs, "epochs": found.epochs, "target": found.target}
        scores = {"scores": json_of(found.table), "averaged": json_of(found.curve)}
        print_json(about | scores | {"advice": found.advice})
        return
    needed = f"runs for {found.target:g}"
    table(
        [
            {"score": row["score"], "agreement": f"{_two(row['agreement'])} [{_two(row['low'])}, {_two(row['high'])}]",
             needed: f"{_whole(row['runs_needed'])} ({_whole(row['runs_low'])} to {_whole(row['runs_high'])})",
             "early": _two(row["early"]), "late": _two(row["late"])}
            for row in found.table.to_dict("records")
        ],
        title=f"{found.n} examples, {found.runs} runs, {found.epochs} epochs",
    )  # fmt: skip
    if found.runs >= 4:
        groups = found.curve.groupby("score", sort=False)
        table(
            [
                {"score": str(score)} | {f"k = {row.k}": f"{_two(row.measured)} ({_two(row.predicted)})"  # type: ignore[arg-type]
                                         for row in rows.itertuples()}
                for score, rows in groups
            ],
            title="Between averages of k runs: measured (predicted)",
        )  # fmt: skip
    typer.echo(found.advice)


def _two(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


def _whole(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{value:.0f}"


@app.command("map", rich_help_panel=ANY_DYNAMICS)
def data_map(
    file: DynamicsOrRun,
    out: Annotated[Path | None, Option("--out", "-o", help="A table (.csv, .parquet) or a picture (.png).")] = None,
    dataset: DatasetOption = None,
    early: EarlyOption = 0.5,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the data map of a dynamics file: confidence, variability, correctness and category of every example.

    A picture shows the first three, a table all of them. With `--json` and without `--out`, the table is printed to
    standard output.
    """
    from soi_lib import files
    from soi_lib.analysis.datamap import data_map as map_of
    from soi_lib.analysis.soi import SOI

    file, dynamics = dynamics_in(file, dataset)
    told = {"file": str(file), "n": len(dynamics), "epochs": dynamics.epochs, "early": early}
    if out is None:
        if not as_json:
            raise SoiError("no output is given for the map", where=file, hint="give --out map.png, or --json")
        found = map_of(dynamics, early).to_dict("records")
        print_json(told | {"examples": [row | {"soi": SOI(row["soi"]).name} for row in found]})
        return
    if out.suffix == ".png":
        from soi_lib.plots import data_map_plot

        with files.replacing(out, overwrite=force) as tmp:
            data_map_plot({file.stem: dynamics}, early=early).savefig(tmp, dpi=200)
    else:
        rows = map_of(dynamics, early)
        write_table(out, rows.assign(soi=[SOI(code).name for code in rows["soi"]]), overwrite=force, more=" or .png")
    print_json(told | {"out": str(out)}) if as_json else typer.echo(out)


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
    from soi_lib.data.match import copy_rows, match, trained_rows

    path, dynamics = dynamics_in(file, dataset)
    wanted = _known(subsets or [])
    ids = draw(dynamics, wanted, n, balance, seed, control, early=early, fraction=fraction)
    names = dynamics.meta.label_names or tuple(map(str, range(dynamics.meta.classes)))
    counted = np.bincount(dynamics.gold[np.isin(dynamics.ids, ids)], minlength=len(names)).tolist()
    told = {
        "file": str(path), "subset": wanted, "control": control, "seed": seed, "n": len(ids),
        "labels": dict(zip(names, counted, strict=True)),
    }  # fmt: skip
    if source is not None:
        if out is None:
            hint = f"give --out NAME{source.suffix}"
            raise SoiError("no output is given for the filtered copy", where=source, hint=hint)
        found = match(source, ids.tolist(), id_column, trained_rows(path))
        copy_rows(source, found.table, out, np.sort(found.rows), overwrite=force)  # in the order of the file
        told |= {"from": str(source), "matched": found.by}
        say(quiet, f"{len(ids)} of {len(found.table.frame)} rows of {source}, matched by {found.by}")
    elif id_column is not None:
        raise SoiError("--id is given without a file", hint="give the file with --from")
    elif out is not None:
        _write_ids(out, ids.tolist(), force)
        say(quiet, f"{len(ids)} of {len(dynamics)} ids")
    if as_json:
        print_json(told | ({"ids": ids.tolist()} if out is None else {"out": str(out)}))
    else:
        typer.echo(out or "\n".join(map(str, ids.tolist())))


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
    from soi_lib.data.match import write_corrected

    runs = [dynamics_in(path, dataset) for path in seeds_in(file, dataset)]
    path, dynamics = runs[0]
    if fix is not None:
        if source is None or out is None:
            what, hint = "a corrected copy needs an input file and an output", "give --from FILE and --out NAME"
            raise SoiError(what, where="--fix", hint=hint)
        n, changed = write_corrected(source, fix, path, out, id_column=id_column, overwrite=force)
        say(quiet, f"{changed} of {n} reviewed labels changed")
        typer.echo(out)
        return
    ranking = rank([found for _, found in runs], rule or DEFAULT_RULE)
    if len(runs) > 1:
        say(quiet, f"scores are averaged over {len(runs)} runs")
    ranking.insert(0, "rank", range(1, len(ranking) + 1))
    ranking = ranking.head(top if top is not None else len(ranking) if out is not None else 20)
    ranking["soi"] = [SOI(code).name for code in ranking["soi"]]
    if source is not None:
        ranking = _with_texts(ranking, source, id_column, text or [], path, len(dynamics), quiet)
    elif id_column is not None or text:
        raise SoiError("--id or --text is given without a file", hint="give the file with --from")
    if out is not None:
        write_table(out, ranking, overwrite=force)
        say(quiet, f"{len(ranking)} of {len(dynamics)} examples of {path}")
    if as_json:
        told: dict[str, Any] = {"file": str(path), "rule": rule or DEFAULT_RULE, "n": len(dynamics)}
        print_json(told | ({"out": str(out)} if out is not None else {"label_issues": json_of(ranking)}))
    elif out is not None:
        typer.echo(out)
    else:
        shown = ranking.drop(columns=["gold", "score", "variability", "correctness"])
        if dynamics.meta.classes > 2 and dynamics.logits is None:
            shown = shown.drop(columns="suggested")
            say(quiet, "no labels are suggested: with more than two classes, this needs soi train --keep-logits")
        table(shown.map(_brief).to_dict("records"))


def _with_texts(
    ranking: pd.DataFrame, source: Path, id_column: str | None, text: list[str], path: Path, trained: int, quiet: bool
) -> pd.DataFrame:
    """Return the ranking with the ids and texts of the user's file."""
    from soi_lib.data.match import match, trained_rows

    found = match(source, ranking["id"].tolist(), id_column, trained_rows(path))
    columns, rows = text or list(found.text), len(found.table.frame)
    if not columns:
        have = ", ".join(map(str, found.table.frame.columns))
        raise SoiError("no column looks like the text", where=source, found=have, hint="name it with --text")
    added = found.values(columns).rename(columns={name: f"{name} (file)" for name in columns if name in ranking})
    say(quiet, f"{source}: matched by {found.by}; text from {', '.join(map(repr, columns))}")
    if rows > trained:
        left = f"{rows - trained} of its {rows} rows were not trained on (held out for testing, or left out)"
        say(quiet, f"{left} and are not ranked; to rank all rows, give soi train separate test rows (--test FILE)")
    return ranking.reset_index(drop=True).assign(id=found.keys).join(added)


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


def _write_ids(out: Path, ids: list[Any], force: bool) -> None:
    import pandas as pd

    from soi_lib import files

    if out.suffix == ".txt":
        if any("\n" in str(i) or "\r" in str(i) for i in ids):
            raise SoiError("an id contains a line break", where=out, hint="write .json or .parquet")
        files.write_text(out, "".join(f"{i}\n" for i in ids), overwrite=force)
    elif out.suffix == ".json":
        files.write_json(out, ids, overwrite=force)
    else:
        write_table(out, pd.DataFrame({"id": ids}), overwrite=force, more=" or .txt")
