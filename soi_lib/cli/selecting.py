"""Commands that choose examples: a subset to look at or to train on, and labels that may be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from soi_lib.cli.app import app
from soi_lib.cli.shared import (
    DynamicsOrRun,
    EarlyOption,
    ForceOption,
    JsonOption,
    MemberOption,
    QuietOption,
    dynamics_in,
    print_json,
)
from soi_lib.errors import SoiError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FromOption = Annotated[
    Path | None, typer.Option("--from", help="Your own file (.csv, .tsv, .jsonl, .parquet) with these examples.")
]
IdOption = Annotated[
    str | None, typer.Option("--id", help="Its column of ids [default: id, idx or guid, else row numbers].")
]
_ID_FILES = (".txt", ".csv", ".json", ".parquet")
_TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@app.command()
def select(
    file: DynamicsOrRun,
    subsets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Categories (UNE ACE ELE LLE FRGE_1 FRGE_2) or regions of the data map (easy ambiguous hard).",
            metavar="SUBSET...",
        ),
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Draw that many of them [default: all].")] = None,
    balance: Annotated[bool, typer.Option("--balance", help="Equally many examples of every label.")] = False,
    control: Annotated[
        Literal["random"] | None,
        typer.Option("--control", help="Not the subset but its control: as many of each label, from all examples."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="What is drawn at random.")] = 0,
    early: EarlyOption = 0.5,
    fraction: Annotated[float, typer.Option("--fraction", help="The share of all examples in a region.")] = 1 / 3,
    source: FromOption = None,
    id_column: IdOption = None,
    member: MemberOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where to write: ids (.txt .csv .json .parquet), or with --from its copy."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the ids of a subset, or with `--from` the part of your own file that holds it, format and columns kept.

    `soi select run/dynamics/fr.parquet UNE FRGE_1 --n 500 --balance --from train.csv --id id --out hard.csv`. The same
    arguments give the same examples.
    """
    import numpy as np

    from soi_lib.analysis.selection import select as draw

    path, dynamics = dynamics_in(file, member)
    ids = draw(dynamics, _known(subsets or []), n, balance, seed, control, early=early, fraction=fraction)
    chosen = np.isin(dynamics.ids, ids)
    names = dynamics.meta.label_names or tuple(map(str, range(dynamics.meta.classes)))
    counted = np.bincount(dynamics.gold[chosen], minlength=len(names))
    told = {
        "file": str(path), "subset": _known(subsets or []), "control": control, "seed": seed, "n": len(ids),
        "labels": {name: int(count) for name, count in zip(names, counted, strict=True)},
    }  # fmt: skip
    if source is not None:
        if out is None:
            raise SoiError("a filtered copy needs a name", where=source, hint=f"give --out NAME{source.suffix}")
        from soi_lib.corpora.copies import match

        found = match(source, ids.tolist(), id_column)
        found.copy(out, overwrite=force)
        told |= {"from": str(source), "matched": found.by, "out": str(out)}
        _say(quiet, f"{len(ids)} of {len(found.frame)} rows of {source}, found by {found.by}")
    elif id_column is not None:
        raise SoiError("--id names a column of a file that was not given", hint="give the file with --from")
    elif out is not None:
        _write_ids(out, ids, force)
        told["out"] = str(out)
        _say(quiet, f"{len(ids)} of {len(dynamics)} ids")
    if as_json:
        print_json(told if out is not None else told | {"ids": ids.tolist()})
    elif out is not None:
        typer.echo(out)
    else:
        typer.echo("\n".join(map(str, ids.tolist())))


def _known(subsets: list[str]) -> list[str]:
    """Names as the library has them, however they were typed; commas may divide them too."""
    from soi_lib.analysis.cartography import REGIONS
    from soi_lib.analysis.categories import SOI

    names = {name.lower(): name for name in (*(s.name for s in SOI), *REGIONS)}
    given = [part for item in subsets for part in item.split(",") if part]
    return [names.get(item.lower(), item) for item in given]


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        typer.echo(text, err=True)


def _write_ids(out: Path, ids: np.ndarray, force: bool) -> None:
    from soi_lib import atomic

    values = ids.tolist()
    if out.suffix == ".txt":
        if any("\n" in str(i) or "\r" in str(i) for i in values):
            raise SoiError("an id has a line break", where=out, hint="write .json or .parquet")
        atomic.write_text(out, "".join(f"{i}\n" for i in values), overwrite=force)
    elif out.suffix == ".json":
        atomic.write_json(out, values, overwrite=force)
    elif out.suffix in (".csv", ".parquet"):
        import pandas as pd

        _write_table(out, pd.DataFrame({"id": values}), force)
    else:
        raise SoiError(
            "unknown kind of output for ids", where=out, found=repr(out.suffix), expected=" ".join(_ID_FILES)
        )


def _write_table(out: Path, frame: pd.DataFrame, force: bool) -> None:
    """A table in the format that the name of the file says."""
    from soi_lib import atomic

    if out.suffix not in _TABLES:
        raise SoiError("unknown kind of output", where=out, found=repr(out.suffix), expected=" ".join(_TABLES))
    with atomic.replacing(out, overwrite=force) as tmp:
        if out.suffix == ".parquet":
            frame.to_parquet(tmp, index=False)
        elif out.suffix in (".json", ".jsonl"):
            frame.to_json(tmp, orient="records", lines=out.suffix == ".jsonl", force_ascii=False, double_precision=9)
        else:
            frame.to_csv(tmp, index=False, sep="\t" if out.suffix == ".tsv" else ",")
