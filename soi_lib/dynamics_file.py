"""The dynamics file, schema 1: Parquet, zstd, and a seal over every byte.

Special about it: the metadata ends with the sha256 of the whole file, computed with its own 64 digits as zeros. So
a changed byte is found wherever it is, in a value, in a page header or in the footer, and before it is decoded.
Files larger than memory are written and read in parts (`write_parts`, `Groups`; `analysis.stream` computes on them).
Columns, a row per example: `id` string or int64; `gold` int16; `p_gold` fixed-size list float32[E], split by byte
before zstd (3.2 bytes a value instead of 4); `history` uint64, bit e = correct at epoch e; optional `logits`
fixed-size list float32[E*C]. Key-value metadata `soi`: the JSON of `Meta`, with `schema` and `sha256`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

import soi_lib
from soi_lib.atomic import replacing
from soi_lib.dynamics import MAX_EPOCHS, SCHEMA, Meta, TrainingDynamics, unpack_history
from soi_lib.errors import ChecksumError, FormatError, RangeError, SchemaError, SoiError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_KEY = b"soi"
_SEAL = b'"sha256": "'  # inside a JSON string its quotes would be escaped, so the last one in the footer is the seal
_BLANK = b"0" * 64
_ROW_GROUP = 1 << 17  # rows: small enough to decode side by side, large enough to compress

Array = npt.NDArray[Any]


def write(dyn: TrainingDynamics, path: Path, *, overwrite: bool = False) -> Path:
    """Write `dyn` to `path`, whole or not at all; stamp `created` and `library_version` where they are empty."""
    return write_parts([dyn], path, overwrite=overwrite)


def write_parts(parts: Iterable[TrainingDynamics], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write parts one behind the other as one dynamics file, with no more than one of them in memory; return `path`.

    The metadata is that of the first part. Parts of 131,072 examples or a multiple make the best files. No id may
    occur in two parts; `TrainingDynamics.load` finds one that does. Raises FormatError for a part that differs from
    the first in epochs, classes, kind of id or the presence of logits, OutputExistsError or SoiError.
    """
    import pyarrow.parquet as pq

    path, rest = Path(path), iter(parts)
    first = next(rest, None)
    if first is None:
        raise FormatError("there are no parts to write", where=path, hint="give at least one")
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    meta = replace(
        first.meta, created=first.meta.created or now, library_version=first.meta.library_version or soi_lib.__version__
    )
    try:
        text = json.dumps(meta.to_dict(), ensure_ascii=True)
    except (TypeError, ValueError) as error:
        raise FormatError("the meta cannot be written as JSON", where=path, found=error) from error
    schema = _table(first, path).schema
    with replacing(path, overwrite=overwrite) as tmp:
        writer = pq.ParquetWriter(
            tmp,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
            use_byte_stream_split=[f"{name}.list.element" for name in ("p_gold", "logits") if name in schema.names],
        )
        with writer:
            for number, part in enumerate(chain([first], rest)):
                if _kind(part) != _kind(first):
                    names = "epochs, classes, kind of id and logits"
                    raise FormatError(
                        f"part {number} differs from the first in {names}",
                        where=path,
                        found=_kind(part),
                        expected=_kind(first),
                    )
                writer.write_table(_table(part, path), row_group_size=_ROW_GROUP)
            # added to the footer only: Arrow's own copy of the schema would repeat it and the seal with it
            writer.add_key_value_metadata({_KEY.decode(): text[:-1] + ", " + (_SEAL + _BLANK).decode() + '"}'})
        with open(tmp, "rb+") as handle:
            place = _seal_place(handle)
            assert place is not None
            digest = _digest(handle, place)
            handle.seek(place)
            handle.write(digest.encode())
    return path


def read(path: Path) -> TrainingDynamics:
    """Read and check `path`; see `TrainingDynamics.load` for the errors."""
    import pyarrow as pa

    with _handle(path) as handle:
        _check_seal(raw := io.BytesIO(handle.read()), path)
    source = pa.py_buffer(raw.getbuffer())
    file, meta, classes = _open(pa.BufferReader(source), path)
    try:
        columns = _read_columns(source, file, meta.epochs, classes)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError("the columns cannot be decoded", where=path, found=error) from error
    return _checked(columns, meta, path)


class Groups:
    """The row groups of a dynamics file whose seal was checked, to be read one at a time, from any thread.

    Raises what `TrainingDynamics.load` raises; that no id occurs in two groups is not checked.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with _handle(self.path) as handle:
            _check_seal(handle, self.path)
        file, self.meta, self._classes = _open(self.path, self.path)
        self._metadata = file.metadata
        self.text_ids = str(file.schema_arrow.field("id").type) == "string"
        self.sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        file.close()

    def __len__(self) -> int:
        return len(self.sizes)

    def columns(self, group: int, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Columns of a group by name: id, gold and history (n,), p_gold (n, E), logits (n, E, C); all, or `names`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = None if names is None else list(names)
        try:
            with pq.ParquetFile(self.path, metadata=self._metadata) as reader:
                table = reader.read_row_group(group, columns=wanted, use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FormatError(
                f"row group {group} cannot be decoded", where=self.path, found=error, hint="was the file replaced?"
            ) from error
        return _arrays(table, self.meta.epochs, self._classes)

    def dynamics(self, group: int) -> TrainingDynamics:
        """The examples of a group, checked as those of a whole file are."""
        columns = self.columns(group)
        columns["ids"] = columns.pop("id")
        columns["p_gold"] = np.ascontiguousarray(columns["p_gold"].T)
        if "logits" in columns:
            columns["logits"] = np.ascontiguousarray(columns["logits"].transpose(1, 0, 2))
        return _checked(columns, self.meta, self.path)


def workers(tasks: int) -> int:
    """How many threads serve so many tasks: one a core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(tasks, cores, 8))


def _kind(dyn: TrainingDynamics) -> tuple[int, int, str, bool]:
    """What all parts of a file have in common."""
    return dyn.epochs, dyn.meta.classes, "number" if dyn.ids.dtype.kind == "i" else "text", dyn.logits is not None


def _open(source: Any, path: Path) -> tuple[pq.ParquetFile, Meta, int | None]:
    """The Parquet file of `source`, its checked metadata, and the classes of its logits (None without logits)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source)
        values = json.loads(file.metadata.metadata[_KEY])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise SchemaError(
            "this is no dynamics file", where=path, found=error, hint="give a file that TrainingDynamics.save wrote"
        ) from error
    meta = _checked_meta(values, path)
    names = file.schema_arrow.names
    classes = meta.classes if "logits" in names else None
    text = "id" in names and file.schema_arrow.field("id").type == pa.string()
    expected = _arrow_schema(text, meta.epochs, classes)
    if not file.schema_arrow.remove_metadata().equals(expected):
        found = ", ".join(f"{f.name} {f.type}" for f in file.schema_arrow)
        wanted = ", ".join(f"{f.name} {f.type}" for f in expected)
        raise SchemaError("the columns are not those of schema 1", where=path, found=found, expected=wanted)
    return file, meta, classes


def _checked(columns: dict[str, Array], meta: Meta, path: Path) -> TrainingDynamics:
    """The dynamics of decoded columns (ids, gold, p_gold, history, logits), everything in them checked."""
    history = columns.pop("history")
    if meta.epochs < MAX_EPOCHS and len(history) and int(history.max()) >> meta.epochs:
        row = int(np.flatnonzero(history >> np.uint64(meta.epochs))[0])
        raise RangeError(
            f"the history of id {columns['ids'][row]!r} goes beyond the last epoch",
            where=path,
            found=f"bit {int(history[row]).bit_length() - 1}",
            expected=f"bits 0 to {meta.epochs - 1}",
        )
    try:
        dyn = TrainingDynamics(**columns, correct=unpack_history(history, meta.epochs), meta=meta)
    except FormatError as error:  # the same class of error, with the file's name in front
        raise type(error)(
            error.what, where=path, found=error.found, expected=error.expected, hint=error.hint
        ) from error
    history.flags.writeable = False
    dyn.__dict__["history"] = history  # it is at hand: spare the packing
    return dyn


def _table(dyn: TrainingDynamics, path: Path) -> pa.Table:
    """The columns of schema 1 as an Arrow table."""
    import pyarrow as pa

    text = dyn.ids.dtype.kind != "i"
    schema = _arrow_schema(text, dyn.epochs, dyn.meta.classes if dyn.logits is not None else None)
    try:
        ids = pa.array(dyn.ids, type=schema.field("id").type)
    except (pa.ArrowException, UnicodeError) as error:
        raise FormatError("an id cannot be written as UTF-8", where=path, found=error) from error
    flat = {"p_gold": np.ascontiguousarray(dyn.p_gold.T).reshape(-1)}
    if dyn.logits is not None:
        flat["logits"] = np.ascontiguousarray(dyn.logits.transpose(1, 0, 2)).reshape(-1)
    columns = {"id": ids, "gold": pa.array(dyn.gold), "history": pa.array(dyn.history)}
    for name, values in flat.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values), type=schema.field(name).type)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _arrow_schema(text_ids: bool, epochs: int, classes: int | None) -> pa.Schema:
    """Schema 1; `classes` is None when logits are not stored."""
    import pyarrow as pa

    number = pa.field("element", pa.float32(), nullable=False)
    columns = [
        pa.field("id", pa.string() if text_ids else pa.int64(), nullable=False),
        pa.field("gold", pa.int16(), nullable=False),
        pa.field("p_gold", pa.list_(number, epochs), nullable=False),
        pa.field("history", pa.uint64(), nullable=False),
    ]
    if classes is not None:
        columns.append(pa.field("logits", pa.list_(number, epochs * classes), nullable=False))
    return pa.schema(columns)


def _checked_meta(values: Any, path: Path) -> Meta:
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise SchemaError(
            "the file is of another schema",
            where=path,
            found=found,
            expected=SCHEMA,
            hint="read it with the soi_lib version that wrote it, or update soi_lib",
        )
    try:
        meta = Meta.from_dict(values)
    except (FormatError, TypeError) as error:
        raise FormatError("the meta is damaged", where=path, found=error) from error
    if not 1 <= meta.epochs <= MAX_EPOCHS or meta.classes < 1:
        raise RangeError(
            "epochs or classes are out of range",
            where=path,
            found=f"{meta.epochs} epochs and {meta.classes} classes",
            expected="1 to 64 epochs, at least 1 class",
        )
    return meta


def _seal_place(handle: BinaryIO) -> int | None:
    """The position of the 64 hex digits of the seal, searched in the footer only; None when there is none."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(size - 8)
    length = int.from_bytes(handle.read(4), "little") + 8
    start = max(0, size - length)
    handle.seek(start)
    place = handle.read().rfind(_SEAL)
    return None if place < 0 or start + place + len(_SEAL) + 64 > size else start + place + len(_SEAL)


def _digest(handle: BinaryIO, place: int) -> str:
    """Sha256 (hex) of the whole file with the seal's digits taken as zeros; leaves the position at the seal."""
    digest = hashlib.sha256()
    if isinstance(handle, io.BytesIO):  # in memory already: no copies
        view = handle.getbuffer()
        for block in (view[:place], _BLANK, view[place + 64 :]):
            digest.update(block)
        return digest.hexdigest()
    handle.seek(0)
    left = place
    while left and (block := handle.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    digest.update(_BLANK)
    handle.seek(place + 64)
    while block := handle.read(1 << 20):
        digest.update(block)
    handle.seek(place)
    return digest.hexdigest()


@contextmanager
def _handle(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading."""
    if path.is_dir():
        raise SoiError("a directory was given for a file", where=path, hint="name a .parquet file in it")
    try:
        with open(path, "rb") as handle:
            yield handle
    except FileNotFoundError as error:
        raise SoiError("there is no such file", where=path, hint="check the path") from error
    except OSError as error:
        raise SoiError("the file cannot be read", where=path, found=error.strerror) from error


def _check_seal(handle: BinaryIO, path: Path) -> None:
    """Raise unless `handle` holds a dynamics file whose seal is whole."""
    again = "fetch the file again, or repeat the run that wrote it"
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(4)
    if size < 12 or head != b"PAR1":
        raise SchemaError("this is no dynamics file", where=path, found=repr(head), expected=repr(b"PAR1"), hint=again)
    handle.seek(size - 4)
    if handle.read(4) != b"PAR1":
        raise ChecksumError("the file is truncated or its end is changed", where=path, hint=again)
    place = _seal_place(handle)
    if place is None:
        raise SchemaError(
            "the file has no seal, so it is another program's Parquet file or it is damaged",
            where=path,
            expected="the sha256 that TrainingDynamics.save writes",
            hint=again,
        )
    handle.seek(place)
    stored = handle.read(64).decode("ascii", "replace")
    actual = _digest(handle, place)
    if stored != actual:
        raise ChecksumError(
            "bytes of the file have changed since it was written",
            where=path,
            found=f"sha256 {actual[:12]}",
            expected=stored[:12],
            hint=again,
        )


def _read_columns(source: pa.Buffer, file: pq.ParquetFile, epochs: int, classes: int | None) -> dict[str, Array]:
    """Decode the row groups side by side straight into (E, N) arrays."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = file.num_row_groups
    sizes = [file.metadata.row_group(g).num_rows for g in range(groups)]
    ends = np.cumsum([0, *sizes])
    n = int(ends[-1])
    text = file.schema_arrow.field("id").type == pa.string()
    out: dict[str, Array] = {
        "ids": np.empty(n, object if text else np.int64),
        "gold": np.empty(n, np.int16),
        "p_gold": np.empty((epochs, n), np.float32),
        "history": np.empty(n, np.uint64),
    }
    if classes is not None:
        out["logits"] = np.empty((epochs, n, classes), np.float32)

    def read(group: int) -> None:
        # a reader of its own: they are cheap, and not safe to share between threads
        reader = pq.ParquetFile(pa.BufferReader(source), metadata=file.metadata)
        rows = slice(int(ends[group]), int(ends[group + 1]))
        columns = _arrays(reader.read_row_group(group, use_threads=False), epochs, classes)
        out["ids"][rows] = columns["id"]
        out["gold"][rows] = columns["gold"]
        out["history"][rows] = columns["history"]
        out["p_gold"][:, rows] = columns["p_gold"].T
        if classes is not None:
            out["logits"][:, rows] = columns["logits"].transpose(1, 0, 2)

    if groups == 1:
        read(0)
    else:
        with ThreadPoolExecutor(max_workers=workers(groups)) as pool:
            list(pool.map(read, range(groups)))
    return out


def _arrays(table: pa.Table, epochs: int, classes: int | None) -> dict[str, Array]:
    """The columns of a row group as they lie in it: (n,), p_gold (n, E), logits (n, E, C); copied only if need be."""
    shapes = {"p_gold": (-1, epochs), "logits": (-1, epochs, classes or 1)}
    out: dict[str, Array] = {}
    for name in table.schema.names:
        column = table[name]
        values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if name in shapes:
            out[name] = values.flatten().to_numpy(zero_copy_only=False).reshape(shapes[name])
        else:
            out[name] = values.to_numpy(zero_copy_only=False)
    return out
