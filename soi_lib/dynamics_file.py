"""The dynamics file, schema 1: Parquet, zstd, and a seal over every byte.

Special about it: the metadata ends with the sha256 of the whole file, computed with its own 64 digits as zeros. So
a changed byte is found wherever it is, in a value, in a page header or in the footer, and before it is decoded.
Columns, a row per example: `id` string or int64; `gold` int16; `p_gold` fixed-size list float32[E], split by byte
before zstd (3.2 bytes a value instead of 4); `history` uint64, bit e = correct at epoch e; optional `logits`
fixed-size list float32[E*C]. Key-value metadata `soi`: the JSON of `Meta`, with `schema` and `sha256`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
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
    import pyarrow.parquet as pq

    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    meta = replace(
        dyn.meta, created=dyn.meta.created or now, library_version=dyn.meta.library_version or soi_lib.__version__
    )
    try:
        text = json.dumps(meta.to_dict(), ensure_ascii=True)
    except (TypeError, ValueError) as error:
        raise FormatError("the meta cannot be written as JSON", where=path, found=error) from error
    table = _table(dyn, path)
    with replacing(path, overwrite=overwrite) as tmp:
        writer = pq.ParquetWriter(
            tmp,
            table.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
            use_byte_stream_split=[
                f"{name}.list.element" for name in ("p_gold", "logits") if name in table.schema.names
            ],
        )
        with writer:
            writer.write_table(table, row_group_size=_ROW_GROUP)
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
    import pyarrow.parquet as pq

    source = pa.py_buffer(_read_sealed(path))
    try:
        file = pq.ParquetFile(pa.BufferReader(source))
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
    try:
        columns = _read_columns(source, file, meta.epochs, classes)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError("the columns cannot be decoded", where=path, found=error) from error
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


def _read_sealed(path: Path) -> bytes:
    """All bytes of a dynamics file whose seal is whole."""
    if path.is_dir():
        raise SoiError("a directory was given for a file", where=path, hint="name a .parquet file in it")
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise SoiError("there is no such file", where=path, hint="check the path") from error
    except OSError as error:
        raise SoiError("the file cannot be read", where=path, found=error.strerror) from error
    again = "fetch the file again, or repeat the run that wrote it"
    if len(raw) < 12 or raw[:4] != b"PAR1":
        raise SchemaError(
            "this is no dynamics file", where=path, found=repr(raw[:4]), expected=repr(b"PAR1"), hint=again
        )
    if raw[-4:] != b"PAR1":
        raise ChecksumError("the file is truncated or its end is changed", where=path, hint=again)
    handle = io.BytesIO(raw)
    place = _seal_place(handle)
    if place is None:
        raise SchemaError(
            "the file has no seal, so it is another program's Parquet file or it is damaged",
            where=path,
            expected="the sha256 that TrainingDynamics.save writes",
            hint=again,
        )
    stored = raw[place : place + 64].decode("ascii", "replace")
    actual = _digest(handle, place)
    if stored != actual:
        raise ChecksumError(
            "bytes of the file have changed since it was written",
            where=path,
            found=f"sha256 {actual[:12]}",
            expected=stored[:12],
            hint=again,
        )
    return raw


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
        batch = reader.read_row_group(group, use_threads=False).combine_chunks()
        columns = {name: _only_chunk(batch[name]) for name in batch.schema.names}
        out["ids"][rows] = columns["id"].to_numpy(zero_copy_only=False)
        out["gold"][rows] = columns["gold"].to_numpy(zero_copy_only=False)
        out["history"][rows] = columns["history"].to_numpy(zero_copy_only=False)
        out["p_gold"][:, rows] = columns["p_gold"].flatten().to_numpy(zero_copy_only=False).reshape(-1, epochs).T
        if classes is not None:
            flat = columns["logits"].flatten().to_numpy(zero_copy_only=False)
            out["logits"][:, rows] = flat.reshape(-1, epochs, classes).transpose(1, 0, 2)

    if groups == 1:
        read(0)
    else:
        with ThreadPoolExecutor(max_workers=min(groups, os.cpu_count() or 1, 8)) as pool:
            list(pool.map(read, range(groups)))
    return out


def _only_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
