"""The `training_dynamics/` folder of allenai/cartography: read it, write it.

    dyn = read_dynamics("model/training_dynamics")
    write_dynamics(dyn, "out/training_dynamics")

A file an epoch, `dynamics_epoch_0.jsonl` and so on, with a line an example: `guid`, `logits_epoch_N`, `gold`.

An error names the file and the line. What we write has two more keys, which other readers pass over: `p_gold` and
`correct`, so that dynamics come back with the same bits whichever softmax they were recorded with. Where no logits were
recorded, the ones written are made up from those two and the line says so (`logits_made_up`); see `write_dynamics`.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from soi_lib.dynamics import Meta, TrainingDynamics
from soi_lib.errors import FormatError, OutputExistsError, SoiError
from soi_lib.files import building
from soi_lib.integrations.arrays import Table, from_arrays, shown

Array = npt.NDArray[Any]

_NAME = re.compile(r"dynamics_epoch_(0|[1-9]\d*)\.jsonl")
_AGREE = 1e-5  # how far a written p_gold may be from the softmax of its logits: single precision
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
    memory. Raises FormatError, RangeError or DuplicateIdError for a missing epoch, an epoch that lacks examples or has
    others, a broken line, a key that is missing, logits that are not numbers or of another width, a guid that appears
    twice, a gold label that is not one of the classes or differs between epochs.
    """
    root = Path(folder)
    if (root / "training_dynamics").is_dir():
        root = root / "training_dynamics"
    files = _files(root)
    epochs = [_epoch(file, n) for n, file in enumerate(tqdm(files, desc="reading epochs", delay=2, leave=False))]
    widths = {scores.shape[1] for _, scores in epochs}
    if len(widths) > 1:
        raise FormatError("the epochs have different numbers of classes", where=root, found=sorted(widths))
    frame = pd.concat([lines for lines, _ in epochs], ignore_index=True)
    table = Table(frame, root, lambda row: f"{files[frame['epoch'][row]]} line {frame['line'][row]}")
    ids, gold, place = table.examples("guid", "epoch", "gold")
    logits = np.concatenate([scores for _, scores in epochs])[place]
    keep = keep_logits and not frame["logits_made_up"].any()
    dyn = from_arrays(logits, gold, ids, kind="logits", keep_logits=keep, meta=meta, where=root)
    if frame["p_gold"].isna().all():  # another tool wrote it
        return dyn
    p, correct = table.number("p_gold")[place], table.truth("correct")[place]
    contradicted = np.abs(dyn.p_gold - p) > _AGREE
    contradicted |= [_contradicts(z, gold, right) for z, right in zip(logits, correct, strict=True)]
    if contradicted.any():
        raise FormatError(
            "p_gold or correct is not what the logits say",
            where=table.where(int(place[contradicted].min())),
            hint="remove both keys everywhere if the logits are right",
        )
    return replace(dyn, p_gold=p, correct=correct)


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
    """The files of all epochs in their order."""
    there = {path.name for path in root.glob("dynamics_epoch_*")}
    names = [f"dynamics_epoch_{epoch}.jsonl" for epoch in range(max(1, len(there)))]
    for name in names:
        if name not in there:
            raise FormatError(
                f"{name} is missing",
                where=root,
                found=f"{len(there)} files of epochs",
                hint="bring the file back, or renumber the files and their keys from 0 without a gap",
            )
    return [root / name for name in names]


def _epoch(file: Path, number: int) -> tuple[pd.DataFrame, Array]:
    """The lines of an epoch, a row each, and their logits (n, C)."""
    key = f"logits_epoch_{number}"
    rows: list[dict[str, Any]] = []
    for line, raw in enumerate(file.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
            ours = {"logits_made_up": row.get("logits_made_up", False)}
            ours |= {name: row.get(name) for name in ("p_gold", "correct")}
            rows.append({"epoch": number, "line": line, **{name: row[name] for name in ("guid", "gold", key)}, **ours})
        except (ValueError, KeyError, AttributeError) as error:  # bytes that are not UTF-8 as well
            raise FormatError(
                "the line is broken or lacks a key",
                where=f"{file} line {line}",
                found=f"{type(error).__name__} {error}",
                expected=f"a JSON object with guid, {key} and gold",
                hint="it may be cut short: record the epoch again",
            ) from error
    frame = pd.DataFrame(rows)
    scores = Table(frame, file, lambda row: f"{file} line {rows[row]['line']}").lists(key)
    return frame.drop(columns=key), scores


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
    """The lines of an epoch; a number is written so that it comes back to the last bit."""
    made_up = {"logits_made_up": True} if dyn.logits is None else {}
    columns = {
        "guid": dyn.ids,
        f"logits_epoch_{epoch}": logits,
        "gold": dyn.gold,
        "p_gold": dyn.p_gold[epoch],
        "correct": dyn.correct[epoch],
    }
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield json.dumps(dict(zip(columns, values, strict=True)) | made_up) + "\n"


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
