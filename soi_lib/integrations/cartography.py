"""The `training_dynamics/` folder of allenai/cartography: read it, write it.

    dyn = read_dynamics("model/training_dynamics")
    write_dynamics(dyn, "out/training_dynamics")

A file an epoch, `dynamics_epoch_0.jsonl` and so on, with a line an example: `guid`, `logits_epoch_N`, `gold`.

Every line is checked as it is read, so an error names the file, the line and the damage. What we
write has two more keys, which other readers pass over: `p_gold` and `correct`, so that dynamics come back with the same
bits whichever softmax they were recorded with. Where no logits were recorded, the ones written are made up from those
two and the line says so (`logits_made_up`); see `write_dynamics`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import softmax  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from soi_lib.dynamics import MAX_EPOCHS, Meta, TrainingDynamics
from soi_lib.errors import DuplicateIdError, FormatError, OutputExistsError, RangeError, SoiError, located
from soi_lib.files import building
from soi_lib.integrations.arrays import meta_of, shown

Array = npt.NDArray[Any]

_NAME = re.compile(r"dynamics_epoch_(0|[1-9]\d*)\.jsonl")
_AGREE = 1e-5  # how far a written p_gold may be from the softmax of its logits: single precision
_BLOCK = 8192  # lines that are written at once
_CLOSE = 1e-6  # the same where logits are made up
_NUDGE = 1e-6  # between logits that must not be equal: it moves p by less than that
_FLOOR = 1e-30  # the smallest probability for which logits are made up: below it a float32 has few bits


class _Line(NamedTuple):
    """An example at an epoch; `p_gold` and `correct` are None where other tools wrote the file."""

    line: int
    guid: Any
    logits: list[float]
    gold: int
    p_gold: float | None
    correct: bool | None
    made_up: bool


def read_dynamics(
    folder: str | os.PathLike[str],
    *,
    keep_logits: bool = True,
    meta: Meta | Mapping[str, Any] | None = None,
) -> TrainingDynamics:
    """Dynamics from a folder of `dynamics_epoch_N.jsonl` (or the folder that holds `training_dynamics`).

    Ids are the guids, whole numbers or text, in the order of epoch 0; later epochs may have another order. The
    prediction is the class with the highest logit, the first of equal ones. No more than one epoch's text is in
    memory. Raises FormatError, RangeError or DuplicateIdError, each with file and line, for: a stray file, a missing
    epoch, an epoch that lacks examples or has others, a broken line, a key that is missing, logits that are null, not
    numbers or of another width, a guid that appears twice, a gold label that is not one of the classes or differs
    between epochs. Raises SoiError for what cannot be opened.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SoiError("no such folder", where=root, hint="give the training_dynamics folder")
    if (root / "training_dynamics").is_dir():
        root = root / "training_dynamics"
    first: list[_Line] = []  # epoch 0
    row_of: dict[Any, int] = {}
    files = _files(root)
    for number, file in enumerate(tqdm(files, desc="reading epochs", delay=2, leave=False)):
        lines = _lines_of(file, number, first[0] if first else None)
        if not first:
            first, row_of = lines, {line.guid: row for row, line in enumerate(lines)}
            n, classes = len(lines), len(lines[0].logits)
            p, correct = np.empty((len(files), n), dtype=np.float32), np.empty((len(files), n), dtype=bool)
            keep = keep_logits and not any(line.made_up for line in lines)
            logits = np.empty((len(files), n, classes), dtype=np.float32) if keep else None
        rows = _rows(lines, first, row_of, file, number)
        scores = np.array([line.logits for line in lines], dtype=np.float64)
        gold = np.array([line.gold for line in lines])
        own, right = softmax(scores, axis=1)[np.arange(n), gold], scores.argmax(1) == gold
        if lines[0].p_gold is not None and lines[0].correct is not None:
            said = np.array([line.p_gold for line in lines], dtype=np.float64)
            right = np.array([line.correct for line in lines], dtype=bool)
            contradicted = (np.abs(own - said) > _AGREE) | _contradicts(scores, gold, right)
            if contradicted.any():
                line = lines[int(contradicted.argmax())]
                raise FormatError(
                    f"p_gold or correct of {shown(line.guid)} is not what its logits say",
                    where=f"{file} line {line.line}",
                    hint="remove both keys if the logits are right",
                )
            own = said
        p[number, rows], correct[number, rows] = own, right
        if logits is not None:
            logits[number, rows] = scores
    with located(root):
        ids, golds = [line.guid for line in first], [line.gold for line in first]
        return TrainingDynamics(ids, golds, p, correct, meta_of(meta, classes), logits)  # type: ignore[arg-type]


def write_dynamics(dyn: TrainingDynamics, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write `dyn` as a `training_dynamics` folder, whole or not at all; return the folder.

    Recorded logits are written to the last bit. Where there are none, logits are made up that give the same p_gold (to
    1e-6) and the same correctness: log p for the gold class; for the others the rest in equal shares where the
    prediction was right, and nearly all of the rest for the first other class where it was wrong. With two classes
    these are the model's own up to a constant; with more, nothing but p_gold and correctness may be read from them.
    All that cartography computes (confidence, variability, correctness, forgetfulness, loss) depends on no more.
    Raises FormatError where p_gold and correctness contradict each other, so that no logits give both,
    OutputExistsError unless `overwrite`, which replaces a folder with nothing but such files in it.
    """
    target = Path(folder)
    logits = [_logits_of(dyn, epoch) for epoch in range(dyn.epochs)]
    _refuse_others(target, overwrite)
    with building(target, replace=True) as work:
        for epoch in tqdm(range(dyn.epochs), desc="writing epochs", delay=2, leave=False):
            with open(work / f"dynamics_epoch_{epoch}.jsonl", "w", encoding="utf-8", newline="\n") as out:
                out.writelines(_lines(dyn, epoch, logits[epoch]))
    return target


# --- reading -------------------------------------------------------------------------------------------------------


def _files(root: Path) -> list[Path]:
    """The files of all epochs in their order, nothing else being there."""
    numbers: dict[int, Path] = {}
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue  # what operating systems leave behind
        match = _NAME.fullmatch(entry.name)
        if not match or not entry.is_file():
            raise FormatError(
                "a stray file is among the epochs",
                where=entry,
                expected="dynamics_epoch_N.jsonl and nothing else",
                hint="move it away",
            )
        numbers[int(match[1])] = entry
    if not numbers:
        raise FormatError("there are no epochs", where=root, expected="dynamics_epoch_0.jsonl and so on")
    gap = next((n for n in range(max(numbers)) if n not in numbers), None)
    if gap is not None:
        raise FormatError(
            f"epoch {gap} is missing",
            where=root,
            found=f"{len(numbers)} files up to epoch {max(numbers)}",
            hint="bring the file back, or renumber the files and their keys from 0 without a gap",
        )
    if len(numbers) > MAX_EPOCHS:
        raise RangeError("there are too many epochs", where=root, found=len(numbers), expected=f"1 to {MAX_EPOCHS}")
    return [numbers[n] for n in sorted(numbers)]


def _lines_of(file: Path, number: int, like: _Line | None) -> list[_Line]:
    """The lines of an epoch, each checked by itself and against `like`, the first line of epoch 0."""
    lines: list[_Line] = []
    seen: dict[Any, int] = {}
    for line, raw in enumerate(file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        with located(f"{file} line {line}"):
            one = _line(line, raw, number, like)
            if one.guid in seen:
                found = f"already in line {seen[one.guid]}"
                raise DuplicateIdError(f"the guid {one.guid!r} appears twice", found=found)
        like = like or one
        seen[one.guid] = line
        lines.append(one)
    if not lines:
        raise FormatError("the epoch is empty", where=file, expected="a line an example")
    return lines


def _line(line: int, raw: bytes, number: int, like: _Line | None) -> _Line:
    try:
        row = json.loads(raw)
    except ValueError as error:  # bytes that are not UTF-8 as well
        hint = f"it may be cut short ({error}); record the epoch again"
        raise FormatError("the line is broken", found=_short(raw), expected="one JSON object", hint=hint) from None
    if not isinstance(row, dict):
        raise FormatError("the line is not a JSON object", found=_short(row))
    key = f"logits_epoch_{number}"
    missing = [name for name in ("guid", key, "gold") if name not in row]
    if missing:
        raise FormatError(f"the key {missing[0]!r} is missing", found=", ".join(row) or "no key")
    guid, logits, gold = row["guid"], row[key], row["gold"]
    p, correct = row.get("p_gold"), row.get("correct")
    if type(guid) not in (int, str) or (like and type(guid) is not type(like.guid)):
        expected = f"{type(like.guid).__name__}, as in the first line" if like else "a whole number or text"
        raise FormatError("the guid is of another kind", found=repr(guid), expected=expected)
    numbers = isinstance(logits, list) and all(type(z) in (int, float) and math.isfinite(z) for z in logits)
    if not numbers or len(logits) < 2:
        raise FormatError(f"the logits of {guid!r} are not numbers", found=_short(logits), expected="a number a class")
    if like and len(logits) != len(like.logits):
        raise FormatError(f"{guid!r} has another number of classes", found=len(logits), expected=len(like.logits))
    if type(gold) is not int or not 0 <= gold < len(logits):
        raise RangeError(
            f"the gold label of {guid!r} is not one of the classes",
            found=_short(gold),
            expected=f"0 to {len(logits) - 1}",
        )
    for name, value, kinds in (("p_gold", p, (int, float)), ("correct", correct, (bool,))):
        lacking = like is not None and (value is None) != (getattr(like, name) is None)
        if lacking or (value is not None and type(value) not in kinds):
            expected = "in every line or none"
            raise FormatError(f"{name} is missing or of another kind", found=_short(value), expected=expected)
    return _Line(line, guid, logits, gold, p, correct, row.get("logits_made_up") is True)


def _rows(lines: list[_Line], first: list[_Line], row_of: dict[Any, int], file: Path, number: int) -> Array:
    """Where the examples of an epoch lie among those of epoch 0."""
    for line in lines:
        if line.guid not in row_of:
            raise FormatError(
                "the epoch has an example that epoch 0 lacks",
                where=f"{file} line {line.line}",
                found=shown(line.guid),
                hint="epoch 0 or this one is partial",
            )
        before = first[row_of[line.guid]].gold
        if line.gold != before:
            raise FormatError(
                f"the gold label of {shown(line.guid)} differs between epochs",
                where=f"{file} line {line.line}",
                found=line.gold,
                expected=f"{before}, as in epoch 0",
            )
    if len(lines) != len(first):
        here = {line.guid for line in lines}
        absent = next(guid for guid in row_of if guid not in here)
        raise FormatError(
            f"epoch {number} is partial",
            where=file,
            found=f"{len(lines)} of {len(first)} examples; {shown(absent)} is not there",
            hint="record the epoch again, or leave it out",
        )
    return np.array([row_of[line.guid] for line in lines])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:40]}...{text[-30:]}"


# --- writing -------------------------------------------------------------------------------------------------------


def _logits_of(dyn: TrainingDynamics, epoch: int) -> Array:
    """The logits (N, C) that are written for an epoch, which give its p_gold and correctness."""
    p, correct, gold = dyn.p_gold[epoch].astype(np.float64), dyn.correct[epoch], dyn.gold.astype(np.int64)
    rows = np.arange(len(dyn))
    if dyn.logits is not None:
        logits, close = dyn.logits[epoch].astype(np.float64), _AGREE
    else:
        logits, close = _made_up(p, correct, gold, dyn.meta.classes), _CLOSE
    contradicted = _contradicts(logits, gold, correct) | (np.abs(softmax(logits, axis=1)[rows, gold] - p) > close)
    if contradicted.any():
        row = int(np.flatnonzero(contradicted)[0])
        raise FormatError(
            f"no logits give what was recorded of id {shown(dyn.ids[row])} at epoch {epoch}"
            if dyn.logits is None
            else f"the logits of id {shown(dyn.ids[row])} at epoch {epoch} contradict what was recorded",
            found=f"p_gold {p[row]:g} and {'right' if correct[row] else 'wrong'} with {dyn.meta.classes} classes",
            hint="save the dynamics as Parquet instead",
        )
    return logits


def _contradicts(logits: Array, gold: Array, correct: Array) -> npt.NDArray[np.bool_]:
    """Where `correct` (N,) is not what logits (N, C) say; between equal highest ones either will do."""
    tied = logits[np.arange(len(gold)), gold] == logits.max(1)
    alone = (logits == logits.max(1, keepdims=True)).sum(1) == 1
    return np.asarray((correct & ~tied) | (~correct & tied & alone))


def _made_up(p: Array, correct: Array, gold: Array, classes: int) -> npt.NDArray[np.float64]:
    """Logits (N, C) with the given p and correctness, as far as there are such; see `write_dynamics`."""
    rows = np.arange(len(p))
    own = np.log(np.maximum(p, _FLOOR))
    # right: the others share what is left, and stay below the gold class even where rounding says otherwise
    share = np.minimum(np.log(np.maximum((1 - p) / (classes - 1), _FLOOR)), own - _NUDGE)
    logits = np.repeat(share[:, None], classes, axis=1)
    # wrong: one other class is above the gold class, the rest have next to nothing
    wrong = np.flatnonzero(~correct)
    logits[wrong] = np.log(_FLOOR)
    rival = np.where(gold[wrong] == 0, 1, 0)
    logits[wrong, rival] = np.maximum(np.log(np.maximum(1 - p[wrong], _FLOOR)), own[wrong] + _NUDGE)
    logits[rows, gold] = own
    return np.asarray(logits)


def _lines(dyn: TrainingDynamics, epoch: int, logits: Array) -> Iterator[str]:
    """The lines of an epoch; a list of finite floats is written in Python as in JSON, to the last bit."""
    end = ', "logits_made_up": true}\n' if dyn.logits is None else "}\n"
    for start in range(0, len(dyn), _BLOCK):
        block = slice(start, start + _BLOCK)
        columns = (
            dyn.ids[block].tolist(),
            logits[block].tolist(),
            dyn.gold[block].tolist(),
            dyn.p_gold[epoch, block].tolist(),
            dyn.correct[epoch, block].tolist(),
        )
        for guid, values, gold, p, correct in zip(*columns, strict=True):
            yield (
                f'{{"guid": {json.dumps(guid)}, "logits_epoch_{epoch}": {values}, "gold": {gold}, '
                f'"p_gold": {p}, "correct": {"true" if correct else "false"}{end}'
            )


def _refuse_others(target: Path, overwrite: bool) -> None:
    """Raise unless there is nothing at `target`, or a folder of such files that may be replaced."""
    if target.exists() and not target.is_dir():
        raise SoiError("this is a file, not a folder", where=target, hint="give another name")
    inside = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    if inside and not overwrite:
        raise OutputExistsError("the folder is already there", where=target, hint="pass overwrite=True to replace it")
    other = [name for name in inside if not _NAME.fullmatch(name)]
    if other:
        raise OutputExistsError(
            "the folder holds other files too", where=target, found=other[0], hint="choose another folder"
        )
