"""Recorded runs: the runs of a comparison from a folder that ships with the project or from a store.

Runs are read from a recorded folder (all of them, after its checksum list has been verified) or from a store (those in
the profile's plan; missing ones are trained first).

A second stage has a folder like any run, but there are hundreds, and a verdict needs only their predictions. So a
recorded folder holds all stages as `stages.json` (identity, sizes, scores and origin of each) and `stages.parquet` (its
predictions, in the order of the ids): two megabytes instead of thousands of files.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from soi_lib.errors import OutputExistsError, StoreError
from soi_lib.files import building, checksums, read_checksums, replacing, write_checksums, write_text
from soi_lib.runs import results
from soi_lib.runs.config import Profile, Setting, load_profile
from soi_lib.runs.store import RunStore, StoredRun, open_run

CHECKSUMS = "checksums.txt"
PROFILE_COPY = "profile.yaml"
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


@dataclass(frozen=True)
class Results(results.Results):
    """The runs of one comparison of one profile, and its second stages if they were requested."""

    stages: tuple[StageRun, ...] = ()


def open_results(
    comparison: str,
    *,
    profile: str | Path = "quick",
    runs: str | os.PathLike[str] = "",
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    precision: str | None = None,
    stages: bool = False,
) -> Results:
    """Return the runs of `comparison`: from a recorded folder, or from a store after training the missing ones.

    `runs` is a folder of recorded runs, or a store; empty means the store `runs`. `seeds` selects seeds; `device` and
    `precision` say how runs of a store are trained (see `soi_lib.training.device`); `stages` adds the profile's stages.
    Raises StoreError if a recorded folder is damaged or has no such runs.
    """
    folder = Path(runs or "runs")
    further: list[StageRun] = []
    if is_recorded(folder) or (runs and not folder.is_dir() and folder.parent.name == "recorded"):
        verify_recorded(folder)
        sizes = recorded_profile(folder)
        found = recorded_runs(folder)
        further = unpack_stages(folder) if stages else []
    else:
        from soi_lib.runs.scheduler import reproduce, reproduce_stages

        sizes, store = load_profile(profile), RunStore(folder)
        found = reproduce(sizes, store, only=[comparison], device=device, precision=precision)
        if stages:
            done = reproduce_stages(sizes, store, only=[comparison], device=device, precision=precision)
            further = [read_stage(run) for run in done]
    kept = [r for r in found if r.comparison == comparison and (seeds is None or r.seed in seeds)]
    if not kept:
        wanted = f"{comparison} with seeds {list(seeds or [])}"
        raise StoreError("no runs of this comparison", where=folder, found=f"{len(found)} others", expected=wanted)
    also = [s for s in further if s.comparison == comparison and (seeds is None or s.seed in seeds)]
    return Results(comparison, sizes, tuple(kept), tuple(also))


def recorded_profile(folder: Path) -> Profile:
    """Return the profile of a recorded folder, named after the folder: the current profile of that name may differ."""
    return load_profile(folder / PROFILE_COPY).model_copy(update={"name": folder.resolve().name})


def recorded_runs(folder: Path) -> list[StoredRun]:
    """Return the runs of a recorded folder, sorted by key."""
    return [open_run(path.parent) for path in sorted(folder.glob("*/manifest.json"))]


def by_comparison(profile: Profile, runs: Sequence[StoredRun]) -> dict[str, Results]:
    """Group runs into the results of each comparison of their profile that has any, in the profile's order."""
    parts = {name: tuple(run for run in runs if run.comparison == name) for name in profile.comparisons}
    return {str(name): Results(name, profile, part) for name, part in parts.items() if part}


def finished(
    profile: Profile, store: RunStore, *, only: Iterable[str] = (), device: str = "auto", precision: str | None = None
) -> list[StoredRun]:
    """Return the runs of `profile` in plan order. Raises StoreError with the number of runs missing from `store`."""
    from soi_lib.runs.spec import plan

    specs = plan(profile, only=only, device=device, precision=precision)
    found = [run for spec in specs if (run := store.get(spec.key)) is not None]
    if len(found) < len(specs):
        missing = next(spec for spec in specs if spec.key not in {run.key for run in found})
        what = (
            f"{len(specs) - len(found)} of {len(specs)} runs are not done, the first is {missing.name} ({missing.key})"
        )
        hint = f"run `python -m paper reproduce --profile {profile.name}`"
        raise StoreError(what, where=store.root, hint=hint)
    return found


def summary(profile: Profile, runs: Sequence[StoredRun], commit: str) -> dict[str, Any]:
    """Return the content of results.json: per run and member the six counts, test and OOD metrics, and the baselines.

    `training_seconds` adds up the times of all runs; `wall_seconds` is how long at least one of them was in progress.
    """
    rows = [
        {
            "key": run.key,
            "comparison": run.comparison,
            "setting": list(run.setting),
            "budget": run.setting.budget,
            "seed": run.seed,
            "members": {
                name: {k: m[k] for k in ("n", "soi", "majority", "bag_of_words")}
                | {k: {x: m[k][x] for x in ("n", "accuracy", "macro_f1")} for k in ("test", "ood") if k in m}
                for name, m in run.metrics.items()
            },
        }
        for run in runs
    ]
    return {
        "profile": profile.name,
        "wall_seconds": round(_wall_seconds(runs), 1),
        "training_seconds": round(sum(run.manifest["seconds"]["total"] for run in runs), 1),
        "commit": commit,
        "runs": rows,
    }


def _wall_seconds(runs: Sequence[StoredRun]) -> float:
    """Return how long at least one of `runs` was in progress: parallel runs count once, breaks do not count."""
    begun = [datetime.fromisoformat(run.manifest["started"]).timestamp() for run in runs]
    spans = sorted((begin, begin + run.manifest["seconds"]["total"]) for begin, run in zip(begun, runs, strict=True))
    wall, until = 0.0, -math.inf
    for begin, end in spans:
        wall += max(0.0, end - max(begin, until))
        until = max(end, until)
    return wall


def record(
    profile: Profile,
    runs: Sequence[StoredRun],
    folder: str | os.PathLike[str],
    *,
    stages: Sequence[StoredRun] = (),
    force: bool = False,
) -> Path:
    """Copy finished runs (dynamics, predictions, metrics, manifests: no texts) to a folder with a checksum list.

    Finished `stages` are packed into two files; the similarity of tasks that the folder holds already is kept.
    """
    target = Path(folder)
    if target.exists() and not force:
        raise OutputExistsError("recorded runs already exist", where=target, hint="pass --force to replace them")
    with building(target, replace=True) as out:
        for run in runs:
            shutil.copytree(run.folder, out / run.key)
        if stages:
            pack_stages(stages, out)
        for file in target.glob("similarity-*.json"):
            shutil.copyfile(file, out / file.name)
        text = yaml.safe_dump(json.loads(profile.model_dump_json()), sort_keys=False, allow_unicode=True)
        write_text(out / PROFILE_COPY, text)
        write_checksums(out, CHECKSUMS)
    return target


def reuse(folder: str | os.PathLike[str], store: RunStore) -> int:
    """Copy the verified runs of a recorded folder that `store` lacks into it; return how many were copied."""
    verify_recorded(folder)
    copied = 0
    for run in recorded_runs(Path(folder)):
        if store.get(run.key) is None:
            store.put_aside(run.key)
            with building(store.path(run.key)) as out:
                shutil.copytree(run.folder, out, dirs_exist_ok=True)
            copied += 1
    return copied


def verify_recorded(folder: str | os.PathLike[str]) -> int:
    """Check every file of a recorded folder against its list; return their number. Raises StoreError naming a file."""
    folder = Path(folder)
    restore = "restore it from the repository, or record the runs again"
    if not (folder / CHECKSUMS).is_file():
        expected = f"{CHECKSUMS} beside the runs"
        raise StoreError("there are no recorded runs here", where=folder, expected=expected, hint=restore)
    try:
        listed = read_checksums(folder / CHECKSUMS)
    except (OSError, ValueError) as error:
        raise StoreError("the list cannot be read", where=folder / CHECKSUMS, found=error, hint=restore) from error
    there = checksums(folder)
    del there[CHECKSUMS]
    for name in sorted(listed | there):
        if listed.get(name) != there.get(name):
            found = (
                "no file" if name not in there else "another sha256" if name in listed else "a file that is not listed"
            )
            hint = f"restore the file or {CHECKSUMS} from the repository, or remove a file that is not listed"
            raise StoreError(f"the recorded runs differ from {CHECKSUMS}", where=folder / name, found=found, hint=hint)
    return len(listed)


def is_recorded(folder: Path) -> bool:
    """Return whether `folder` was written by `record`, even if it is damaged; a store has neither of these files."""
    return (folder / CHECKSUMS).exists() or (folder / PROFILE_COPY).exists()


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
    write_text(folder / ABOUT, f"[\n{lines}\n]\n")
    rows = [
        {"key": s.key, "member": m, "split": split, "predicted": answers, "odds": s.odds[m, split].view(np.int16)}
        for s in stages
        for (m, split), answers in sorted(s.answers.items())
    ]
    with replacing(folder / ANSWERS) as tmp:
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
