"""Finished stages as claim C5 reads them, and their storage in two files.

A stage has a folder like any run, but there are hundreds of stages, and a verdict needs only their predictions. So a
recorded folder holds all stages as `stages.json` (identity, sizes, scores and origin of each) and `stages.parquet` (its
predictions, in the order of the ids): two megabytes instead of thousands of files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from soi_lib import files
from soi_lib.runs.config import Setting
from soi_lib.runs.store import StoredRun

ABOUT = "stages.json"
ANSWERS = "stages.parquet"
_KEPT = ("commit", "started", "seconds", "updates", "examples", "precision", "machine", "versions")


@dataclass(frozen=True)
class StageRun:
    """A finished stage: its identity, what was chosen and where it ran (about), scores, and predictions.

    `answers` holds the predicted classes (N,) int16 by dataset and split, sorted by example id, and `odds` the log odds
    of p(gold) (N,) float16. Both are empty if the stage was not tested because its subset was too small.
    """

    key: str
    identity: dict[str, Any]
    about: dict[str, Any]
    metrics: dict[str, Any]
    answers: dict[tuple[str, str], np.ndarray] = field(repr=False)
    odds: dict[tuple[str, str], np.ndarray] = field(repr=False)

    @property
    def comparison(self) -> str:
        """The name of the comparison: task, source or lingual."""
        return str(self.identity["comparison"])

    @property
    def setting(self) -> Setting:
        """The members that were trained together."""
        return Setting(self.identity["setting"])

    @property
    def seed(self) -> int:
        """The seed of the run that the stage started from."""
        return int(self.identity["seed"])

    @property
    def kind(self) -> tuple[str, str | None]:
        """The subset, and the control (None, "random" or "all")."""
        stage = self.identity["stage"]
        return stage["subset"], stage["control"]

    @property
    def tested(self) -> bool:
        """Whether the subset was large enough to train on."""
        return bool(self.about["stage"]["tested"])


def read_stage(run: StoredRun) -> StageRun:
    """Read a stage from its folder."""
    answers, odds = {}, {}
    if run.manifest["stage"]["tested"]:
        for member in run.setting:
            for split, part in run.predictions(member).groupby("split"):
                part = part.sort_values("id")
                answers[member, str(split)] = part["predicted"].to_numpy(np.int16)
                odds[member, str(split)] = log_odds(part["p_gold"].to_numpy())
    about = {"stage": run.manifest["stage"], **{k: run.manifest[k] for k in _KEPT if k in run.manifest}}
    return StageRun(run.key, run.manifest["identity"], about, run.metrics, answers, odds)


def log_odds(p: np.ndarray) -> np.ndarray:
    """Convert probabilities to float16 log odds, which keep ranks: float16 itself cannot tell .9996 from .9999."""
    p = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p / (1 - p)), dtype=np.float16)


def pack_stages(runs: Iterable[StoredRun], folder: Path) -> None:
    """Write all `runs` (finished stages) as two files into `folder`; equal runs give equal files."""
    stages = sorted((read_stage(run) for run in runs), key=lambda stage: stage.key)
    about = [{"key": s.key, "identity": s.identity, "about": s.about, "metrics": s.metrics} for s in stages]
    lines = ",\n".join(json.dumps(one, sort_keys=True, ensure_ascii=False) for one in about)
    files.write_text(folder / ABOUT, f"[\n{lines}\n]\n")
    rows = [
        {"key": s.key, "member": m, "split": split, "predicted": answers, "odds": s.odds[m, split].view(np.int16)}
        for s in stages
        for (m, split), answers in sorted(s.answers.items())
    ]
    with files.replacing(folder / ANSWERS) as tmp:
        frame = pd.DataFrame(rows, columns=["key", "member", "split", "predicted", "odds"])
        frame.to_parquet(tmp, compression="zstd", index=False)


def unpack_stages(folder: Path) -> list[StageRun]:
    """Return the stages of a verified recorded folder, sorted by key; an empty list if it has none."""
    if not (folder / ABOUT).exists():
        return []
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    found = {one["key"]: StageRun(**one, answers={}, odds={}) for one in about}
    for row in pd.read_parquet(folder / ANSWERS).itertuples():
        stage, place = found[str(row.key)], (str(row.member), str(row.split))
        stage.answers[place] = np.asarray(row.predicted, dtype=np.int16)
        stage.odds[place] = np.asarray(row.odds, dtype=np.int16).view(np.float16)
    return list(found.values())
