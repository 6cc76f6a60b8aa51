"""Commands for data and models of one's own: train on files, and make a page of what came out."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soi_lib.cli.app import app
from soi_lib.cli.shared import (
    DeviceOption,
    ForceOption,
    JobsOption,
    JsonOption,
    PrecisionOption,
    QuietOption,
    print_json,
    table,
)
from soi_lib.errors import CorpusError, nearest

if TYPE_CHECKING:
    from soi_lib.data.own import Given
    from soi_lib.runs.own import Undertaking

_EACH = "With several members MEMBER=VALUE, once for each."
Texts = list[str] | None


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for runs, rows, profile and index.")],
    train_rows: Annotated[
        str | None,
        typer.Option(
            "--train", metavar="FILE", help="Training rows: CSV, TSV, JSONL, Parquet, or OWNER/NAME on the hub."
        ),
    ] = None,
    member: Annotated[
        Texts,
        typer.Option(
            "--member", metavar="NAME=FILE", help="A further data set, trained alone and together; repeatable."
        ),
    ] = None,
    text: Annotated[Texts, typer.Option("--text", metavar="COLUMN", help=f"Column of texts. {_EACH}")] = None,
    text_pair: Annotated[
        Texts, typer.Option("--text-pair", metavar="COLUMN", help="Column of second texts, for pairs.")
    ] = None,
    label: Annotated[Texts, typer.Option("--label", metavar="COLUMN", help="Column of labels.")] = None,
    id_column: Annotated[
        Texts, typer.Option("--id", metavar="COLUMN", help="Column of ids [default: id, idx, guid, or row numbers].")
    ] = None,
    test: Annotated[
        Texts, typer.Option("--test", metavar="FILE", help="Rows to test on [default: a fifth of the training rows].")
    ] = None,
    ood: Annotated[
        Texts, typer.Option("--ood", metavar="FILE", help="Rows from elsewhere, to test on out of distribution.")
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", help="Leave out, not refuse: empty, duplicates (between splits), unknown-labels."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="minilm, e5, the folder of a model, or its name on the hub.")
    ] = "minilm",
    epochs: Annotated[int, typer.Option("--epochs", help="Times through the data, 2 to 64.")] = 10,
    seed: Annotated[
        list[int] | None, typer.Option("--seed", help="A seed [default: 0]; repeat for a noise floor.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples in an update.")] = 16,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", min=1e-9, help="[default: 1e-4; 5e-5 for a model of your own]")
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=8, max=512, help="Tokens of a text that are read.")
    ] = 128,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done; write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Use a folder made with other settings; its finished runs stay in it.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train on your own files, and record what every example does in every epoch.

    One data set is trained alone; with several (`--member`) each is trained alone and all are trained together. Columns
    are guessed where you do not name them, and every guess is said before training starts. Stop it at any time: the
    same command continues (a run's state is kept once a minute).

    `soi train --train reviews.csv --out reviews` ... then `soi report reviews`.
    """
    from soi_lib.runs import own

    wish = own.Wish(
        members=_members(train_rows, member, text, text_pair, label, id_column, test, ood, drop),
        model=model,
        epochs=epochs,
        seeds=tuple(seed or (0,)),
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_length=max_length,
        device=device,
        precision=precision,
    )
    todo = own.prepare(wish, out, force=force)
    finished = todo.finished()
    total = len(todo.settings) * len(todo.profile.seeds)
    if not quiet:
        _preview(todo, finished, total, own.minutes(todo, finished=finished, jobs=jobs))
    if dry_run:
        typer.echo("nothing was written (--dry-run)", err=True)
        return
    own.train(todo, command=shlex.join(["soi", *sys.argv[1:]]), jobs=jobs, quiet=quiet)
    index = own.read_index(out)
    if not quiet:
        done = f"all {total} runs were done already" if total > 1 else "the run was done already"
        typer.echo(f"{done}: nothing was trained" if finished == total else f"done: {out}", err=True)
    if as_json:
        print_json({"folder": str(out), "trained": total - finished, **index})
        return
    table(_scores(index))
    if not quiet:
        _next(out, index)


def _next(out: Path, index: dict[str, Any]) -> None:
    """The commands that one gives after this one."""
    name, seed = index["members"][0], index["runs"][0]["seed"]
    rows = [row for row in index["runs"] if name in row["dynamics"] and row["seed"] == seed]  # alone, then together
    files = [shlex.quote(str(out / row["dynamics"][name])) for row in rows]
    lines = [f"soi report {shlex.quote(str(out))}", f"soi categorize {files[0]}"]
    if len(files) > 1:
        lines.append(f"soi compare {files[0]} {files[-1]}  # {name} alone and together, both of seed {seed}")
    typer.echo("next:\n" + "\n".join(f"  {line}" for line in lines), err=True)


def _scores(index: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a member and run: its scores; a dash where there is none."""
    splits = [s for s in ("test", "ood") if any(s in m for r in index["runs"] for m in r["scores"].values())]
    rows = []
    for member in index["members"]:
        for run in [r for r in index["runs"] if member in r["scores"]]:
            scores = run["scores"][member]
            row: dict[str, Any] = {"member": member, "setting": "alone" if len(run["setting"]) == 1 else "together"}
            row["seed"] = run["seed"]
            for split in splits:
                held = scores.get(split)
                row[f"{split} accuracy"] = "–" if held is None else f"{held['accuracy']:.3f}"
                row["F1" if split == "test" else f"{split} F1"] = "–" if held is None else f"{held['macro_f1']:.3f}"
            row |= {"unlearned": scores["soi"]["UNE"], "forgotten": scores["soi"]["FRGE_1"] + scores["soi"]["FRGE_2"]}
            rows.append(row)
    return rows


def _preview(todo: Undertaking, finished: int, total: int, minutes: float) -> None:
    """What is about to be trained, on standard error."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from soi_lib.training.device import default_jobs

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    splits = [s for s in ("train", "test", "ood") if any(s in member.rows for member in todo.members)]
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("member", overflow="fold")
    for split in splits:
        shown.add_column(split, justify="right")
    shown.add_column("mean words", justify="right")
    shown.add_column("classes (training rows)", overflow="fold")
    for member in todo.members:
        counts = member.rows["train"]["label"].value_counts()
        classes = [f"{_clean(str(name), 24)} {n}" for name, n in counts.head(8).items()]
        classes += [f"and {len(counts) - 8} more"] if len(counts) > 8 else []
        words = member.corpus.summary()[0]["mean_words"]
        sizes = [str(len(member.rows[s])) if s in member.rows else "–" for s in splits]
        shown.add_row(member.name, *sizes, f"{words:.1f}", Text(", ".join(classes)))
    Console(stderr=True, highlight=False).print(shown)
    for member in todo.members:
        for sentence in member.said:
            prefix = f"{member.name}: " if len(todo.members) > 1 else ""
            console.print(Text(_clean(prefix + sentence, 400)))
    for sentence in todo.said:
        console.print(Text(_clean(sentence, 400)))
    part = todo.profile.comparisons["user"]
    seeds = f"seed{'s' if len(todo.profile.seeds) > 1 else ''} {', '.join(map(str, todo.profile.seeds))}"
    what = (
        f"{total} run{'s' if total > 1 else ''} of {todo.profile.training.epochs} epochs with {part.encoder}, {seeds}"
    )
    if finished == total:
        console.print(f"runs: {what}; all done")
        return
    done = f"; {finished} done already" if finished else ""
    time = (
        "under a minute"
        if minutes < 0.8
        else f"about {minutes:.0f} minutes"
        if minutes < 90
        else f"{minutes / 60:.1f} hours"
    )
    cores = default_jobs("cpu")
    if todo.device == "cpu":
        console.print(f"runs: {what}{done}; {time} on {cores} core{'s' if cores > 1 else ''} (a rough estimate)")
    else:
        console.print(f"runs: {what}{done}")


def _clean(text: str, longest: int) -> str:
    """Text of a file as a terminal may show it: no control characters, not endless."""
    plain = "".join(c if c.isprintable() else "�" for c in text)
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


# --- what the options say of each member ----------------------------------------------------------------------------


def _members(
    train_rows: str | None,
    member: Texts,
    text: Texts,
    text_pair: Texts,
    label: Texts,
    id_column: Texts,
    test: Texts,
    ood: Texts,
    drop: list[str] | None,
) -> tuple[Given, ...]:
    """The members as the options describe them. Raises CorpusError."""
    from typing import get_args

    from soi_lib.data.own import Given
    from soi_lib.data.places import Drop

    places = [] if train_rows is None else [(_name(train_rows), train_rows)]
    for value in member or []:
        name, is_named, place = value.partition("=")
        if not is_named or not name or not place:
            raise CorpusError("a member needs a name", where="--member", found=repr(value), expected="NAME=FILE")
        places.append((name, place))
    if not places:
        raise CorpusError("there is nothing to train on", expected="--train FILE, or --member NAME=FILE")
    for kind in drop or []:
        if kind not in get_args(Drop):
            raise CorpusError(
                "unknown kind of rows", where="--drop", found=repr(kind), hint=nearest(kind, get_args(Drop))
            )
    names = [name for name, _ in places]
    columns = {
        "text": _each("--text", text, names),
        "text_pair": _each("--text-pair", text_pair, names),
        "label": _each("--label", label, names),
        "id": _each("--id", id_column, names),
        "test": _each("--test", test, names, shared=False),
        "ood": _each("--ood", ood, names),
    }
    own = [{part: values.get(name) for part, values in columns.items()} for name in names]
    kinds: Any = tuple(drop or ())
    return tuple(Given(n, place, drop=kinds, **given) for (n, place), given in zip(places, own, strict=True))


def _name(place: str) -> str:
    """A member's name out of its file: `my reviews.csv` is `my-reviews`; plain `train.csv` is `own`."""
    stem = Path(place.partition("@")[0]).stem
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-._")
    return "own" if name.lower() in ("", "train", "training") else name


def _each(option: str, values: Sequence[str] | None, names: list[str], *, shared: bool = True) -> dict[str, str]:
    """The value of an option for each member: `VALUE` for all of them, `MEMBER=VALUE` for one."""
    out: dict[str, str] = {}
    for value in values or []:
        name, is_named, rest = value.partition("=")
        own = [name] if is_named and name in names else names
        if own is names and len(names) > 1 and not shared:
            raise CorpusError(
                "with several members it must be said whose rows these are",
                where=option,
                found=repr(value),
                expected=f"{names[0]}={value}",
            )
        for one in own:
            if one in out and (own is not names or len(values or []) > 1):
                raise CorpusError("this is given twice", where=option, found=f"{out[one]!r} and {value!r}")
            out[one] = rest if own is not names else value
    return out


Output = Annotated[Path | None, typer.Option("--out", "-o", help="The page [default: report.html in the folder].")]


@app.command()
def report(
    place: Annotated[
        Path, typer.Argument(help="A folder that soi train made, a run's folder, or a dynamics file.", metavar="DIR")
    ],
    out: Output = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make one HTML page of a training: scores, categories, data maps, moves, and examples to look at.

    The page needs no network and no other file: open it in a browser, send it to somebody. It contains the texts.
    """
    from soi_lib.report.report import write_report

    path = write_report(place, out, force=force)
    typer.echo(path)
    if not quiet:
        typer.echo(f"open it in a browser: {path.resolve().as_uri()}", err=True)
