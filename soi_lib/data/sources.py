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
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soi_lib import atomic
from soi_lib.data import cache
from soi_lib.data.dataset import Card, Corpus, Split, make, normalise
from soi_lib.data.places import Source, Table, files_of, folder_of, local, tables
from soi_lib.data.splits import hashed
from soi_lib.data.table_files import Columns, guess
from soi_lib.errors import CorpusError
from soi_lib.paths import cache_dir

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("soi_lib")

_VERSION = 1  # part of the name under which a corpus is kept: raise it when what `build` makes of a source changes

__all__ = ["Source", "build", "check", "load"]


def load(name: str, source: Source) -> Corpus:
    """The member `name`, read from its source, or from the cache where the same source was read before.

    A source of the hub needs no network when it is in the cache, or when the environment variable SOI_DATA names a
    folder that holds a folder `name` with its rows; a folder is read again when a file in it has changed.
    Raises CorpusError for a source that cannot be reached or read, and for all that `build` refuses.
    """
    check(name, source)
    source = local(name, source)
    index = cache_dir() / "corpora" / "given" / f"{name}-{_key(name, source)}.json"
    if index.exists():
        try:
            text = index.read_bytes().decode()
            fingerprint = json.loads(text)["fingerprint"]
            if text != _entry(fingerprint):
                raise ValueError("not what was written")
            return cache.kept(name, fingerprint)
        except (CorpusError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: %s; reading %s again", index, error, source)
    corpus = build(name, source)
    cache.keep(corpus)
    atomic.write_text(index, _entry(corpus.fingerprint))
    return corpus


def _entry(fingerprint: str) -> str:
    """What the index says of a source: the fingerprint under which its corpus is kept, wherever the source lies now."""
    return atomic.json_text({"fingerprint": fingerprint})


def check(name: str, source: Source) -> None:
    """Raise CorpusError when `source` has no place at all, before anything is brought."""
    if source.path is None and source.hub is None:
        note = f" ({source.note})" if source.note else ""
        raise CorpusError(
            f"nothing says where the member is{note}",
            where=f"corpora.{name}",
            expected="hub and revision, or path",
            hint="write one of them into a copy of the profile, or leave its comparison out with --only",
        )


def _key(name: str, source: Source) -> str:
    """What a source is known by: its description and, for a folder, the content of its files."""
    digest = hashlib.sha256(f"{_VERSION} {source.identity()}".encode())
    if source.path is not None:
        folder = folder_of(name, source)
        for file in files_of(folder):
            digest.update(f"\n{file.relative_to(folder).as_posix()} {atomic.stamped_sha256(file)}".encode())
    return digest.hexdigest()[:20]


def build(name: str, source: Source) -> Corpus:
    """The corpus of a source, read anew. Raises CorpusError, naming split and row, for every fault of the data.

    There must be `train` and `test`; `validation` and `ood` may be absent.
    """
    check(name, source)
    found = tables(name, source)
    named = {part: getattr(source, part) for part in ("text", "text_pair", "label", "id", "group")}
    columns = replace(guess(found["train"].frame, Path(found["train"].where), named), id=source.id)
    counts: dict[str, int] = {}
    frames = {}
    for split, table in found.items():
        rows = _rows(table, split, columns, source.labels)
        frames[split], counts[f"{split}, no text or label"] = _whole(rows, table.where, columns, "empty" in source.drop)
    labels = _ordered(frames["train"]["label"].unique())
    for split, rows in frames.items():
        known = rows["label"].isin(labels)
        counts[f"{split}, label not in training"] = int((~known).sum())
        if not known.all() and "unknown-labels" not in source.drop:
            raise CorpusError(
                f"the split {split!r} has labels that training has not",
                where=found[split].where,
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


def _rows(table: Table, split: str, columns: Columns, names: Mapping[str, str]) -> pd.DataFrame:
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
