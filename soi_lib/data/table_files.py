"""Corpora from the user's own files: CSV, TSV, JSON lines or Parquet, one file a split.

Columns may be named; else they are guessed from the names that the paper's authors and the common benchmarks use, and
the guess is written into the card and the log. Every fault is reported with its file and row: bytes that are not
UTF-8, a broken line, an empty text, a label that training does not have, a text that stands in two splits.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from soi_lib.data.dataset import SPLITS, Card, Corpus, Split, make, normalise
from soi_lib.data.splits import SHARES, assign, hashed
from soi_lib.errors import CorpusError, nearest

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("soi_lib")

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
FILE_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
    "ood": ("ood", "out_of_distribution", "out-of-distribution"),
}
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text", "text_pair"))
TEXTS = ("text", "utt", "sentence", "utterance", "content", "review", "comment", "message", "tweet")
LABEL_COLUMNS = ("label", "intent", "sentiment", "airline_sentiment", "labels", "gold", "class", "category")
ID_COLUMNS = ("id", "idx", "guid")


@dataclass(frozen=True)
class Columns:
    """Which column plays which part; None where there is none."""

    text: str
    label: str
    text_pair: str | None = None
    id: str | None = None
    group: str | None = None

    def __str__(self) -> str:
        return ", ".join(f"{part} = {name!r}" for part, name in vars(self).items() if name is not None)


def find(folder: Path) -> dict[str, Path]:
    """The split files of a folder by their names (`train.csv`, `validation.jsonl`, `test-00000-of-00001.parquet`)."""
    out: dict[str, Path] = {}
    for split, names in FILE_NAMES.items():
        hits = [
            f
            for f in sorted(folder.rglob("*"))
            if f.suffix.lower() in SUFFIXES and f.stem.lower().split("-0")[0] in names
        ]
        if len(hits) > 1:
            raise CorpusError(
                f"two files for the split {split!r}",
                where=folder,
                found=", ".join(str(h.relative_to(folder)) for h in hits),
                hint="give the files one by one",
            )
        if hits:
            out[split] = hits[0]
    if "train" not in out:
        present = ", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "nothing"
        raise CorpusError(
            "there is no training file", where=folder, found=present, expected="train" + "|".join(SUFFIXES)
        )
    return out


def read(path: Path) -> pd.DataFrame:
    """The rows of one file, with the values as they stand; raises CorpusError naming the file and the line."""
    import pandas as pd

    if path.suffix.lower() not in SUFFIXES:
        raise CorpusError("unknown kind of file", where=path, found=path.suffix or "none", expected=", ".join(SUFFIXES))
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError("no such file", where=path, hint="check the path") from None
    except OSError as error:
        raise CorpusError("the file cannot be read", where=path, found=error.strerror or error) from error
    except ValueError as error:
        raise CorpusError("the file cannot be read", where=path, found=error) from error
    text = _decode(path, data)
    if path.suffix.lower() == ".jsonl":
        return _jsonl(path, text)
    return _table(path, text, "\t" if path.suffix.lower() == ".tsv" else ",")


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CorpusError(
            "the file is not UTF-8",
            where=f"{path} line {line}",
            found=f"byte 0x{data[error.start]:02x}",
            expected="UTF-8 text",
            hint="convert it, e.g. iconv -f latin1 -t utf-8",
        ) from None


def _jsonl(path: Path, text: str) -> pd.DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CorpusError("the line is no JSON", where=f"{path} line {number}", found=error) from None
        if not isinstance(row, dict):
            raise CorpusError(
                "the line is no JSON object", where=f"{path} line {number}", found=type(row).__name__, expected="{...}"
            )
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def _table(path: Path, text: str, separator: str) -> pd.DataFrame:
    import csv
    import io

    import pandas as pd

    csv.field_size_limit(1 << 30)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = next(lines, [])
    rows = []
    for row in lines:
        if not row:
            continue
        if len(row) != len(header):
            raise CorpusError(
                "a row has another number of fields than the header",
                where=f"{path} line {lines.line_num}",
                found=len(row),
                expected=len(header),
                hint="quote texts that contain the separator",
            )
        rows.append(row)
    return pd.DataFrame(rows, columns=header, dtype=object)


def guess(frame: pd.DataFrame, where: Path, named: Mapping[str, str | None]) -> Columns:
    """The part of each column: as named, else by its name; raises CorpusError when text or label is not found."""
    have = {str(c).lower(): str(c) for c in frame.columns}
    for part, name in named.items():
        if name is not None and name not in frame.columns:
            raise CorpusError(
                f"there is no column for {part!r}",
                where=where,
                found=f"no {name!r}",
                hint=nearest(name, [str(c) for c in frame.columns]),
            )
    text, pair = named.get("text"), named.get("text_pair")
    if text is None:
        known = [(have[a], have[b]) for a, b in PAIRS if a in have and b in have]
        text, pair = known[0] if known and pair is None else (_first(have, TEXTS), pair)
    label = named.get("label") or _first({k: v for k, v in have.items() if v != text}, LABEL_COLUMNS)
    for part, found in (("text", text), ("label", label)):
        if found is None:
            raise CorpusError(
                f"no column looks like the {part}",
                where=where,
                found=", ".join(map(str, frame.columns)) or "no column",
                hint=f"name it: {part}=COLUMN (soi train: --{part} COLUMN)",
            )
    assert text is not None
    assert label is not None
    for name in (text, pair, label):
        if name is not None and [str(c) for c in frame.columns].count(name) > 1:
            raise CorpusError(f"the column {name!r} stands twice in the header", where=where, hint="rename one of them")
    return Columns(text, label, pair, named.get("id") or _first(have, ID_COLUMNS), named.get("group"))


def _first(have: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((have[n] for n in names if n in have), None)


def _rows(path: Path, split: str, columns: Columns) -> pd.DataFrame:
    """Columns id text [text_pair] label(str) group of one file, ids made unique over splits by a prefix."""
    import pandas as pd

    frame = read(path)
    if not len(frame):
        raise CorpusError("the split is empty", where=path, found="no row", expected="at least one example")
    missing = [c for c in vars(columns).values() if c is not None and c not in frame.columns]
    if missing:
        raise CorpusError(
            "a column is missing", where=path, found=", ".join(map(str, frame.columns)), expected=repr(missing[0])
        )
    out = pd.DataFrame({"text": frame[columns.text]})
    if columns.text_pair is not None:
        out["text_pair"] = frame[columns.text_pair]
    for part in out.columns:
        bad = [i for i, t in enumerate(out[part]) if not isinstance(t, str) or not t.strip()]
        if bad:
            raise CorpusError(
                f"row {bad[0] + 1} has an empty text",
                where=path,
                found=repr(out[part].iloc[bad[0]]),
                expected=f"a text in column {getattr(columns, part)!r}",
                hint="remove the row",
            )
    out["label"] = [_label(path, i, v) for i, v in enumerate(frame[columns.label])]
    names = frame[columns.id] if columns.id is not None else [f"{i:06d}" for i in range(len(frame))]
    out["id"] = [f"{split}/{_plain(n)}" for n in names]
    if columns.group is not None:
        out["group"] = [str(_plain(g)) for g in frame[columns.group]]
    else:
        sides = zip(out["text"], out["text_pair"] if columns.text_pair else [""] * len(out), strict=True)
        out["group"] = [hashed(f"{normalise(a)}\t{normalise(b)}", "file")[:16] for a, b in sides]
    return out


def _plain(value: Any) -> Any:
    """12.0 as 12: what a Parquet or JSON reader makes of whole numbers beside missing ones."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _label(path: Path, row: int, value: Any) -> str:
    value = _plain(value)
    if value is None or value != value or not str(value).strip():
        raise CorpusError(f"row {row + 1} has no label", where=path, found=repr(value), hint="remove the row")
    return str(value).strip()


def _label_order(names: set[str]) -> tuple[str, ...]:
    """Label names in order: as numbers when all are numbers, else by the alphabet."""
    if all(n.lstrip("-").isdigit() for n in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def load_files(
    source: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    *,
    name: str | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    id: str | None = None,
    group: str | None = None,
    duplicates: Literal["error", "drop"] = "error",
) -> Corpus:
    """A corpus of the comparison `user` from a folder, from one file, or from a mapping split -> file.

    A folder holds train.* and, where they exist, validation.*, test.* and ood.* (CSV, TSV, JSONL or Parquet); one
    file alone is divided 60 / 10 / 30 by group. text, text_pair, label, id, group name columns; what is not named is
    guessed. Labels may be numbers or words; their names are kept. duplicates: whether a text that stands in two splits
    is an error, or stays only in the first of train, validation, test, ood.

    Raises CorpusError naming the file and row for every fault of the files.
    """
    if isinstance(source, Mapping):
        files = {split: Path(p) for split, p in source.items()}
        unknown = sorted(set(files) - set(SPLITS))
        if unknown:
            raise CorpusError("unknown split", found=repr(unknown[0]), hint=nearest(unknown[0], SPLITS))
        if "train" not in files:
            raise CorpusError("there is no training file", found=", ".join(files) or "none", expected="train")
        where = files["train"]
    else:
        where = Path(source)
        if not where.exists():
            raise CorpusError("no such file or folder", where=where, hint="check the path")
        files = find(where) if where.is_dir() else {"train": where}
    named = {"text": text, "text_pair": text_pair, "label": label, "id": id, "group": group}
    columns = guess(read(files["train"]), files["train"], named)
    log.info("%s: columns %s", where, columns)
    frames = {split: _rows(files[split], split, columns) for split in SPLITS if split in files}
    if len(frames) == 1 and not isinstance(source, Mapping) and where.is_file():
        frames = _divide(frames["train"], where)
    labels = _label_order(set(frames["train"]["label"]))
    dropped = _drop_known(frames) if duplicates == "drop" else 0
    splits = {s: _split(f, labels, files.get(s, where), s) for s, f in frames.items()}
    card = Card(
        title=name or where.stem,
        question=f"Which label does {columns.label!r} have?",
        origin=", ".join(f"{split}: {path.name}" for split, path in files.items()),
        licence="not stated",
        language="not stated",
        construction=f"read as it is; columns {columns}",
        group_by=f"column {columns.group!r}" if columns.group else "the text",
        ood="as given" if "ood" in files else "none",
        counts={"dropped, as they stand in an earlier split": dropped} if dropped else {},
    )
    return make(name or where.stem, "user", labels, splits, card)


def _divide(frame: pd.DataFrame, where: Path) -> dict[str, pd.DataFrame]:
    """One file as train, validation and test, by group."""
    codes = {n: i for i, n in enumerate(sorted(set(frame["label"])))}
    numbers = frame["label"].map(codes).to_numpy()
    home = assign(frame["group"].to_numpy(), numbers, SHARES, f"file/{where.name}")
    return {split: frame[home == split] for split in SHARES}


def _drop_known(frames: dict[str, pd.DataFrame]) -> int:
    """Remove, in place, rows whose text or group stands in an earlier split; return how many."""
    texts: set[str] = set()
    groups: set[str] = set()
    dropped = 0
    for split, frame in frames.items():
        pair = frame["text_pair"] if "text_pair" in frame else [""] * len(frame)
        keys = [f"{normalise(a)}\t{normalise(b)}" for a, b in zip(frame["text"], pair, strict=True)]
        fresh = [k not in texts and g not in groups for k, g in zip(keys, frame["group"], strict=True)]
        dropped += len(fresh) - sum(fresh)
        frames[split] = frame[fresh]
        texts.update(keys)
        groups.update(frame["group"])
    return dropped


def _split(frame: pd.DataFrame, labels: tuple[str, ...], path: Path, split: str) -> Split:
    unknown = sorted(set(frame["label"]) - set(labels))
    if unknown:
        raise CorpusError(
            f"the split {split!r} has a label that training has not",
            where=path,
            found=repr(unknown[0]),
            expected=", ".join(labels[:12]),
        )
    if not len(frame):
        raise CorpusError("the split is empty", where=path, found=f"no row for {split!r}", expected="at least one")
    codes = {n: i for i, n in enumerate(labels)}
    return Split.from_frame(frame.assign(label=frame["label"].map(codes)))
