"""Commands on your own data: `train` and `report`."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from soi_lib.cli.shared import (
    OWN_DATA,
    DeviceOption,
    ForceOption,
    JobsOption,
    JsonOption,
    PrecisionOption,
    QuietOption,
    Texts,
    app,
    print_json,
    printable,
    say,
    table,
)
from soi_lib.errors import CorpusError

if TYPE_CHECKING:
    from soi_lib.data.places import DatasetSpec
    from soi_lib.runs.own import TrainingJob

HeaderOption = Annotated[bool, Option(help="Whether the file has a header row; if not, columns are named 1, 2, ...")]
_EACH = "With several datasets: DATASET=VALUE, once per dataset."
_ROWS = "Training rows: a CSV, TSV, TXT, JSON, JSONL or Parquet file (also .gz), a folder, or OWNER/NAME on the Hub."
_POOLING = """How token vectors become one text vector: their mean, the first token, or BERT's pooler. Models trained
with pooler can also be loaded by `transformers.pipeline`."""
_LOGITS = """Record the logits of all classes, which label-issues needs to suggest labels if there are more than two
classes. Takes 4 bytes x classes x epochs per example."""


# Typer turns the parameters of a function into options, which is why these functions have so many.
@app.command(rich_help_panel=OWN_DATA)
def train(
    out: Annotated[Path, Option("--out", "-o", help="The output folder: runs, models, rows, profile and index.")],
    train_rows: Annotated[str | None, Option("--train", metavar="FILE", help=_ROWS)] = None,
    dataset: Annotated[
        Texts, Option(metavar="NAME=FILE", help="A further dataset, trained alone and with the others; repeatable.")
    ] = None,
    text: Annotated[Texts, Option(metavar="COLUMN", help=f"Column with the texts. {_EACH}")] = None,
    text_pair: Annotated[Texts, Option(metavar="COLUMN", help="Column with the second texts, for pairs.")] = None,
    label: Annotated[Texts, Option(metavar="COLUMN", help="Column with the labels.")] = None,
    id_column: Annotated[
        Texts, Option("--id", metavar="COLUMN", help="Column with the ids [default: id, idx, guid, or row numbers].")
    ] = None,
    test: Annotated[Texts, Option(metavar="FILE", help="Test rows [default: a fifth of the training rows].")] = None,
    ood: Annotated[Texts, Option(metavar="FILE", help="Test rows from another source (out of distribution).")] = None,
    drop: Annotated[Texts, Option(help="Rows to drop: empty, duplicates (between splits), unknown-labels.")] = None,
    label_names: Annotated[
        Texts, Option(metavar="VALUE=NAME", help="Rename a label; an empty NAME treats it as missing.")
    ] = None,
    rows: Annotated[int | None, Option(min=1, help="Use at most this many rows of each split.")] = None,
    separator: Annotated[Texts, Option(help="Column separator, if it is not detected: ; or tab.")] = None,
    encoding: Annotated[Texts, Option(help="Encoding of text files, if not UTF-8: cp1252, utf-16.")] = None,
    header: HeaderOption = True,
    config: Annotated[Texts, Option(metavar="NAME", help="Configuration of a dataset on the Hub.")] = None,
    split: Annotated[Texts, Option(metavar="SPLIT=NAME", help="Split name for train, validation, test or ood.")] = None,
    model: Annotated[str, Option("--model", "-m", help="minilm, e5, a folder, or a model name on the Hub.")] = "minilm",
    epochs: Annotated[int, Option(help="Passes over the training rows, 2 to 64.")] = 10,
    seed: Annotated[list[int] | None, Option(help="Random seed [default: 0]; repeat for a noise floor.")] = None,
    batch_size: Annotated[int, Option(min=1, help="Examples per update.")] = 16,
    learning_rate: Annotated[float | None, Option(min=1e-9, help="[default: 1e-4 for minilm, e5; else 5e-5]")] = None,
    max_length: Annotated[int, Option(min=8, max=512, help="Maximum number of tokens per text.")] = 128,
    pooling: Annotated[Literal["mean", "cls", "pooler"], Option(help=_POOLING)] = "mean",
    no_model: Annotated[bool, Option("--no-model", help="Do not keep the trained models; saves disk space.")] = False,
    keep_logits: Annotated[bool, Option("--keep-logits", help=_LOGITS)] = False,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be done, and write nothing.")] = False,
    force: Annotated[bool, Option("--force", help="Use a folder made with other settings; its runs are kept.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier on your own files, and record how it learns every example in every epoch.

    With several datasets (`--dataset`), each is trained alone and all are trained together. Columns that you do not
    name are guessed, and every guess is printed before training starts. You can stop at any time: the same command
    resumes from the last saved epoch.

    Example: `soi train --train reviews.csv --out reviews`, then `soi report reviews`.
    """
    from soi_lib.runs import own
    from soi_lib.runs.own_folder import below_words, read_index

    each = {
        "text": text, "text_pair": text_pair, "label": label, "id": id_column, "test": test, "ood": ood,
        "separator": separator, "encoding": encoding, "config": config,
    }  # fmt: skip
    request = own.TrainRequest(
        datasets=_datasets(train_rows, dataset, each, label_names, split, drop=drop or (), rows=rows, header=header),
        model=model,
        epochs=epochs,
        seeds=tuple(seed or (0,)),
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_length=max_length,
        pooling=pooling,
        keep_logits=keep_logits,
        device=device,
        precision=precision,
    )
    todo = own.prepare(request, out, force=force)
    finished = todo.finished()
    total = len(todo.settings) * len(todo.profile.seeds)
    if not quiet:
        _preview(todo, own.cost_lines(todo, finished=finished, jobs=jobs, models=not no_model))
    if dry_run:
        typer.echo("nothing was written (--dry-run)", err=True)
        if as_json:
            print_json(own.summary(todo) | {"folder": str(out), "runs": total, "finished": finished})
        return
    own.train(todo, command=shlex.join(["soi", *sys.argv[1:]]), models=not no_model, jobs=jobs, quiet=quiet)
    index = read_index(out)
    already = f"all {total} runs were already done" if total > 1 else "the run was already done"
    say(quiet, f"{already}: nothing was trained" if finished == total else f"done: {out}")
    if as_json:
        print_json({"folder": str(out), "trained": total - finished, **index})
        return
    table(_scores(index))
    for sentence in below_words(index):
        typer.echo(sentence, err=True)
    if not quiet:
        _next(out, index)


@app.command(rich_help_panel=OWN_DATA)
def report(
    place: Annotated[
        Path, typer.Argument(help="An output folder of soi train, a run folder, or a dynamics file.", metavar="DIR")
    ],
    out: Annotated[Path | None, Option(help="The HTML file [default: report.html in the folder].")] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write an HTML report on a training: scores, categories, data maps, moves, and examples to look at.

    The report is a single file that needs no network: open it in a browser, or share it. It contains your texts.
    """
    from soi_lib.report.report import write_report

    path = write_report(place, out, force=force)
    typer.echo(path)
    say(quiet, f"open it in a browser: {path.resolve().as_uri()}")


def _next(out: Path, index: dict[str, Any]) -> None:
    """Print the commands to run next."""
    name, seed = index["members"][0], index["runs"][0]["seed"]
    rows = [row for row in index["runs"] if name in row["dynamics"] and row["seed"] == seed]  # alone, then together
    files = [shlex.quote(str(out / row["dynamics"][name])) for row in rows]
    again = " --force" if (out / "report.html").exists() else ""
    lines = [f"soi report {shlex.quote(str(out))}{again}", f"soi categorize {files[0]}"]
    if model := rows[0].get("model"):
        lines.append(f"soi predict {shlex.quote(str(out / model))} FILE")
        lines.append(f"soi label-issues {files[0]}  # labels that may be wrong")
        lines.append(f"soi second-stage {shlex.quote(str(out))} --dry-run")
    if len(files) > 1:
        lines.append(f"soi compare {files[0]} {files[-1]}  # {name} alone and together, seed {seed}")
    typer.echo("next:\n" + "\n".join(f"  {line}" for line in lines), err=True)


def _scores(index: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row of scores per dataset and run, with dashes for missing scores."""
    from soi_lib.runs.own_folder import company

    splits = [s for s in ("test", "ood") if any(s in m for r in index["runs"] for m in r["scores"].values())]
    rows = []
    for dataset in index["members"]:
        for run in [r for r in index["runs"] if dataset in r["scores"]]:
            scores = run["scores"][dataset]
            row = {"dataset": dataset, "setting": company(run["setting"]), "seed": run["seed"]}
            for split in splits:
                held = {name: f"{scores[split][name]:.3f}" for name in ("accuracy", "macro_f1") if split in scores}
                row[f"{split} accuracy"] = held.get("accuracy", "–")
                row["F1" if split == "test" else f"{split} F1"] = held.get("macro_f1", "–")
            row |= {"unlearned": scores["soi"]["UNE"], "forgotten": scores["soi"]["FRGE_1"] + scores["soi"]["FRGE_2"]}
            rows.append(row)
    return rows


def _preview(todo: TrainingJob, costs: list[str]) -> None:
    """Print what is about to be trained to standard error."""
    splits = [s for s in ("train", "test", "ood") if any(s in d.corpus.splits for d in todo.datasets)]
    rows = []
    for dataset in todo.datasets:
        parts = dataset.corpus.splits
        counts = Counter(dataset.corpus.labels[label] for label in parts["train"].label)
        classes = [f"{printable(name, 24)} {n}" for name, n in counts.most_common(8)]
        classes += [f"and {len(counts) - 8} more"] if len(counts) > 8 else []
        row: dict[str, Any] = {"dataset": dataset.name} | {s: len(parts[s]) if s in parts else "–" for s in splits}
        row |= {"mean words": round(parts["train"].mean_words, 1), "classes (training rows)": ", ".join(classes)}
        rows.append(row)
    table(rows, err=True)
    several = len(todo.datasets) > 1
    of_each = [f"{d.name}: {line}" if several else line for d in todo.datasets for line in d.decisions]
    for line in [*of_each, *todo.decisions, *costs]:
        typer.echo(printable(line, 400), err=True)


def _datasets(
    train_rows: str | None, dataset: Texts, each: dict[str, Texts], label_names: Texts, split: Texts, **shared: Any
) -> dict[str, DatasetSpec]:
    """Return the datasets that the options describe; `each` holds options per dataset, `shared` those for all."""
    from pydantic import ValidationError

    from soi_lib.data.places import DatasetSpec, hub_name

    places = {}
    if train_rows is not None:  # `my-reviews` for `my reviews.csv`, but `own` for `train.csv`
        stem = Path(Path(train_rows.partition("@")[0]).name.removesuffix(".gz")).stem
        name = re.sub(r"[^\w.-]+", "-", stem).strip("-._")
        places["own" if name.lower() in ("", "train", "training") else name] = train_rows
    for value in dataset or []:
        name, _, place = value.partition("=")
        if not name or not place:
            raise CorpusError("a dataset needs a name", where="--dataset", found=repr(value), expected="NAME=FILE")
        if name in places:
            raise CorpusError("two datasets share a name", found=repr(name), hint="rename one: --dataset NAME=FILE")
        places[name] = place
    if not places:
        raise CorpusError("no training data are given", expected="--train FILE, or --dataset NAME=FILE")
    names = list(places)
    options = {part: _of_each(f"--{part.replace('_', '-')}", values, names) for part, values in each.items()}
    labels, splits = _pairs("--label-names", label_names, names), _pairs("--split", split, names)
    specs = {}
    for name, place in places.items():
        hub = hub_name(place)
        values = {"path": place} if hub is None else {"hub": hub[0], "revision": hub[1]}
        values |= {part: found[name][0] for part, found in options.items() if found[name]}
        try:
            specs[name] = DatasetSpec(**values, labels=labels[name], splits=splits[name], strict=False, **shared)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}"
            raise CorpusError(what, where=place, found=repr(first["input"])) from None
    return specs


def _of_each(option: str, values: Texts, names: list[str], *, pairs: bool = False) -> dict[str, list[str]]:
    """Return the values of an option for each dataset: `VALUE` applies to all of them, `DATASET=VALUE` to one.

    A dataset can have one value, or several `pairs` (`KEY=VALUE`); their form for one dataset has two equals signs.
    """
    out: dict[str, list[str]] = {name: [] for name in names}
    for value in values or []:
        name, is_named, rest = value.partition("=")
        own = name in out and is_named and ("=" in rest or not pairs)
        if option == "--test" and not own and len(names) > 1:
            what, expected = "with several datasets, the dataset of these rows must be given", f"{names[0]}={value}"
            raise CorpusError(what, where=option, found=repr(value), expected=expected)
        for one in [name] if own else names:
            out[one].append(rest if own else value)
    for found in out.values():
        if len(found) > 1 and not pairs:
            raise CorpusError("this option is given twice", where=option, found=" and ".join(map(repr, found)))
    return out


def _pairs(option: str, values: Texts, names: list[str]) -> dict[str, dict[str, str]]:
    """Return the `KEY=VALUE` pairs of an option for each dataset; an argument can hold several, separated by commas."""
    out = {}
    for name, given in _of_each(option, values, names, pairs=True).items():
        parts = [part.partition("=") for value in given for part in re.split(r",(?=[^,=]+=)", value)]
        for key, is_pair, value in parts:
            if not is_pair or not key:
                raise CorpusError("this is not a pair", where=option, found=repr(key + value), expected="KEY=VALUE")
        out[name] = {key.strip(): value.strip() for key, _, value in parts}
    return out
