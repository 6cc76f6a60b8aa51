"""The `training_dynamics/` folder of allenai/cartography: read it, write it.

    dyn = read_dynamics("model/training_dynamics")
    write_dynamics(dyn, "out/training_dynamics")

A file an epoch, `dynamics_epoch_0.jsonl` and so on, with a line an example: `guid`, `logits_epoch_N`, `gold`.

Special about it: a folder is read an epoch at a time by a quick reader; at the first thing that is not as it should be,
that epoch is read again line by line, and the error names the file, the line and the damage. What we write has two
keys more, which other readers pass over: `p_gold` and `correct`, so that dynamics come back with the same bits
whichever softmax they were recorded with. Where no logits were recorded, the ones written are made up from those two
and the line says so (`logits_made_up`); see `write_dynamics`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from soi_lib.atomic import PREFIX, building
from soi_lib.dynamics import Meta, TrainingDynamics
from soi_lib.errors import FormatError, OutputExistsError, SoiError
from soi_lib.integrations.arrays import built, check_epochs, shown, softmax
from soi_lib.integrations.cartography_lines import Epoch, read_epoch

Array = npt.NDArray[Any]

_NAME = re.compile(r"dynamics_epoch_(0|[1-9]\d*)\.jsonl")
_AGREE = 1e-5  # how far a written p_gold may be from the softmax of its logits: single precision
_BLOCK = 8192  # lines that are written at once
_CLOSE = 1e-6  # the same where logits are made up
_NUDGE = 1e-6  # between logits that must not be equal: it moves p by less than that
_FLOOR = 1e-30  # the smallest probability for which logits are made up: below it a float32 has few bits


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
    epoch, an epoch that lacks examples or has others, a broken line, a key that is missing, logits that are null, no
    numbers or of another width, a guid that comes twice, a gold label that is no class or differs between epochs.
    Raises SoiError for what cannot be opened.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SoiError("no such folder", where=root, hint="give the training_dynamics folder")
    if (root / "training_dynamics").is_dir():
        root = root / "training_dynamics"
    files = _files(root)
    first: Epoch | None = None
    for number, file in enumerate(tqdm(files, desc="reading epochs", delay=2, leave=False)):
        epoch = read_epoch(file, number)
        if first is None:
            first = epoch
            n, classes = epoch.logits.shape
            place = {guid: i for i, guid in enumerate(epoch.ids)}
            p = np.empty((len(files), n), dtype=np.float32)
            correct = np.empty((len(files), n), dtype=bool)
            keep = keep_logits and not epoch.made_up
            logits = np.empty((len(files), n, classes), dtype=np.float32) if keep else None
        rows = _rows(epoch, first, place, file, number)
        own = softmax(epoch.logits)[np.arange(n), epoch.gold]
        p[number, rows] = own if epoch.p is None else epoch.p
        correct[number, rows] = epoch.logits.argmax(1) == epoch.gold if epoch.correct is None else epoch.correct
        against = np.zeros(n, dtype=bool) if epoch.p is None else np.abs(own - epoch.p) > _AGREE
        if epoch.correct is not None:
            against |= _against(epoch.logits, epoch.gold, epoch.correct)
        if against.any():
            row = int(np.flatnonzero(against)[0])
            raise FormatError(
                f"p_gold or correct of {shown(epoch.ids[row])} is not what its logits say",
                where=f"{file} line {epoch.lines[row]}",
                hint="remove both keys if the logits are right",
            )
        if logits is not None:
            logits[number, rows] = epoch.logits
    assert first is not None
    return built(root, first.ids, first.gold, p, correct, meta, classes, logits)


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
    exists = _exists(target, overwrite)
    with building(target.with_name(f"{PREFIX}new-{target.name}") if exists else target) as work:
        for epoch in tqdm(range(dyn.epochs), desc="writing epochs", delay=2, leave=False):
            with open(work / f"dynamics_epoch_{epoch}.jsonl", "w", encoding="utf-8", newline="\n") as out:
                out.writelines(_lines(dyn, epoch, logits[epoch]))
    if exists:
        old = target.with_name(f"{PREFIX}old-{target.name}")
        target.rename(old)
        target.with_name(f"{PREFIX}new-{target.name}").rename(target)
        shutil.rmtree(old, ignore_errors=True)
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
    check_epochs(len(numbers), root)
    return [numbers[n] for n in sorted(numbers)]


def _rows(epoch: Epoch, first: Epoch, place: dict[Any, int], file: Path, number: int) -> Any:
    """Where the examples of an epoch lie among those of epoch 0."""
    if epoch.logits.shape[1] != first.logits.shape[1]:
        raise FormatError(
            "the epoch has another number of classes",
            where=file,
            found=epoch.logits.shape[1],
            expected=f"{first.logits.shape[1]}, as epoch 0",
        )
    same = epoch.ids == first.ids
    rows = np.arange(len(epoch.ids)) if same else np.array([place.get(guid, -1) for guid in epoch.ids])
    if (rows < 0).any():
        row = int(np.flatnonzero(rows < 0)[0])
        raise FormatError(
            "the epoch has an example that epoch 0 lacks",
            where=f"{file} line {epoch.lines[row]}",
            found=shown(epoch.ids[row]),
            hint="epoch 0 or this one is partial",
        )
    if len(rows) != len(first.ids):
        absent = next(guid for guid in first.ids if guid not in set(epoch.ids))
        raise FormatError(
            f"epoch {number} is partial",
            where=file,
            found=f"{len(rows)} of {len(first.ids)} examples; {shown(absent)} is not there",
            hint="record the epoch again, or leave it out",
        )
    wrong = np.flatnonzero(epoch.gold != first.gold[rows])
    if len(wrong):
        row = int(wrong[0])
        raise FormatError(
            f"the gold label of {shown(epoch.ids[row])} differs between epochs",
            where=f"{file} line {epoch.lines[row]}",
            found=int(epoch.gold[row]),
            expected=f"{int(first.gold[rows[row]])}, as in epoch 0",
        )
    return rows


# --- writing -------------------------------------------------------------------------------------------------------


def _logits_of(dyn: TrainingDynamics, epoch: int) -> Array:
    """The logits (N, C) that are written for an epoch, which give its p_gold and correctness."""
    p, correct, gold = dyn.p_gold[epoch].astype(np.float64), dyn.correct[epoch], dyn.gold.astype(np.int64)
    rows = np.arange(len(dyn))
    if dyn.logits is not None:
        logits, close = dyn.logits[epoch], _AGREE
    else:
        logits, close = _made_up(p, correct, gold, dyn.meta.classes), _CLOSE
    against = _against(logits, gold, correct) | (np.abs(softmax(logits)[rows, gold] - p) > close)
    if against.any():
        row = int(np.flatnonzero(against)[0])
        raise FormatError(
            f"no logits give what was recorded of id {shown(dyn.ids[row])} at epoch {epoch}"
            if dyn.logits is None
            else f"the logits of id {shown(dyn.ids[row])} at epoch {epoch} contradict what was recorded",
            found=f"p_gold {p[row]:g} and {'right' if correct[row] else 'wrong'} with {dyn.meta.classes} classes",
            hint="save the dynamics as Parquet instead",
        )
    return logits


def _against(logits: Array, gold: Array, correct: Array) -> npt.NDArray[np.bool_]:
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


def _exists(target: Path, overwrite: bool) -> bool:
    """Whether there is a folder to replace; raises if it may not be replaced."""
    if target.exists() and not target.is_dir():
        raise SoiError("a file stands where a folder should be written", where=target, hint="give another name")
    inside = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    if inside and not overwrite:
        raise OutputExistsError("the folder is already there", where=target, hint="pass overwrite=True to replace it")
    other = [name for name in inside if not _NAME.fullmatch(name)]
    if other:
        raise OutputExistsError(
            "the folder holds other files too", where=target, found=other[0], hint="choose another folder"
        )
    shutil.rmtree(target.with_name(f"{PREFIX}new-{target.name}"), ignore_errors=True)
    return target.exists()
