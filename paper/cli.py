"""`python -m paper`: fetch the data, train, record, make the book."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from soi_lib.cli import doctor
from soi_lib.cli import run as run_app
from soi_lib.cli.shared import (
    DeviceOption,
    ForceOption,
    JobsOption,
    JsonOption,
    PrecisionOption,
    QuietOption,
    Texts,
    print_json,
    table,
)
from soi_lib.errors import SoiError
from soi_lib.files import write_json
from soi_lib.runs import spec
from soi_lib.runs.config import load_profile
from soi_lib.runs.store import RunStore
from soi_lib.training.device import default_jobs

ProfileOption = Annotated[str, typer.Option("--profile", "-p", help="quick, standard, paper, or a YAML file.")]
RunsOption = Annotated[Path, typer.Option(help="The folder that stores runs by key.")]
OnlyOption = Annotated[Texts, typer.Option(help="Keep one comparison (task, source, lingual); may be repeated.")]

app = typer.Typer(
    name="python -m paper",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Reproduce the comparisons of the paper: fetch the data, train, record, make the book.",
)
app.command()(doctor.fetch)


@app.command()
def plan(
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    only: OnlyOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    stages: Annotated[bool, typer.Option("--stages", help="List the profile's second stages as well.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the runs of a profile: key, comparison, setting, seed, state, and about how many minutes one core takes.

    With `--json`, each row also gives the inputs of the run (fingerprints of corpora and encoder), its device,
    precision and kind, and for a stage the key of the run that it starts from (`base`). Planning for a GPU does not
    require one if the precision is given.
    """
    from soi_lib.runs.scheduler import describe_job

    sizes, store = load_profile(profile), RunStore(runs)
    specs: list[spec.Job] = [*spec.plan(sizes, only=only or (), device=device, precision=precision)]
    if stages:
        specs += spec.plan_stages(sizes, only=only or (), device=device, precision=precision)
    rows = [describe_job(job, store) for job in specs]
    if as_json:
        print_json(rows)
        return
    budget = ["budget"] if any(row["budget"] != "full" for row in rows) else []
    shown = ("key", "comparison", "setting", *budget, "seed", *(["stage"] if stages else []), "state", "minutes")
    table([{name: row[name] for name in shown} | {"minutes": f"{row['minutes']:.1f}"} for row in rows])
    left = sum(row["minutes"] for row in rows if row["state"] != "done")
    if left and not quiet:
        jobs = default_jobs("cpu") if specs[0].device == "cpu" else 1
        side = f", about {left / jobs:.0f} with {jobs} runs in parallel" if jobs > 1 else ""
        if specs[0].device != "cpu":
            side = "; for MiniLM, an H100 took a fortieth of the time of two cores"
        typer.echo(f"to do: about {left:.0f} minute{'' if round(left) == 1 else 's'} on one core{side}", err=True)


@app.command()
def run(
    key: Annotated[str, typer.Argument(help="A key listed by `python -m paper plan`, or its first digits.")],
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train one run or stage of a profile, unless it is done, and print its folder."""
    from soi_lib.runs.scheduler import run_all, runs_of

    sizes = load_profile(profile)
    listed: list[spec.Job] = runs_of(sizes, RunStore(runs), device=device, precision=precision)
    listed += spec.plan_stages(sizes, device=device, precision=precision)
    specs = [job for job in listed if job.key.startswith(key)]
    if len(specs) != 1:
        raise SoiError(
            "no run has this key" if not specs else "several runs have keys that begin with this",
            where=f"profile {profile}",
            found=repr(key),
            hint=f"`python -m paper plan --profile {profile}` lists the keys; they depend on --device and --precision",
        )
    (done,) = run_all(specs, RunStore(runs), jobs=1, quiet=quiet)
    typer.echo(done.folder)


@app.command()
def reproduce(
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    only: OnlyOption = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    keep: Annotated[bool, typer.Option("--record", help="Also copy the runs to data/recorded/PROFILE.")] = False,
    reuse: Annotated[
        Path | None, typer.Option("--reuse", help="First copy the runs of a recorded folder into the store.")
    ] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train all missing runs of a profile, and print the folders of all runs.

    You can stop it at any time: the same command continues with the missing runs.
    """
    from paper import recorded
    from soi_lib.runs import scheduler

    sizes, store = load_profile(profile), RunStore(runs)
    if reuse is not None:
        recorded.reuse(reuse, store)
    how: dict[str, Any] = {"only": only or (), "device": device, "precision": precision, "jobs": jobs, "quiet": quiet}
    done = scheduler.reproduce(sizes, store, **how)
    stages = scheduler.reproduce_stages(sizes, store, **how)
    if keep:
        typer.echo(recorded.record(sizes, done, Path("data/recorded") / sizes.name, stages=stages, force=force))
    for one in [*done, *stages]:
        typer.echo(one.folder)


@app.command()
def results(
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    only: OnlyOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file instead of standard output.")] = None,
) -> None:
    """Summarise the finished runs of a profile as JSON, as `make book` does in _build/results.json.

    Trains nothing: a missing run is an error.
    """
    from paper.recorded import finished, summary
    from soi_lib.runs.run import commit

    sizes = load_profile(profile)
    done = finished(sizes, RunStore(runs), only=only or (), device=device, precision=precision)
    value = summary(sizes, done, commit())
    if out is None:
        print_json(value)
    else:
        write_json(out, value)
        typer.echo(out)


@app.command()
def book(
    profile: ProfileOption = "quick",
    runs: RunsOption = Path("runs"),
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train what is missing, compare it with the recorded runs, write _build/results.json, render _build/html.

    Run it in a checkout of the project. If nothing has changed, it does nothing. `--profile recorded` trains nothing.
    """
    from paper.build import make_book

    made, verdict = make_book(Path.cwd(), profile, runs, device=device, precision=precision, jobs=jobs, quiet=quiet)
    typer.echo(verdict)
    typer.echo(made)


@app.command()
def pdf(quiet: QuietOption = False) -> None:
    """Print the book made by `make book` as one file, _build/book.pdf. Needs Chromium."""
    from paper.pdf import write_pdf

    typer.echo(write_pdf(Path.cwd(), quiet=quiet))


@app.command()
def crate() -> None:
    """Describe the recorded runs, the results and the book as an RO-Crate, in _build/ro-crate-metadata.json."""
    from paper.crate import write_crate

    typer.echo(write_crate(Path.cwd()))


@app.command()
def notebooks(quiet: QuietOption = False) -> None:
    """Execute the project's notebooks in place on the recorded runs, ready to commit."""
    from paper.build import refresh_notebooks

    for path in refresh_notebooks(Path.cwd(), quiet=quiet):
        typer.echo(path)


def main() -> None:
    """Entry point of `python -m paper`."""
    run_app(app, "python -m paper")
