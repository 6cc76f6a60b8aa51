"""TrainingDynamics: how every training example was predicted in every epoch. The library's only data structure.

Correctness over up to 64 epochs is also available as one 64-bit word per example (`history`), so that categories and
counts take a few bit operations on a million examples at once. Everything is checked on construction, so later code
need not check that ids are unique or probabilities in range. `io` reads and writes the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import soi_lib
from soi_lib import io
from soi_lib.errors import AlignmentError, DuplicateIdError, FormatError, RangeError, located
from soi_lib.io import MAX_EPOCHS as MAX_EPOCHS  # callers import it from here
from soi_lib.io import SCHEMA

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Meta:
    """The origin of dynamics; stored as the JSON value `soi` of a dynamics file.

    `epochs` and `classes` are filled in from the arrays if left at 0; `created` (UTC, ISO 8601) and `library_version`
    are filled in when a file is saved. `setting` lists the members that were trained together, `record` is the mode in
    which predictions were recorded, `profile` is the hash of the profile. Fields that this version does not know are
    kept in `extra`.
    """

    comparison: str = ""
    member: str = ""
    setting: tuple[str, ...] = ()
    seed: int | None = None
    record: Literal["train", "eval"] = "train"
    epochs: int = 0
    classes: int = 0
    label_names: tuple[str, ...] = ()
    profile: str = ""
    library_version: str = ""
    commit: str = ""
    created: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Meta:
        """Build from a flat mapping; keys that are not fields go to `extra`. Raises FormatError for a wrong type."""
        known = {f.name for f in fields(cls)} - {"extra"}
        given = {k: v for k, v in values.items() if k in known}
        extra = {k: v for k, v in values.items() if k not in known and k not in ("schema", "sha256")}
        for name in ("setting", "label_names"):
            value = given.get(name, ())
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                raise FormatError(f"meta field {name!r} is not a list of names", found=repr(value))
            given[name] = tuple(value)
        return cls(**given, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """Return the flat mapping to store: schema first, then all fields, then the extras."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        own["setting"], own["label_names"] = list(self.setting), list(self.label_names)
        return {"schema": SCHEMA, **own, **{k: self.extra[k] for k in sorted(self.extra) if k not in own}}


@dataclass(frozen=True, eq=False, repr=False)
class TrainingDynamics:
    """The gold label's probability and the correctness of the prediction, per example and epoch.

    ids (N,) int64 or str objects, unique; gold (N,) int16; p_gold (E, N) float32 in 0..1; correct (E, N) bool;
    logits (E, N, C) float32 or None; 1 <= E <= 64. Arrays are not copied if their dtype allows, and are read-only
    here. Raises DuplicateIdError, RangeError or FormatError.
    """

    ids: Array
    gold: Array
    p_gold: Array
    correct: Array
    meta: Meta = field(default_factory=Meta)
    logits: Array | None = None

    def __post_init__(self) -> None:
        meta = Meta.from_dict(self.meta) if isinstance(self.meta, Mapping) else self.meta
        with located(meta.member or None):
            arrays = {
                "ids": as_ids(self.ids),
                "gold": _as(np.int16, self.gold, "gold"),
                "p_gold": _as(np.float32, self.p_gold, "p_gold"),
                "correct": _as(np.bool_, self.correct, "correct"),
            }
            if self.logits is not None:
                arrays["logits"] = _as(np.float32, self.logits, "logits")
            for name, array in arrays.items():
                object.__setattr__(self, name, _read_only(array))
            object.__setattr__(self, "meta", self._checked(meta))

    def _checked(self, meta: Meta) -> Meta:
        """Check shapes, ranges and ids against each other; return the meta with epochs and classes filled in."""
        epochs, n = len(self.p_gold), len(self.ids)
        if n == 0:
            raise FormatError("there are no examples", hint="give at least one")
        if self.logits is not None and self.logits.ndim == 3:
            known = self.logits.shape[2]
        else:
            known = max(2, int(self.gold.max(initial=1)) + 1)
        classes = meta.classes or len(meta.label_names) or known
        shapes = {"p_gold": (epochs, n), "correct": (epochs, n), "gold": (n,), "logits": (epochs, n, classes)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise FormatError(f"{name} has the wrong shape", found=array.shape, expected=shape)
        if not 1 <= epochs <= MAX_EPOCHS:
            raise RangeError("the number of epochs is out of range", found=epochs, expected=f"1 to {MAX_EPOCHS}")
        if meta.epochs not in (0, epochs):
            raise FormatError("meta.epochs does not match p_gold", found=meta.epochs, expected=epochs)
        if meta.label_names and len(meta.label_names) != classes:
            raise FormatError("label_names do not match classes", found=meta.label_names, expected=classes)
        if not (self.p_gold.min() >= 0.0 and self.p_gold.max() <= 1.0):  # false for NaN, which compares false
            epoch, row = np.argwhere(~((self.p_gold >= 0) & (self.p_gold <= 1)))[0]
            what = f"p_gold of id {self.ids[row]!r} at epoch {epoch} is not a probability"
            raise RangeError(what, found=self.p_gold[epoch, row], expected="a number from 0 to 1")
        refuse_unknown(self.ids, self.gold, classes)
        if self.logits is not None and not np.isfinite(self.logits).all():
            raise RangeError("logits contain values that are not finite")
        refuse_duplicates(self.ids)
        return replace(meta, epochs=epochs, classes=classes)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        meta = self.meta
        name = " ".join(filter(None, [meta.comparison, meta.member, "+".join(meta.setting)]))
        return f"TrainingDynamics({name + ': ' if name else ''}{len(self):,} examples, {self.epochs} epochs)"

    @property
    def epochs(self) -> int:
        """E, the number of recorded epochs."""
        return int(self.p_gold.shape[0])

    @cached_property
    def history(self) -> npt.NDArray[np.uint64]:
        """Correctness as one word per example: (N,) uint64; bit e is set if epoch e was correct."""
        return pack_history(self.correct)

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of ids, gold, p_gold, correct and logits: equal if and only if the content is."""
        digest = hashlib.sha256(f"{len(self)} {self.epochs} {self.ids.dtype.kind}".encode())
        ids = self.ids if self.ids.dtype.kind == "i" else np.frombuffer(json.dumps(list(self.ids)).encode(), np.uint8)
        for array in (ids, self.gold, self.p_gold, self.history, self.logits):
            if array is not None:
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def subset(self, which: npt.ArrayLike) -> TrainingDynamics:
        """Return the examples of a bool mask (N,), in their present order, or of a list of ids, in that order.

        Raises AlignmentError for an unknown id, FormatError for an empty selection or a mask of the wrong shape.
        """
        mask = np.asarray(which)
        if mask.dtype == bool:
            if mask.shape != self.ids.shape:
                raise FormatError("the mask has the wrong shape", found=mask.shape, expected=self.ids.shape)
            return self._take(np.flatnonzero(mask))
        if not mask.size:
            raise FormatError("the selection is empty", hint="choose at least one example")
        wanted = as_ids(which).tolist()
        row_of = {key: row for row, key in enumerate(self.ids.tolist())}
        missing = [key for key in wanted if key not in row_of]
        if missing:
            raise AlignmentError(f"{len(missing)} ids are not in these dynamics", found=f"first of them {missing[0]!r}")
        return self._take(np.array([row_of[key] for key in wanted]))

    def _take(self, rows: Array | slice) -> TrainingDynamics:
        if isinstance(rows, slice):  # all of them
            return self
        return TrainingDynamics(
            self.ids[rows],
            self.gold[rows],
            self.p_gold[:, rows],
            self.correct[:, rows],
            self.meta,
            None if self.logits is None else self.logits[:, rows],
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write schema 1 to `path` atomically; return it. Raises OutputExistsError or SoiError."""
        columns = {"id": self.ids, "gold": self.gold, "p_gold": self.p_gold, "history": self.history}
        if self.logits is not None:
            columns["logits"] = self.logits
        meta = replace(
            self.meta,
            created=self.meta.created or f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            library_version=self.meta.library_version or soi_lib.__version__,
        )
        return io.write(Path(path), columns, meta.to_dict(), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainingDynamics:
        """Read a file of schema 1 and check all of it.

        Raises SoiError (no such file), SchemaError (not a dynamics file, or another schema), ChecksumError (changed or
        truncated bytes), DuplicateIdError, RangeError (history beyond E, p outside 0..1, gold not a class) or
        FormatError.
        """
        columns, values = io.read(Path(path))
        ids, history = columns.pop("id"), columns.pop("history")
        with located(path):
            meta = Meta.from_dict(values)
            beyond = history >> np.uint64(meta.epochs) if meta.epochs < MAX_EPOCHS else history[:0]
            if beyond.any():
                row = int(np.flatnonzero(beyond)[0])
                what = f"the history of id {ids[row]!r} goes beyond the last epoch"
                found = int(history[row]).bit_length() - 1
                raise RangeError(what, found=f"bit {found}", expected=f"bits 0 to {meta.epochs - 1}")
            dyn = cls(ids, correct=unpack_history(history, meta.epochs), meta=meta, **columns)
        dyn.__dict__["history"] = _read_only(history)  # already packed in the file
        return dyn


def align(a: TrainingDynamics, b: TrainingDynamics) -> tuple[TrainingDynamics, TrainingDynamics]:
    """Restrict both to their common ids, sorted. Raises AlignmentError if there are none or gold labels differ."""
    left, right = shared_rows((a, b))
    return a._take(left), b._take(right)


def shared_rows(runs: Sequence[TrainingDynamics], *, ordered: bool = True) -> list[Array | slice]:
    """Return the rows of the common ids in each of `runs`, in one order for all: sorted by id if `ordered`.

    A slice stands for all rows in their order, the usual and fastest case. Raises AlignmentError if the runs have no
    common id or different gold labels for one.
    """
    first = runs[0]
    for other in runs[1:]:
        if first.ids.dtype.kind != other.ids.dtype.kind:
            what = "one side has integer ids and the other has text ids"
            found = f"{first.ids[0]!r} and {other.ids[0]!r}"
            raise AlignmentError(what, found=found, hint="record both with the same ids")
    same = all(run.ids is first.ids or np.array_equal(run.ids, first.ids) for run in runs[1:])
    rows: list[Array | slice] = [slice(None)] * len(runs)
    if not same or (ordered and not bool((first.ids[1:] > first.ids[:-1]).all())):
        ids = reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), [run.ids for run in runs])
        if not len(ids):
            found = f"{first.ids[0]!r} and {runs[-1].ids[0]!r} for example"
            raise AlignmentError("the runs have no id in common", found=found, hint="compare runs of the same dataset")
        orders = [np.argsort(run.ids, kind="stable") for run in runs]
        rows = [order[np.searchsorted(run.ids[order], ids)] for run, order in zip(runs, orders, strict=True)]
    golds = [run.gold[row] for run, row in zip(runs, rows, strict=True)]
    for gold in golds[1:]:
        differ = np.flatnonzero(gold != golds[0])
        if len(differ):
            what, row = f"gold labels differ for {len(differ)} ids", differ[0]
            found = f"{golds[0][row]} and {gold[row]} for id {first.ids[rows[0]][row]!r}"
            raise AlignmentError(what, found=found, hint="compare runs of the same dataset")
    return rows


def pack_history(correct: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Pack bool (E, N) into (N,) uint64: bit e is set if epoch e was correct. E is 1 to 64."""
    rows = np.packbits(np.asarray(correct, dtype=bool), axis=0, bitorder="little")
    history = rows[0].astype(np.uint64)
    for byte in range(1, len(rows)):
        history |= rows[byte].astype(np.uint64) << np.uint64(8 * byte)
    return history


def unpack_history(history: npt.NDArray[np.uint64], epochs: int) -> npt.NDArray[np.bool_]:
    """Invert `pack_history`: (N,) uint64 to bool (E, N)."""
    out = np.empty((epochs, len(history)), dtype=bool)
    for first in range(0, epochs, 8):
        byte = (history >> np.uint64(first)).astype(np.uint8)
        for epoch in range(first, min(first + 8, epochs)):
            np.not_equal(byte & np.uint8(1 << (epoch - first)), 0, out=out[epoch])
    return out


# --- checks of single arrays -------------------------------------------------------------------------------------


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def as_ids(ids: Any) -> Array:
    """Return ids as (N,) int64 or str objects; a mixture raises an error rather than being converted to text."""
    if not isinstance(ids, np.ndarray):  # a column has to_numpy; NumPy would turn [1, "a"] into text
        ids = ids.to_numpy() if hasattr(ids, "to_numpy") else np.fromiter(ids, dtype=object)
    if ids.ndim != 1:
        raise FormatError("ids are not one-dimensional", found=f"shape {ids.shape}", expected="(N,)")
    if ids.dtype.kind == "i":
        return ids.astype(np.int64, copy=False)
    array: Array = ids.astype(object) if ids.dtype.kind in "uU" else ids  # objects reveal integers that are too large
    kinds = {type(key) for key in array.tolist()}
    if kinds and all(issubclass(kind, str) for kind in kinds):
        return array if kinds == {str} else np.array([str(key) for key in array], dtype=object)
    if all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
        try:
            return array.astype(np.int64)
        except OverflowError as error:
            raise RangeError("an id does not fit into a signed 64-bit integer", found=error) from error
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise FormatError("ids are neither all integers nor all text", found=names, hint="use str(id) for every id")


_EXPECTED: dict[type[np.generic], str] = {
    np.int16: "integers from 0 to 32766",
    np.bool_: "True and False, or 0 and 1",
    np.float32: "numbers",
}


def _as(dtype: type[np.generic], values: Any, name: str) -> Array:
    """Return values as a contiguous array of `dtype`. Integers and truth values must keep their values, in any type."""
    array = np.asarray(values)
    if array.dtype.kind not in ("iu" if dtype is np.int16 else "fiub"):
        raise FormatError(f"{name} has the wrong type", found=array.dtype, expected=_EXPECTED[dtype])
    cast = np.ascontiguousarray(array, dtype=dtype)
    if dtype is not np.float32 and array.dtype != dtype and not (cast == array).all():
        raise RangeError(f"{name} does not fit", found=f"{array.min()} to {array.max()}", expected=_EXPECTED[dtype])
    return cast


def refuse_unknown(ids: Array, gold: Array, classes: int) -> None:
    """Raise RangeError if one of the gold labels (N,) is not one of the classes."""
    wrong = np.flatnonzero((gold < 0) | (gold >= classes))
    if len(wrong):
        [example] = ids[wrong[:1]].tolist()
        what, found = f"the gold label of id {example!r} is not one of the classes", int(gold[wrong[0]])
        raise RangeError(what, found=found, expected=f"0 to {classes - 1}")


def refuse_duplicates(ids: Array) -> None:
    """Raise DuplicateIdError if one of the ids (N,) appears more than once."""
    if ids.dtype.kind == "i" and bool((ids[1:] > ids[:-1]).all()):  # sorted already, the usual case
        return
    keys = ids.tolist()
    if len(set(keys)) < len(keys):
        first = next(key for key, times in Counter(keys).items() if times > 1)
        hint = "number the rows, or drop the duplicates"
        raise DuplicateIdError(f"the id {first!r} appears more than once", expected="every id once", hint=hint)
