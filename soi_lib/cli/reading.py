"""Commands that analyse dynamics files: `categorize`, `compare`, `reliability`, `map`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from soi_lib.cli.shared import (
    ANY_DYNAMICS,
    DatasetOption,
    DynamicsOrRun,
    EarlyOption,
    ForceOption,
    JsonOption,
    app,
    category_name,
    dynamics_in,
    json_of,
    print_json,
    seeds_in,
    table,
    write_table,
)
from soi_lib.errors import SoiError

if TYPE_CHECKING:
    from soi_lib.dynamics import TrainingDynamics


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
        {"code": soi.name, "category": category_name(soi), "examples": counts[soi.name],
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
    table([{str(name): value for name, value in row.items()} for row in shown.to_dict("records")])


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
