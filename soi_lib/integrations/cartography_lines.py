"""One file of cartography's training dynamics: a line an example, read quickly, or carefully when anything is amiss.

Special about it: the quick reader never explains and the careful one always does, so whatever the first will not take
the second reads again and either names the line and the damage or shows that there is none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soi_lib.errors import DuplicateIdError, FormatError, RangeError

Array = npt.NDArray[Any]


@dataclass
class Epoch:
    """One file: ids, gold (N,), logits (N, C) float64, line numbers, and what only our own files say (or None)."""

    ids: list[Any]
    gold: Array
    logits: Array
    lines: Array
    p: Array | None
    correct: Array | None
    made_up: bool


def read_epoch(file: Path, number: int) -> Epoch:
    """One epoch: quickly if all is well, else line by line to say what is not."""
    data = file.read_bytes()
    return _quick(data, number) or _careful(data, file, number)


def _quick(data: bytes, number: int) -> Epoch | None:
    """The epoch, or None if anything about it needs a closer look."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj

    try:
        options = pj.ReadOptions(block_size=min(max(1 << 20, len(data)), 1 << 26))
        table = pj.read_json(pa.BufferReader(data), read_options=options)
        if table.num_rows != data.count(b"\n") + (not data.endswith(b"\n")):
            return None
        guid, gold, lists = (table[name].combine_chunks() for name in ("guid", "gold", f"logits_epoch_{number}"))
        own = {
            name: table[name].combine_chunks()
            for name in ("p_gold", "correct", "logits_made_up")
            if name in table.column_names
        }
        flat = pc.cast(lists.flatten(), pa.float64())
        widths = lists.value_lengths().to_numpy(zero_copy_only=False)
        nulls = [column.null_count for column in (guid, gold, lists, flat, *own.values())]
        if any(nulls) or not pa.types.is_integer(gold.type) or len(np.unique(widths)) != 1 or widths[0] < 2:
            return None
        if not (pa.types.is_string(guid.type) or pa.types.is_integer(guid.type)) or len(guid.unique()) != len(guid):
            return None
        logits = flat.to_numpy().reshape(len(guid), -1)
        golds = gold.to_numpy()
        if not np.isfinite(logits).all() or golds.min() < 0 or golds.max() >= logits.shape[1]:
            return None
        p = own["p_gold"].to_numpy() if "p_gold" in own else None
        correct = own["correct"].to_numpy(zero_copy_only=False) if "correct" in own else None
        if (p is not None and p.dtype.kind not in "fi") or (correct is not None and correct.dtype != bool):
            return None
        return Epoch(guid.to_pylist(), golds, logits, np.arange(1, len(golds) + 1), p, correct, "logits_made_up" in own)
    except (pa.ArrowException, KeyError, TypeError, ValueError, AttributeError):
        return None


def _careful(data: bytes, file: Path, number: int) -> Epoch:
    """The epoch line by line; raises with the line's number at the first damage."""
    ids: list[Any] = []
    values: list[list[float]] = []
    golds: list[int] = []
    lines: list[int] = []
    p: list[Any] = []
    correct: list[Any] = []
    seen: dict[Any, int] = {}
    made_up = False
    for line, row in _objects(data, file):
        where = f"{file} line {line}"
        key = f"logits_epoch_{number}"
        missing = [name for name in ("guid", key, "gold") if name not in row]
        if missing:
            raise FormatError(f"the key {missing[0]!r} is missing", where=where, found=", ".join(row) or "no key")
        guid, logits, gold = row["guid"], row[key], row["gold"]
        if type(guid) not in (int, str) or (ids and type(guid) is not type(ids[0])):
            expected = f"{type(ids[0]).__name__}, as in the first line" if ids else "a whole number or text"
            raise FormatError("the guid is of another kind", where=where, found=repr(guid), expected=expected)
        if guid in seen:
            raise DuplicateIdError(
                f"the guid {guid!r} comes more than once", where=where, found=f"already in line {seen[guid]}"
            )
        number_like = isinstance(logits, list) and all(type(z) in (int, float) and math.isfinite(z) for z in logits)
        if not number_like or len(logits) < 2:
            raise FormatError(
                f"the logits of {guid!r} are no numbers", where=where, found=_short(logits), expected="a number a class"
            )
        if values and len(logits) != len(values[0]):
            raise FormatError(
                f"{guid!r} has another number of classes", where=where, found=len(logits), expected=len(values[0])
            )
        if type(gold) is not int or not 0 <= gold < len(logits):
            raise RangeError(
                f"the gold label of {guid!r} is no class",
                where=where,
                found=_short(gold),
                expected=f"0 to {len(logits) - 1}",
            )
        for name, kinds, column in (("p_gold", (int, float), p), ("correct", (bool,), correct)):
            if name in row and type(row[name]) not in kinds:
                raise FormatError(f"{name} is no {kinds[-1].__name__}", where=where, found=_short(row[name]))
            column.append(row.get(name))
        made_up |= row.get("logits_made_up") is True
        seen[guid] = line
        ids.append(guid)
        values.append(logits)
        golds.append(gold)
        lines.append(line)
    if not ids:
        raise FormatError("the epoch is empty", where=file, expected="a line an example")
    for name, column in (("p_gold", p), ("correct", correct)):
        if None in column and column.count(None) != len(column):
            line = lines[column.index(None)]
            raise FormatError(
                f"the key {name!r} is missing", where=f"{file} line {line}", expected="in every line or none"
            )
    return Epoch(
        ids,
        np.array(golds),
        np.array(values, dtype=np.float64),
        np.array(lines),
        None if None in p else np.array(p, dtype=np.float64),
        None if None in correct else np.array(correct, dtype=bool),
        made_up,
    )


def _objects(data: bytes, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not blank."""
    for line, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        where = f"{file} line {line}"
        try:
            row = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise FormatError("the line is not UTF-8", where=where, found=error.reason) from None
        except ValueError as error:
            raise FormatError(
                "the line is broken",
                where=where,
                found=_short(raw.decode("utf-8", "replace")),
                expected="one JSON object",
                hint=f"it may be cut short ({error}); record the epoch again",
            ) from None
        if not isinstance(row, dict):
            raise FormatError("the line is no JSON object", where=where, found=_short(row))
        yield line, row


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:40]}...{text[-30:]}"
