"""Where a member or an encoder is: a repository of the Hugging Face hub at one commit, or a folder.

What is special: a place is described by plain values in a profile, and whatever is wrong with it (no network, another
commit, a split of another name) becomes one line that says what was found there. Nothing of a repository is run, and
the `datasets` library is imported only where it is needed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from soi_lib.data.dataset import SPLITS
from soi_lib.data.table_files import FILE_NAMES, SUFFIXES, read
from soi_lib.errors import CorpusError, SoiError

if TYPE_CHECKING:
    import pandas as pd

_NEEDED = ("train", "test")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")

SplitName = Literal["train", "validation", "test", "ood"]
Drop = Literal["duplicates", "empty", "unknown-labels"]


class Place(BaseModel):
    """A data set or a model: `hub` with its `revision` (a commit, 7 to 40 hex digits), or the `path` of a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub: str | None = Field(default=None, pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str | None = None
    path: str | None = None

    @field_validator("revision", mode="before")
    @classmethod
    def _commit(cls, value: Any) -> str | None:
        # without quotes YAML reads a commit of digits only as a number
        if value is not None and not (isinstance(value, str) and _COMMIT.fullmatch(value)):
            raise ValueError("a revision is a commit of 7 to 40 hex digits, in quotes")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Place:
        if self.hub and self.path:
            raise ValueError("both hub and path are given; one of them")
        if self.hub and not self.revision:
            raise ValueError(f"hub {self.hub} needs its revision, the commit to take, so that it never changes")
        return self


class Source(Place):
    """Where a member is, and how to read it.

    `splits` names the splits there (several candidates, the first that exists counts); the common names are known
    without it, a split that is named must exist, and one that is given as an empty list is left out. `text`,
    `text_pair`, `label`, `id`, `group` are columns, guessed as in `soi_lib.data.table_files` where not named; ids
    are row numbers unless `id` is. `labels` gives names to the values of the label column (several values may have
    one name), which decides whose head is shared. `drop` leaves rows out instead of refusing them: texts that stand
    in an earlier split, rows without text or label, labels that training does not have. `config` is the
    configuration of a hub data set; `note` says why a place is missing.
    """

    config: str | None = None
    splits: dict[SplitName, tuple[str, ...]] = Field(default_factory=dict)
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    id: str | None = None
    group: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    drop: tuple[Drop, ...] = ()
    note: str = ""

    @field_validator("splits", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return {k: (v,) if isinstance(v, str) else v for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return {str(k): v if v is None else str(v) for k, v in value.items()} if isinstance(value, dict) else value

    def identity(self) -> str:
        """Canonical JSON of all that decides which rows come of it, without the path."""
        return json.dumps(self.model_dump(exclude={"path", "note"}), sort_keys=True)

    def __str__(self) -> str:
        return f"{self.hub} at {self.revision}" if self.hub else str(self.path)


@dataclass(frozen=True)
class Table:
    """The rows of one split, where they come from, and the label names that the file itself gives to numbers."""

    frame: pd.DataFrame
    where: str
    names: Mapping[str, list[str]]


def local(name: str, source: Source) -> Source:
    """`source`, or the folder `name` in the folder SOI_DATA, where there is one, in place of a data set of the hub."""
    folder = Path(os.environ.get("SOI_DATA") or os.devnull) / name
    if source.hub is None or not folder.is_dir():
        return source
    return source.model_copy(update={"hub": None, "revision": None, "config": None, "path": str(folder)})


def tables(name: str, source: Source) -> dict[str, Table]:
    """The splits of a source that has a place, as they stand there. Raises CorpusError.

    `train` and `test` must be there, and whatever the source names; `validation` and `ood` may be absent.
    """
    return _from_folder(folder_of(name, source), source) if source.path is not None else _from_hub(source)


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that may hold rows or describe them, sorted."""
    return _visible(folder, (*SUFFIXES, ".arrow", ".json"))


def commit_of(place: Place, kind: Literal["dataset", "model"], error: type[SoiError]) -> str:
    """The whole hash of the commit that `place` may have in short. Asks the hub; raises `error` when that fails."""
    assert place.hub is not None
    assert place.revision is not None
    if len(place.revision) == 40:
        return place.revision
    try:
        from huggingface_hub import HfApi

        found = str(HfApi().repo_info(place.hub, repo_type=kind, revision=place.revision).sha)
    except Exception as failure:
        raise unreachable(place, failure, error) from failure
    if not found.startswith(place.revision):
        raise error("the commit is not there", where=place.hub, found=found[:12], expected=place.revision)
    return found


def unreachable(place: Place, failure: Exception, error: type[SoiError]) -> SoiError:
    """The one-line error for anything that went wrong between here and the hub."""
    from huggingface_hub import constants

    found = (str(failure).strip() or type(failure).__name__).splitlines()[0][:160].rstrip(".")
    hint = "check the name, the commit and the network"
    if constants.HF_HUB_OFFLINE:
        found, hint = "no network allowed (HF_HUB_OFFLINE)", "on a machine with a network set HF_HUB_OFFLINE=0"
    return error(
        "cannot be brought from the hub",
        where=f"{place.hub} at {place.revision}",
        found=found,
        hint=f"{hint}, or give the `path` of a folder with the same content",
    )


def _from_hub(source: Source) -> dict[str, Table]:
    commit = commit_of(source, "dataset", CorpusError)
    try:
        from datasets import load_dataset

        found = load_dataset(source.hub, source.config, revision=commit)
    except Exception as failure:  # the library lets through whatever its own libraries raise
        raise unreachable(source, failure, CorpusError) from failure
    return _from_datasets(found, str(source), source)


def _from_datasets(found: Any, where: str, source: Source) -> dict[str, Table]:
    """Splits of a `datasets.DatasetDict`; columns of the kind ClassLabel bring their names."""
    if not isinstance(found, dict):
        raise CorpusError("holds no splits", where=where, found="one table", hint="save a DatasetDict with its splits")
    tables = {}
    for split, name in _matching(list(found), where, source).items():
        names = {c: list(f.names) for c, f in found[name].features.items() if hasattr(f, "names")}
        tables[split] = Table(found[name].to_pandas(), f"{where}, split {name}", names)
    return tables


def folder_of(name: str, source: Source) -> Path:
    """The folder of a source that has a path. Raises CorpusError when it is none."""
    folder = Path(str(source.path)).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise CorpusError(
            "there is no such folder", where=f"corpora.{name}", found=f"{found} at {folder}", hint="correct its path"
        )
    return folder


def _visible(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of these kinds in a folder and below, hidden ones left out, sorted."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.suffix.lower() in suffixes)
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts))


def _from_folder(folder: Path, source: Source) -> dict[str, Table]:
    """Splits of a folder: what `datasets` saved there, or a file (or shards `-00000-of-00002`) a split."""
    if (folder / "dataset_dict.json").is_file():
        try:
            from datasets import load_from_disk

            found = load_from_disk(str(folder))
        except Exception as failure:
            raise CorpusError(
                "cannot be read as a saved data set", where=folder, found=failure, hint="save it again"
            ) from failure
        return _from_datasets(found, str(folder), source)
    files: dict[str, list[Path]] = {}
    for file in _visible(folder, SUFFIXES):
        files.setdefault(_SHARD.sub("", file.stem), []).append(file)
    tables = {}
    for split, name in _matching(list(files), str(folder), source).items():
        parts = files[name]
        if len(parts) > 1 and not all(_SHARD.search(part.stem) for part in parts):
            raise CorpusError(
                f"several files for the split {split!r}",
                where=folder,
                found=", ".join(str(p.relative_to(folder)) for p in parts),
                hint="leave one of them",
            )
        import pandas as pd

        frame = pd.concat([read(part) for part in parts], ignore_index=True)
        tables[split] = Table(frame, str(parts[0]), _class_names(parts[0]))
    return tables


def _class_names(file: Path) -> dict[str, list[str]]:
    """The label names that `datasets` writes into a Parquet file, by column."""
    if file.suffix.lower() != ".parquet":
        return {}
    import pyarrow.parquet as pq

    text = (pq.read_schema(file).metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    return {c: f["names"] for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}


def _matching(found: list[str], where: str, source: Source) -> dict[str, str]:
    """What each of our splits is called there: the first candidate that exists, in whatever case."""
    there = {name.casefold(): name for name in found}
    out: dict[str, str] = {}
    for split in SPLITS:
        candidates = source.splits.get(split, FILE_NAMES[split])  # type: ignore[call-overload]
        hit = next((there[c.casefold()] for c in candidates if c.casefold() in there), None)
        if hit is not None:
            out[split] = hit
        elif split in _NEEDED or source.splits.get(split):  # type: ignore[call-overload]
            raise CorpusError(
                f"no split for {split!r}",
                where=where,
                found=", ".join(found) or "none",
                expected=" or ".join(candidates),
                hint=f"say what it is called: splits: {{{split}: NAME}}",
            )
    return out
