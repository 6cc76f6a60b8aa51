"""Where the splits of a dataset are: files named after them, what `datasets` saved to disk, or a hub dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from soi_lib.data.dataset import SPLITS
from soi_lib.data.places import DatasetSpec, commit_of, unreachable
from soi_lib.data.table_files import SUFFIXES, Table, kind_of, read_table
from soi_lib.errors import CorpusError, raise_all

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
    "ood": ("ood", "out_of_distribution", "out-of-distribution"),
}
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")
T = TypeVar("T")


def tables_of(name: str, spec: DatasetSpec) -> tuple[dict[str, Table], str, DatasetSpec]:
    """The rows of each split as they are there, in words where that is, and the spec with the commit that was taken.

    Raises CorpusError, for all files at once.
    """
    check_place(name, spec)
    tables: dict[str, Table] = {}
    files: dict[str, list[Path]] = {}
    path = Path(str(spec.path)).expanduser()
    origin = path.name
    if spec.hub is not None:
        spec = spec.model_copy(update={"revision": commit_of(spec.hub, spec.revision, "dataset", CorpusError)})
        tables, origin = _from_datasets(spec), f"{spec.hub}@{spec.revision}"
    elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        tables = _from_datasets(spec)
    else:
        files = _in_folder(path, spec) if path.is_dir() else {"train": [path]}
    for split, file in (("test", spec.test), ("ood", spec.ood)):
        if file is not None:
            files[split] = [Path(file).expanduser()]
            origin += f", {split} {Path(file).name}"
    problems: list[CorpusError] = []
    for split, paths in files.items():
        try:
            tables[split] = _joined([read_table(one, spec.separator, spec.encoding, spec.header) for one in paths])
        except CorpusError as error:
            problems.append(error)
    raise_all(problems)
    return {split: tables[split] for split in SPLITS if split in tables}, origin, spec


def check_place(name: str, spec: DatasetSpec) -> None:
    """Raise CorpusError when a spec has no place at all, before anything is downloaded."""
    if spec.path is None and spec.hub is None:
        raise CorpusError(
            f"nothing says where the dataset is{f' ({spec.note})' if spec.note else ''}",
            where=f"corpora.{name}",
            expected="hub and revision, or path",
            hint="write one of them into a copy of the profile, or leave its comparison out with --only",
        )


def files_of(spec: DatasetSpec) -> list[Path]:
    """The files on this machine that rows may come from: they decide whether a dataset must be read again."""
    places = [Path(place).expanduser() for place in (spec.path, spec.test, spec.ood) if place is not None]
    return [f for place in places for f in (_visible(place, (*SUFFIXES, ".arrow")) if place.is_dir() else [place])]


def _visible(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of these kinds in a folder and below, hidden ones left out, sorted."""
    files = (f for f in folder.rglob("*") if f.is_file() and kind_of(f) in suffixes)
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _in_folder(folder: Path, spec: DatasetSpec) -> dict[str, list[Path]]:
    """The files of a folder by split: one each, or shards (`train-00000-of-00002.parquet`)."""
    found: dict[str, list[Path]] = {}
    for file in _visible(folder, SUFFIXES):
        found.setdefault(_SHARD.sub("", file.name[: file.name.lower().rindex(kind_of(file))]), []).append(file)
    files = _matching(found, str(folder), spec)
    for split, parts in files.items():
        if len(parts) > 1 and not all(_SHARD.search(part.name) for part in parts):
            listed = ", ".join(str(part.relative_to(folder)) for part in parts)
            raise CorpusError(f"several files for {split!r}", where=folder, found=listed, hint="leave one of them")
    return files


def _joined(tables: list[Table]) -> Table:
    """The shards of a split as one table."""
    import pandas as pd

    if len(tables) == 1:
        return tables[0]
    frame = pd.concat([table.frame for table in tables], ignore_index=True)
    return replace(tables[0], frame=frame, lines=(), spans=())


def _from_datasets(spec: DatasetSpec) -> dict[str, Table]:
    """Splits that `datasets` reads, from disk or the hub; columns of the kind ClassLabel bring their names."""
    try:
        from datasets import load_dataset, load_from_disk

        found: Any = (
            load_dataset(spec.hub, spec.config, revision=spec.revision) if spec.hub else load_from_disk(spec.path)
        )
    except Exception as failure:  # the library lets through whatever its own libraries raise
        if spec.hub:
            raise unreachable(spec, failure, CorpusError) from failure
        what, hint = "cannot be read as a saved dataset", "save it again"
        raise CorpusError(what, where=spec.path, found=failure, hint=hint) from failure
    tables = {}
    for split, part in _matching(found if isinstance(found, dict) else {"train": found}, str(spec), spec).items():
        names = {c: list(f.names) for c, f in part.features.items() if hasattr(f, "names")}
        tables[split] = Table(part.to_pandas().astype(object), f"{spec}, split {part.split or split}", names)
    return tables


def _matching(found: Mapping[str, T], where: str, spec: DatasetSpec) -> dict[str, T]:
    """What each of our splits is called there, in whatever case."""
    there = {name.casefold(): name for name in found}
    out: dict[str, T] = {}
    problems = []
    for split in SPLITS:
        named = spec.splits.get(split)  # type: ignore[call-overload]
        known = SPLIT_NAMES[split] if named is None else named
        hits = [there[name.casefold()] for name in known if name.casefold() in there]
        if hits and (named or len(hits) == 1):
            out[split] = found[hits[0]]
        elif hits or named or split == "train":
            what = f"several splits may be {split!r}" if hits else f"no split for {split!r}"
            others = {n for s, names in SPLIT_NAMES.items() if s != split for n in names}
            name = next((n for n in hits or found if n.casefold() not in others), "NAME")
            hint = f"say what it is called: --split {split}={name} (in a profile splits: {{{split}: {name}}})"
            listed = ", ".join(hits or found) or "none"
            problems.append(CorpusError(what, where=where, found=listed, expected=" or ".join(known), hint=hint))
    raise_all(problems)
    return out
