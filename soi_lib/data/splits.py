"""Where the splits of a dataset are (files named after them, a saved dataset, a hub dataset), or how rows are divided.

Nothing is drawn at random where rows are divided: groups are ordered by size and then by the sha256 of their name with
a salt, and each goes to the split that lacks its classes most. So related rows stay together, the shares by rows come
out as asked, and every split keeps about the class balance of the whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

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
    """The rows of each split, a description of their origin, and the spec with the commit of a hub dataset.

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
    """Raise CorpusError if a spec has neither hub nor path."""
    if spec.path is None and spec.hub is None:
        raise CorpusError(
            f"neither hub nor path is given{f' ({spec.note})' if spec.note else ''}",
            where=f"corpora.{name}",
            expected="hub and revision, or path",
            hint="add one of them to a copy of the profile, or leave the comparison out with --only",
        )


def files_of(spec: DatasetSpec) -> list[Path]:
    """The files on this machine that rows may come from; a dataset is read again when one of them changes."""
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
            raise CorpusError(f"several files for {split!r}", where=folder, found=listed, hint="keep one of them")
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
    except Exception as failure:  # datasets passes on whatever its own libraries raise
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
    """The item of each split, by the usual names or those that the spec gives, in whatever case."""
    known_as = {name.casefold(): name for name in found}
    out: dict[str, T] = {}
    problems = []
    for split in SPLITS:
        named = spec.splits.get(split)  # type: ignore[call-overload]
        known = SPLIT_NAMES[split] if named is None else named
        hits = [known_as[name.casefold()] for name in known if name.casefold() in known_as]
        if hits and (named or len(hits) == 1):
            out[split] = found[hits[0]]
        elif hits or named or split == "train":
            what = f"several splits may be {split!r}" if hits else f"no split for {split!r}"
            others = {n for s, names in SPLIT_NAMES.items() if s != split for n in names}
            name = next((n for n in hits or found if n.casefold() not in others), "NAME")
            hint = f"name it: --split {split}={name} (in a profile splits: {{{split}: {name}}})"
            listed = ", ".join(hits or found) or "none"
            problems.append(CorpusError(what, where=where, found=listed, expected=" or ".join(known), hint=hint))
    raise_all(problems)
    return out


# --- dividing rows ---------------------------------------------------------------------------------------------------


def hashed(text: str, salt: str) -> str:
    """sha256 hex of the text with a salt: the order in which groups are assigned."""
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()


def assign(groups: np.ndarray, label: np.ndarray, shares: Mapping[str, float], salt: str) -> np.ndarray:
    """The split name of each row, object (N,): no group is divided, shares hold by rows, classes stay balanced.

    groups: (N,) str; label: (N,) int. Raises CorpusError when there are fewer groups than splits.
    """
    names, member = np.unique(groups.astype(str), return_inverse=True)
    if len(names) < len(shares):
        raise CorpusError(
            "there are too few groups to split", where=salt, found=len(names), expected=f"at least {len(shares)}"
        )
    counts = np.zeros((len(names), int(label.max()) + 1))
    np.add.at(counts, (member, label), 1)
    sizes = counts.sum(1)
    order = sorted(range(len(names)), key=lambda g: (-sizes[g], hashed(str(names[g]), salt)))
    wanted = np.array(list(shares.values()))
    target = np.outer(wanted / wanted.sum(), np.maximum(counts.sum(0), 1))
    filled = np.zeros_like(target)
    home = np.empty(len(names), dtype=np.int64)
    for g in order:
        need = ((target - filled) / target) @ counts[g]
        home[g] = int(np.argmax(need))
        filled[home[g]] += counts[g]
    return np.array(list(shares), dtype=object)[home[member]]
