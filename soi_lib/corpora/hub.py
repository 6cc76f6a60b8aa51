"""Members of your own: data sets of the Hugging Face hub, by name and commit, or folders with the same columns.

What is special: a profile describes a member (where it is, which columns, what its labels mean) and gets the same
checked `Corpus` as the members that ship with the library. What was read is kept under its fingerprint, so runs find
it again without the hub, and the same rows from a hub and from a folder are the same corpus. Real data sets repeat
texts and leave fields empty; such rows are refused, or left out and counted, as the profile says, never passed over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from soi_lib import atomic, packages
from soi_lib.corpora import store
from soi_lib.corpora.base import SPLITS, Card, Corpus, Split, make, normalise
from soi_lib.corpora.files import FILE_NAMES, SUFFIXES, Columns, guess, read
from soi_lib.corpora.splits import hashed
from soi_lib.errors import CorpusError, SoiError
from soi_lib.paths import cache_dir

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("soi_lib")

_VERSION = 1  # part of the name under which a corpus is kept: raise it when what `build` makes of a source changes
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
    without it, and a split that is named must exist. `text`, `text_pair`, `label`, `id`, `group` are columns, guessed
    as in `soi_lib.corpora.files` where not named; ids are row numbers unless `id` is. `labels` gives names to the
    values of the label column (several values may have one name), which decides whose head is shared. `drop` leaves
    rows out instead of refusing them: texts that stand in an earlier split, rows without text or label, labels that
    training does not have. `config` is the configuration of a hub data set; `note` says why a place is missing.
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
class _Table:
    """The rows of one split, where they come from, and the label names that the file itself gives to numbers."""

    frame: pd.DataFrame
    where: str
    names: Mapping[str, list[str]]


def load(name: str, source: Source) -> Corpus:
    """The member `name`, read from its source, or from the cache where the same source was read before.

    A source of the hub that is in the cache needs no network; a folder is read again when a file in it has changed.
    Raises CorpusError for a source that cannot be reached or read, and for all that `build` refuses.
    """
    if source.path is None and source.hub is None:
        note = f" ({source.note})" if source.note else ""
        raise CorpusError(
            f"nothing says where the member is{note}",
            where=f"corpora.{name}",
            expected="hub and revision, or path",
            hint="write one of them into a copy of the profile, or leave its comparison out with --only",
        )
    index = cache_dir() / "corpora" / "given" / f"{name}-{_key(name, source)}.json"
    if index.exists():
        try:
            return kept(name, json.loads(index.read_text(encoding="utf-8"))["fingerprint"])
        except (CorpusError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s; reading %s again", error, source)
    corpus = build(name, source)
    store.write(_place(name, corpus.fingerprint), corpus)
    atomic.write_json(index, {"fingerprint": corpus.fingerprint, "source": str(source)})
    return corpus


def kept(name: str, fingerprint: str) -> Corpus:
    """The corpus that `load` kept under this fingerprint. Raises CorpusError when it is not there, or damaged."""
    path = _place(name, fingerprint)
    if not path.exists():
        raise CorpusError(
            "the corpus is not in the cache",
            where=name,
            found=f"no {path.name}",
            hint="`soi plan` with the profile that names its source brings it",
        )
    corpus = store.read(path)
    if corpus.fingerprint != fingerprint:
        raise CorpusError(
            "the file holds another corpus", where=path, found=corpus.fingerprint[:12], expected=fingerprint[:12]
        )
    return corpus


def is_kept(name: str, fingerprint: str) -> bool:
    """Whether `kept` has it."""
    return _place(name, fingerprint).exists()


def _place(name: str, fingerprint: str) -> Path:
    return cache_dir() / "corpora" / "given" / f"{name}-{fingerprint[:32]}.parquet"


def _key(name: str, source: Source) -> str:
    """What a source is known by: its description and, for a folder, the content of its files."""
    digest = hashlib.sha256(f"{_VERSION} {source.identity()}".encode())
    if source.path is not None:
        folder = _folder(name, source)
        for file in _visible(folder, (*SUFFIXES, ".arrow", ".json")):
            digest.update(f"\n{file.relative_to(folder).as_posix()} {packages.stamped_sha256(file)}".encode())
    return digest.hexdigest()[:20]


def build(name: str, source: Source) -> Corpus:
    """The corpus of a source, read anew. Raises CorpusError, naming split and row, for every fault of the data.

    There must be `train` and `test`; `validation` and `ood` may be absent.
    """
    tables = _from_folder(_folder(name, source), source) if source.path else _from_hub(source)
    named = {part: getattr(source, part) for part in ("text", "text_pair", "label", "id", "group")}
    columns = replace(guess(tables["train"].frame, Path(tables["train"].where), named), id=source.id)
    counts: dict[str, int] = {}
    frames = {}
    for split, table in tables.items():
        rows = _rows(table, split, columns, source.labels)
        frames[split], counts[f"{split}, no text or label"] = _whole(rows, table.where, columns, "empty" in source.drop)
    labels = _ordered(frames["train"]["label"].unique())
    for split, rows in frames.items():
        known = rows["label"].isin(labels)
        counts[f"{split}, label not in training"] = int((~known).sum())
        if not known.all() and "unknown-labels" not in source.drop:
            raise CorpusError(
                f"the split {split!r} has labels that training has not",
                where=tables[split].where,
                found=_some(_ordered(rows["label"][~known].unique())),
                expected=_some(labels),
                hint="name them under labels, or leave them out with drop: [unknown-labels]",
            )
        frames[split] = rows[known]
    if "duplicates" in source.drop:
        counts |= _first_split_only(frames)
    codes = {label: i for i, label in enumerate(labels)}
    splits = {s: Split.from_frame(rows.assign(label=rows["label"].map(codes))) for s, rows in frames.items()}
    card = Card(
        title=name,
        question=f"Which label does {columns.label!r} have?",
        origin=str(source) if source.hub else f"folder {Path(str(source.path)).name}",
        licence="as the owner says",
        language="as the owner says",
        construction=f"read as it is; columns {columns}",
        group_by=f"column {columns.group!r}" if columns.group else "the text",
        ood="as given" if "ood" in splits else "none",
        counts={f"left out: {what}": n for what, n in counts.items() if n},
    )
    if card.counts:
        log.warning("%s: %s", name, ", ".join(f"{what} {n}" for what, n in card.counts.items()))
    return make(name, "user", labels, splits, card)


# --- where rows come from ----------------------------------------------------------------------------------------


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

    first = (str(failure).strip() or type(failure).__name__).splitlines()[0][:160]
    if constants.HF_HUB_OFFLINE:
        hint = "on a machine with a network set HF_HUB_OFFLINE=0, or give the `path` of a folder with the same content"
    else:
        hint = "check the name, the commit and the network, or give the `path` of a folder with the same content"
    return error(
        "cannot be brought from the hub", where=f"{place.hub} at {place.revision}", found=first.rstrip("."), hint=hint
    )


def _from_hub(source: Source) -> dict[str, _Table]:
    commit = commit_of(source, "dataset", CorpusError)
    try:
        from datasets import load_dataset

        found = load_dataset(source.hub, source.config, revision=commit)
    except Exception as failure:  # the library lets through whatever its own libraries raise
        raise unreachable(source, failure, CorpusError) from failure
    return _from_datasets(found, str(source), source)


def _from_datasets(found: Any, where: str, source: Source) -> dict[str, _Table]:
    """Splits of a `datasets.DatasetDict`; columns of the kind ClassLabel bring their names."""
    if not isinstance(found, dict):
        raise CorpusError("holds no splits", where=where, found="one table", hint="save a DatasetDict with its splits")
    tables = {}
    for split, name in _matching(list(found), where, source).items():
        names = {c: list(f.names) for c, f in found[name].features.items() if hasattr(f, "names")}
        tables[split] = _Table(found[name].to_pandas(), f"{where}, split {name}", names)
    return tables


def _folder(name: str, source: Source) -> Path:
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


def _from_folder(folder: Path, source: Source) -> dict[str, _Table]:
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
        tables[split] = _Table(frame, str(parts[0]), _class_names(parts[0]))
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
        elif split in _NEEDED or split in source.splits:
            raise CorpusError(
                f"no split for {split!r}",
                where=where,
                found=", ".join(found) or "none",
                expected=" or ".join(candidates),
                hint=f"say what it is called: splits: {{{split}: NAME}}",
            )
    return out


# --- what becomes of them ----------------------------------------------------------------------------------------


def _rows(table: _Table, split: str, columns: Columns, names: Mapping[str, str]) -> pd.DataFrame:
    """Columns id, text, [text_pair], label (names, None where there is none), group; as many rows as there are."""
    import pandas as pd

    frame, where = table.frame, table.where
    missing = [c for c in vars(columns).values() if c is not None and c not in frame.columns]
    if missing:
        have = ", ".join(map(str, frame.columns))
        raise CorpusError("a column is missing", where=where, found=have, expected=repr(missing[0]))
    out = pd.DataFrame({"text": frame[columns.text].astype(object)})
    if columns.text_pair is not None:
        out["text_pair"] = frame[columns.text_pair].astype(object)
    values = frame[columns.label].astype(object)
    known = {v: _label(v, table.names.get(columns.label), names, where) for v in values.dropna().unique()}
    out["label"] = values.map(known)
    ids = [f"{i:06d}" for i in range(len(frame))] if columns.id is None else frame[columns.id].map(_plain)
    out["id"] = [f"{split}/{i}" for i in ids]
    sides = zip(out["text"], out["text_pair"] if columns.text_pair else [""] * len(out), strict=True)
    out["key"] = [f"{normalise(str(a))}\t{normalise(str(b))}" for a, b in sides]
    if columns.group is not None:
        out["group"] = [str(_plain(g)) for g in frame[columns.group]]
    else:
        out["group"] = [hashed(key, "file")[:16] for key in out["key"]]
    return out


def _plain(value: Any) -> Any:
    """12.0 as 12: what a table makes of whole numbers beside missing ones."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _label(value: Any, given: list[str] | None, names: Mapping[str, str], where: str) -> str | None:
    """The name of a label value: the profile's, for its number or for the name that the file gives it."""
    number = str(_plain(value)).strip()
    name = given[int(number)] if given is not None and number.isdigit() and int(number) < len(given) else number
    if not names or not name:
        return name or None
    for form in (name, number):
        if form in names:
            return names[form]
    raise CorpusError(
        f"the label {name!r} has no name", where=where, expected=_some(names), hint="add it to the member's labels"
    )


def _whole(rows: pd.DataFrame, where: str, columns: Columns, drop: bool) -> tuple[pd.DataFrame, int]:
    """Rows that have texts and a label, and how many have not; raises CorpusError for the first unless `drop`."""
    import pandas as pd

    bad = pd.Series(False, index=rows.index)
    for part in [p for p in ("text", "text_pair", "label") if p in rows]:
        empty = ~rows[part].map(lambda value: isinstance(value, str) and bool(value.strip()))
        if empty.any() and not drop:
            first = int(empty.to_numpy().argmax())
            raise CorpusError(
                f"row {first + 1} has no {part}",
                where=where,
                found=f"{int(empty.sum())} such rows",
                expected=f"a value in column {getattr(columns, part)!r}",
                hint="remove them, or leave them out with drop: [empty]",
            )
        bad |= empty
    if bad.all():
        raise CorpusError("the split is empty", where=where, found=f"{len(rows)} rows, none with text and label")
    return rows[~bad], int(bad.sum())


def _first_split_only(frames: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Remove, in place, rows whose text or group stands in an earlier split; how many of each split."""
    import pandas as pd

    every = pd.concat([rows.assign(order=i) for i, rows in enumerate(frames.values())], ignore_index=True)
    first = [every.groupby(column)["order"].transform("min") for column in ("key", "group")]
    late = (every["order"] > first[0]) | (every["order"] > first[1])
    counts = {}
    for i, (split, rows) in enumerate(list(frames.items())):
        mine = late[every["order"] == i].to_numpy()
        if mine.all():
            raise CorpusError(f"every text of the split {split!r} stands in an earlier one", found=f"{len(rows)} rows")
        frames[split], counts[f"{split}, text in an earlier split"] = rows[~mine], int(mine.sum())
    return counts


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Label names as numbers when all are numbers, else by the alphabet."""
    names = list(names)
    return tuple(sorted(names, key=int) if all(n.lstrip("-").isdigit() for n in names) else sorted(names))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
