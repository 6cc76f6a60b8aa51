"""Read and write the `training_dynamics/` folder of allenai/cartography.

    dyn = read_dynamics("model/training_dynamics")
    write_dynamics(dyn, "out/training_dynamics")

One file per epoch, `dynamics_epoch_0.jsonl` and so on, with one line per example: `guid`, `logits_epoch_N`, `gold`.

Errors name the file and the line. Files written here have two more keys, which other readers ignore: `p_gold` and
`correct`, so that dynamics are restored bit for bit whichever softmax they were recorded with. If no logits were
recorded, made-up ones are derived from those two and marked as such (`logits_made_up`); see `write_dynamics`.
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
_AGREE = 1e-5  # how far p_gold may be from the softmax of its logits: single precision
_CLOSE = 1e-6  # the same for made-up logits
_NUDGE = 1e-6  # difference between logits that must not be equal; changes p by less than this
_FLOOR = 1e-30  # the smallest probability for made-up logits: below it a float32 has few significant bits


def read_dynamics(
    folder: str | os.PathLike[str],
    *,
    keep_logits: bool = True,
    meta: Meta | Mapping[str, Any] | None = None,
) -> TrainingDynamics:
    """Read dynamics from a folder of `dynamics_epoch_N.jsonl` files (or the folder that contains `training_dynamics`).

    Ids are the guids, integers or text, in the order of epoch 0; later epochs may have another order. The prediction is
    the class with the highest logit, the first one if there is a tie. Only one epoch's text is in memory at a time.
    Raises FormatError, RangeError or DuplicateIdError for a missing epoch, an epoch with missing or additional
    examples, a broken line, a missing key, logits that are not numbers or differ in width, a guid that appears twice,
    or a gold label that is not one of the classes or differs between epochs.
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
    if frame["p_gold"].isna().all():  # written by another tool
        return dyn
    p, correct = table.number("p_gold")[place], table.truth("correct")[place]
    contradicted = np.abs(dyn.p_gold - p) > _AGREE
    contradicted |= [_contradicts(z, gold, right) for z, right in zip(logits, correct, strict=True)]
    if contradicted.any():
        what = "p_gold or correct contradicts the logits"
        hint = "if the logits are right, remove both keys from all lines"
        raise FormatError(what, where=table.where(int(place[contradicted].min())), hint=hint)
    return replace(dyn, p_gold=p, correct=correct)


def write_dynamics(dyn: TrainingDynamics, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write `dyn` as a `training_dynamics` folder, atomically; return the folder.

    Recorded logits are written exactly. If there are none, logits are made up that give the same p_gold (to 1e-6) and
    the same correctness: log p for the gold class; if the prediction was right, the other classes share the rest
    equally; if it was wrong, the first other class gets nearly all of the rest. With two classes these are the model's
    own logits up to a constant; with more, only p_gold and correctness are meaningful. Everything that cartography
    computes (confidence, variability, correctness, forgetfulness, loss) depends only on these two. Raises FormatError
    if p_gold and correctness contradict each other, so that no logits give both, and OutputExistsError if the folder
    exists, unless `overwrite`, which replaces only a folder that contains nothing but such files.
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
    """Return the files of all epochs in order."""
    there = {path.name for path in root.glob("dynamics_epoch_*")}
    names = [f"dynamics_epoch_{epoch}.jsonl" for epoch in range(max(1, len(there)))]
    if missing := [name for name in names if name not in there]:
        hint = "restore the file, or renumber the files and their keys from 0 without gaps"
        raise FormatError(f"{missing[0]} is missing", where=root, found=f"{len(there)} epoch files", hint=hint)
    return [root / name for name in names]


def _epoch(file: Path, number: int) -> tuple[pd.DataFrame, Array]:
    """Return the lines of an epoch, one row each, and their logits (n, C)."""
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
        except (ValueError, KeyError, AttributeError) as error:  # also for bytes that are not UTF-8
            what, found = "the line is broken or lacks a key", f"{type(error).__name__} {error}"
            where, expected = f"{file} line {line}", f"a JSON object with guid, {key} and gold"
            hint = "the file may be truncated: record the epoch again"
            raise FormatError(what, where=where, found=found, expected=expected, hint=hint) from error
    frame = pd.DataFrame(rows)
    scores = Table(frame, file, lambda row: f"{file} line {rows[row]['line']}").lists(key)
    return frame.drop(columns=key), scores


# --- writing -------------------------------------------------------------------------------------------------------


def _logits_of(dyn: TrainingDynamics, epoch: int) -> Array:
    """Return the logits (N, C) to write for an epoch, which give its p_gold and correctness."""
    p, correct, gold = dyn.p_gold[epoch].astype(np.float64), dyn.correct[epoch], dyn.gold.astype(np.int64)
    if dyn.logits is not None:
        logits, close, what = dyn.logits[epoch].astype(np.float64), _AGREE, "the logits contradict p_gold or correct"
    else:
        logits, close = _made_up(p, correct, gold, dyn.meta.classes), _CLOSE
        what = "no logits give what was recorded"
    chance = softmax(logits, axis=1)[np.arange(len(dyn)), gold]
    contradicted = _contradicts(logits, gold, correct) | (np.abs(chance - p) > close)
    if contradicted.any():
        row = int(contradicted.argmax())
        raise FormatError(
            what,
            where=f"id {shown(dyn.ids[row])} at epoch {epoch}",
            found=f"p_gold {p[row]:g} and {'right' if correct[row] else 'wrong'} with {dyn.meta.classes} classes",
            hint="save the dynamics as Parquet instead",
        )
    return logits


def _contradicts(logits: Array, gold: Array, correct: Array) -> npt.NDArray[np.bool_]:
    """Return where `correct` (N,) contradicts the logits (N, C); if the highest are tied, either value is accepted."""
    tied = logits[np.arange(len(gold)), gold] == logits.max(1)
    alone = (logits == logits.max(1, keepdims=True)).sum(1) == 1
    return np.asarray((correct & ~tied) | (~correct & tied & alone))


def _made_up(p: Array, correct: Array, gold: Array, classes: int) -> npt.NDArray[np.float64]:
    """Return logits (N, C) with the given p and correctness, as far as possible; see `write_dynamics`."""
    own = np.log(np.maximum(p, _FLOOR))
    # right: the others share the rest, and stay below the gold class even after rounding
    share = np.minimum(np.log(np.maximum((1 - p) / (classes - 1), _FLOOR)), own - _NUDGE)
    logits = np.repeat(share[:, None], classes, axis=1)
    # wrong: one other class is above the gold class, the rest get almost nothing
    wrong = np.flatnonzero(~correct)
    logits[wrong] = np.log(_FLOOR)
    rival = np.where(gold[wrong] == 0, 1, 0)
    logits[wrong, rival] = np.maximum(np.log(np.maximum(1 - p[wrong], _FLOOR)), own[wrong] + _NUDGE)
    logits[np.arange(len(p)), gold] = own
    return np.asarray(logits)


def _lines(dyn: TrainingDynamics, epoch: int, logits: Array) -> Iterator[str]:
    """Yield the lines of an epoch; numbers are written so that they are read back exactly."""
    made_up = {"logits_made_up": True} if dyn.logits is None else {}
    columns = {"guid": dyn.ids, f"logits_epoch_{epoch}": logits, "gold": dyn.gold}
    columns |= {"p_gold": dyn.p_gold[epoch], "correct": dyn.correct[epoch]}
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield json.dumps(dict(zip(columns, values, strict=True)) | made_up) + "\n"


def _refuse_others(target: Path, overwrite: bool) -> None:
    """Raise unless `target` does not exist or is a folder of such files that may be replaced."""
    if target.exists() and not target.is_dir():
        raise SoiError("this is a file, not a folder", where=target, hint="choose another name")
    inside = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    if inside and not overwrite:
        raise OutputExistsError("the folder already exists", where=target, hint="pass overwrite=True to replace it")
    other = [name for name in inside if not _NAME.fullmatch(name)]
    if other:
        what, hint = "the folder contains other files too", "choose another folder"
        raise OutputExistsError(what, where=target, found=other[0], hint=hint)
