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
            place, _, digest = _seal(handle)
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
        shape = table.num_rows, meta["epochs"], meta["classes"]
        columns["p_gold"] = np.ascontiguousarray(_values(table["p_gold"]).reshape(shape[:2]).T)
        if "logits" in table.schema.names:
            columns["logits"] = np.ascontiguousarray(_values(table["logits"]).reshape(shape).swapaxes(0, 1))
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
        hint = "give a file that TrainingDynamics.save wrote"
        raise SchemaError("this is not a dynamics file", where=path, found=error, hint=hint) from error
    found = meta.get("schema") if isinstance(meta, dict) else type(meta).__name__
    if found != SCHEMA:
        hint = "read it with the soi_lib version that wrote it, or update soi_lib"
        raise SchemaError("the file has another schema", where=path, found=found, expected=SCHEMA, hint=hint)
    epochs, classes = meta.get("epochs"), meta.get("classes")
    if not isinstance(epochs, int) or not isinstance(classes, int) or not 1 <= epochs <= MAX_EPOCHS or classes < 1:
        found, wanted = f"{epochs!r} epochs and {classes!r} classes", f"1 to {MAX_EPOCHS} epochs, at least 1 class"
        raise RangeError("epochs or classes are out of range", where=path, found=found, expected=wanted)
    names = file.schema_arrow.names
    text = "id" in names and file.schema_arrow.field("id").type == pa.string()
    expected = _arrow_schema(text, epochs, classes if "logits" in names else None)
    if not file.schema_arrow.remove_metadata().equals(expected):
        found, wanted = (", ".join(f"{f.name} {f.type}" for f in schema) for schema in (file.schema_arrow, expected))
        raise SchemaError("the columns are not those of schema 1", where=path, found=found, expected=wanted)
    return file, meta


def _table(columns: Mapping[str, Array], path: Path) -> pa.Table:
    """Return the columns of schema 1 as an Arrow table."""
    import pyarrow as pa

    ids, epochs, logits = columns["id"], len(columns["p_gold"]), columns.get("logits")
    schema = _arrow_schema(ids.dtype.kind != "i", epochs, None if logits is None else logits.shape[2])
    arrays = []
    for field in schema:
        values = columns[field.name]
        if values.ndim == 1:
            try:
                arrays.append(pa.array(values, type=field.type))
            except (pa.ArrowException, UnicodeError) as error:
                raise FormatError("an id cannot be written as UTF-8", where=path, found=error) from error
        else:  # one list per example
            numbers = pa.array(values.swapaxes(0, 1).reshape(-1))
            arrays.append(pa.FixedSizeListArray.from_arrays(numbers, type=field.type))
    return pa.table(arrays, schema=schema)


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


def _seal(handle: BinaryIO) -> tuple[int, str, str]:
    """Return where the digits of the seal are, the digits, and what they should be; 0 and "" if there is no seal."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(size - 8)
    start = max(0, size - 8 - int.from_bytes(handle.read(4), "little"))
    handle.seek(start)
    footer = handle.read()
    before, mark, after = footer.rpartition(_SEAL)
    if not mark or len(after) < len(_BLANK):
        return 0, "", ""
    digest = hashlib.sha256()
    handle.seek(0)
    for place in range(0, start, 1 << 20):
        digest.update(handle.read(min(start - place, 1 << 20)))
    digest.update(before + mark + _BLANK + after[len(_BLANK) :])
    stored = after[: len(_BLANK)].decode("ascii", "replace")
    return start + len(before + mark), stored, digest.hexdigest()


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
    place, stored, actual = _seal(handle)
    if not place:
        what = "the file has no checksum: another program wrote it, or it is damaged"
        raise SchemaError(what, where=path, expected="the sha256 that TrainingDynamics.save writes", hint=again)
    if stored != actual:
        what, found = "the file has changed since it was written", f"sha256 {actual[:12]}"
        raise ChecksumError(what, where=path, found=found, expected=stored[:12], hint=again)
