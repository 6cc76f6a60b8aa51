"""Recorded runs: the runs of a comparison from a folder that ships with the project or from a store.

Runs are read from a recorded folder (all of them, after its checksum list has been verified) or from a store (those in
the profile's plan; missing ones are trained first).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from paper.stage_runs import StageRun, pack_stages, read_stage, unpack_stages
from soi_lib.errors import OutputExistsError, StoreError
from soi_lib.files import building, read_checksums, sha256_file, write_checksums, write_text
from soi_lib.runs import results
from soi_lib.runs.config import Profile, load_profile
from soi_lib.runs.store import RunStore, StoredRun, open_run

CHECKSUMS = "checksums.txt"
PROFILE_COPY = "profile.yaml"


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
        raise StoreError(
            "no runs of this comparison",
            where=folder,
            found=f"{len(found)} others",
            expected=f"{comparison} with seeds {list(seeds or [])}",
        )
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
    profile: Profile,
    store: RunStore,
    *,
    only: Iterable[str] = (),
    device: str = "auto",
    precision: str | None = None,
) -> list[StoredRun]:
    """Return the runs of `profile` in plan order. Raises StoreError with the number of runs missing from `store`."""
    from soi_lib.runs.spec import plan

    specs = plan(profile, only=only, device=device, precision=precision)
    found = [run for spec in specs if (run := store.get(spec.key)) is not None]
    if len(found) < len(specs):
        missing = next(spec for spec in specs if spec.key not in {run.key for run in found})
        raise StoreError(
            f"{len(specs) - len(found)} of {len(specs)} runs are not done, the first is {missing.name} ({missing.key})",
            where=store.root,
            hint=f"run `python -m paper reproduce --profile {profile.name}`",
        )
    return found


def summary(profile: Profile, runs: Sequence[StoredRun], commit: str) -> dict[str, Any]:
    """Return the content of results.json: per run and member the six counts, test and OOD metrics, and the baselines.

    `training_seconds` adds up the times of all runs; `wall_seconds` is how long at least one of them was in progress.
    """
    rows = []
    for run in runs:
        members = {}
        for name, m in run.metrics.items():
            members[name] = {
                "n": m["n"],
                "soi": m["soi"],
                **{k: {x: m[k][x] for x in ("n", "accuracy", "macro_f1")} for k in ("test", "ood") if k in m},
                "majority": m["majority"],
                "bag_of_words": m["bag_of_words"],
            }
        rows.append(
            {
                "key": run.key,
                "comparison": run.comparison,
                "setting": list(run.setting),
                "budget": run.setting.budget,
                "seed": run.seed,
                "members": members,
            }
        )
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
        raise StoreError(
            "there are no recorded runs here", where=folder, expected=f"{CHECKSUMS} beside the runs", hint=restore
        )
    try:
        listed = read_checksums(folder / CHECKSUMS)
    except (OSError, ValueError) as error:
        raise StoreError("the list cannot be read", where=folder / CHECKSUMS, found=error, hint=restore) from error
    for name, digest in listed.items():
        path = folder / name
        if not path.is_file():
            raise StoreError(f"a file listed in {CHECKSUMS} is missing", where=path, hint=restore)
        if sha256_file(path) != digest:
            raise StoreError(
                "a recorded file has changed",
                where=path,
                found="another sha256",
                expected=f"{digest[:12]}, as in {CHECKSUMS}",
                hint=restore,
            )
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {CHECKSUMS}
    if unknown := sorted(there - set(listed)):
        raise StoreError(
            f"a file is not listed in {CHECKSUMS}",
            where=folder / unknown[0],
            found=f"{len(unknown)} such files",
            hint=f"remove it, or restore {CHECKSUMS} from the repository",
        )
    return len(listed)


def is_recorded(folder: Path) -> bool:
    """Return whether `folder` was written by `record`, even if it is damaged; a store has neither of these files."""
    return (folder / CHECKSUMS).exists() or (folder / PROFILE_COPY).exists()
