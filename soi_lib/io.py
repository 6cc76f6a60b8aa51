"""The dynamics file, schema 1: Parquet, zstd, and a checksum (the seal) over every byte.

The metadata ends with the sha256 of the whole file, computed with its own 64 digits set to zero. So a changed byte
is detected anywhere, in a value, a page header or the footer, before it is decoded. Columns, with one row per
example: `id` string or int64; `gold` int16; `p_gold` fixed-size list float32[E], byte-stream split before zstd
(3.2 bytes per value instead of 4); `history` uint64, bit e = correct at epoch e; optional `logits` fixed-size list
float32[E*C]. Key-value metadata `soi`: a JSON object with `schema`, `epochs`, `classes`, `sha256`. This module
handles only arrays and that object; `TrainingDynamics.save` and `load` are its public interface.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from soi_lib.errors import ChecksumError, FormatError, RangeError, SchemaError, SoiError
from soi_lib.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SCHEMA = 1
MAX_EPOCHS = 64

_KEY = b"soi"
_SEAL = b'"sha256": "'  # inside a JSON string its quotes would be escaped, so the last one in the footer is the seal
_BLANK = b"0" * 64
_ROW_GROUP = 1 << 17  # rows: small enough to be read a few at a time, large enough to compress

Array = npt.NDArray[Any]


def write(path: Path, columns: Mapping[str, Array], meta: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write a dynamics file atomically; return `path`.

    Args:
        columns: id (N,) int64 or str objects, gold (N,) int16, p_gold (E, N) float32, history (N,) uint64 and, if
            recorded, logits (E, N, C) float32.
        meta: The JSON object of the metadata, without the sha256.

    Raises:
        FormatError: An id is not UTF-8, or `meta` cannot be written as JSON.
        OutputExistsError: `path` exists, and `overwrite` is false.
    """
    import pyarrow.parquet as pq

    try:
        text = json.dumps(meta, ensure_ascii=True)
    except (TypeError, ValueError) as error:
        raise FormatError("meta cannot be written as JSON", where=path, found=error) from error
    table = _table(columns, path)
    with replacing(path, overwrite=overwrite) as tmp:
        with pq.ParquetWriter(
            tmp,
            table.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
            use_byte_stream_split=[f"{name}.list.element" for name in ("p_gold", "logits") if name in columns],
        ) as writer:
            writer.write_table(table, row_group_size=_ROW_GROUP)
            # added to the footer only: Arrow's own copy of the schema would repeat it, including the seal
            writer.add_key_value_metadata({_KEY.decode(): text[:-1] + ", " + (_SEAL + _BLANK).decode() + '"}'})
        with open(tmp, "rb+") as handle:
            place = _seal_place(handle)
            assert place is not None
            digest = _digest(handle, place)
            handle.seek(place)
            handle.write(digest.encode())
    return path


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a dynamics file; return its columns, as `write` takes them, and the JSON object of its metadata.

    Raises:
        SoiError: There is no such file.
        SchemaError: It is not a dynamics file, or it has another schema.
        ChecksumError: Its bytes have changed since it was written.
        FormatError, RangeError: Its metadata or a column is invalid.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Arrow's own memory: its threads may release a buffer while Python exits, and a Python buffer would then abort.
    with _opened(path), pa.OSFile(str(path)) as source:
        held = source.read_buffer()
    _check_seal(pa.BufferReader(held), path)
    file, meta = _parse(pa.BufferReader(held), path)
    try:
        # unlike ParquetFile.read, read_table decodes row groups in parallel
        table = file.read() if file.num_row_groups == 1 else pq.read_table(pa.BufferReader(held))
        columns: dict[str, Array] = {name: _values(table[name]) for name in ("id", "gold", "history")}
        n, epochs = table.num_rows, meta["epochs"]
        columns["p_gold"] = np.ascontiguousarray(_values(table["p_gold"]).reshape(n, epochs).T)
        if "logits" in table.schema.names:
            logits = _values(table["logits"]).reshape(n, epochs, meta["classes"])
            columns["logits"] = np.ascontiguousarray(logits.transpose(1, 0, 2))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError("the columns cannot be decoded", where=path, found=error) from error
    return columns, meta


def check(path: Path) -> tuple[pa.Schema, dict[str, Any]]:
    """Check the seal and the schema of a file of any size; return its column types and its metadata.

    Raises the same errors as `read` for the seal, the schema and the metadata.
    """
    with _opened(path) as handle:
        _check_seal(handle, path)
    file, meta = _parse(path, path)
    with file:
        return file.schema_arrow.remove_metadata(), meta


def _values(column: pa.ChunkedArray) -> Array:
    """Return the values of a column as one array, with lists flattened; copy only if necessary."""
    whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    lists = hasattr(whole, "flatten") and hasattr(whole.type, "list_size")
    return (whole.flatten() if lists else whole).to_numpy(zero_copy_only=False)


def _parse(source: Any, path: Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Return the Parquet file of `source` and its metadata, after checking both against schema 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source)
        meta = json.loads(file.metadata.metadata[_KEY])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise SchemaError(
            "this is not a dynamics file", where=path, found=error, hint="give a file that TrainingDynamics.save wrote"
        ) from error
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        raise SchemaError(
            "the file has another schema",
            where=path,
            found=meta.get("schema") if isinstance(meta, dict) else type(meta).__name__,
            expected=SCHEMA,
            hint="read it with the soi_lib version that wrote it, or update soi_lib",
        )
    epochs, classes = meta.get("epochs"), meta.get("classes")
    if not isinstance(epochs, int) or not isinstance(classes, int) or not 1 <= epochs <= MAX_EPOCHS or classes < 1:
        raise RangeError(
            "epochs or classes are out of range",
            where=path,
            found=f"{epochs!r} epochs and {classes!r} classes",
            expected=f"1 to {MAX_EPOCHS} epochs, at least 1 class",
        )
    names = file.schema_arrow.names
    text = "id" in names and file.schema_arrow.field("id").type == pa.string()
    expected = _arrow_schema(text, epochs, classes if "logits" in names else None)
    if not file.schema_arrow.remove_metadata().equals(expected):
        found = ", ".join(f"{f.name} {f.type}" for f in file.schema_arrow)
        wanted = ", ".join(f"{f.name} {f.type}" for f in expected)
        raise SchemaError("the columns are not those of schema 1", where=path, found=found, expected=wanted)
    return file, meta


def _table(columns: Mapping[str, Array], path: Path) -> pa.Table:
    """Return the columns of schema 1 as an Arrow table."""
    import pyarrow as pa

    p_gold, logits = columns["p_gold"], columns.get("logits")
    schema = _arrow_schema(columns["id"].dtype.kind != "i", len(p_gold), None if logits is None else logits.shape[2])
    try:
        ids = pa.array(columns["id"], type=schema.field("id").type)
    except (pa.ArrowException, UnicodeError) as error:
        raise FormatError("an id cannot be written as UTF-8", where=path, found=error) from error
    arrays = {"id": ids, "gold": pa.array(columns["gold"]), "history": pa.array(columns["history"])}
    flat = {"p_gold": p_gold.T} if logits is None else {"p_gold": p_gold.T, "logits": logits.transpose(1, 0, 2)}
    for name, values in flat.items():
        numbers = pa.array(np.ascontiguousarray(values).reshape(-1))
        arrays[name] = pa.FixedSizeListArray.from_arrays(numbers, type=schema.field(name).type)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _arrow_schema(text_ids: bool, epochs: int, classes: int | None) -> pa.Schema:
    """Return schema 1; `classes` is None if logits are not stored."""
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


# --- the seal ------------------------------------------------------------------------------------------------------


def _seal_place(handle: BinaryIO) -> int | None:
    """Return the position of the 64 hex digits of the seal, searching only the footer; None if there is no seal."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(size - 8)
    length = int.from_bytes(handle.read(4), "little") + 8
    start = max(0, size - length)
    handle.seek(start)
    place = handle.read().rfind(_SEAL)
    return None if place < 0 or start + place + len(_SEAL) + 64 > size else start + place + len(_SEAL)


def _digest(handle: BinaryIO, place: int) -> str:
    """Return the sha256 (hex) of the whole file with the seal's digits at `place` taken as zeros."""
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
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open the file for reading."""
    try:
        with open(path, "rb") as handle:
            yield handle
    except OSError as error:
        raise SoiError("the file cannot be read", where=path, found=error.strerror, hint="check the path") from error


def _check_seal(handle: BinaryIO, path: Path) -> None:
    """Raise unless `handle` is a dynamics file with an intact seal."""
    again = "download or copy the file again, or repeat the run that wrote it"
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(4)
    if size < 12 or head != b"PAR1":
        raise SchemaError("this is not a dynamics file", where=path, found=repr(head), expected="b'PAR1'", hint=again)
    handle.seek(size - 4)
    if handle.read(4) != b"PAR1":
        raise ChecksumError("the file is truncated or its end has changed", where=path, hint=again)
    place = _seal_place(handle)
    if place is None:
        raise SchemaError(
            "the file has no checksum: another program wrote it, or it is damaged",
            where=path,
            expected="the sha256 that TrainingDynamics.save writes",
            hint=again,
        )
    handle.seek(place)
    stored = handle.read(64).decode("ascii", "replace")
    actual = _digest(handle, place)
    if stored != actual:
        raise ChecksumError(
            "the file has changed since it was written",
            where=path,
            found=f"sha256 {actual[:12]}",
            expected=stored[:12],
            hint=again,
        )
