"""A second stage on a person's own runs: continue each model on a subset, and say whether that helped.

Special about it: a gain over the first model is no reason to believe in the subset. So the same model is also continued
on as many random examples of the same labels, and on all examples for as many updates, and the gain over these is
given with its interval over seeds and test examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from soi_lib.analysis.datamap import REGIONS
from soi_lib.analysis.soi import SOI
from soi_lib.analysis.statistics import Effect, mean_effect
from soi_lib.errors import SelectionError, StoreError, nearest
from soi_lib.runs.config import Setting, Stages
from soi_lib.runs.own import RUNS, keep_model, own_profile, read_index
from soi_lib.runs.scheduler import run_all
from soi_lib.runs.second_stage import choose, left_to_learn
from soi_lib.runs.spec import StageSpec, plan, stages_of
from soi_lib.runs.store import RunStore, StoredRun
from soi_lib.training import launch

SIDES = {None: "second stage", "random": "random examples", "all": "all examples"}
"""What continues the first model, by the control of a stage."""


@dataclass(frozen=True)
class StageJob:
    """A second stage that is about to be trained on the runs of a folder.

    left: for every run and dataset the setting, seed, size of the subset, and the share of it that has something left
    to learn; `reason` says why a run cannot have this stage.
    """

    folder: Path
    subset: str
    stages: tuple[StageSpec, ...]
    left: pd.DataFrame

    @property
    def store(self) -> RunStore:
        """Where runs and stages are."""
        return RunStore(self.folder / RUNS)


def prepare_stage(
    folder: str | Path,
    subset: Sequence[str] = ("UNE", "FRGE_1", "FRGE_2"),
    *,
    ids: Sequence[str] = (),
    epochs: int = 4,
    learning_rate_factor: float = 0.1,
    device: str = "auto",
) -> StageJob:
    """Plan a second stage on every finished run of a folder that `soi train` made; trains nothing.

    Args:
        folder: the folder.
        subset: categories or map regions, united.
        ids: ids of examples instead of a subset.
        epochs: passes over the subset.
        learning_rate_factor: how the learning rate compares to that of the first training.
        device: auto, cpu, cuda or cuda:N; the kind that the runs were trained on.

    Raises:
        StoreError: no run is finished, or a run's weights were not kept.
        SelectionError: no run has enough examples in the subset.
    """
    folder = Path(folder)
    known = [soi.name for soi in SOI] + list(REGIONS)
    for part in subset if not ids else ():
        if part not in known:
            raise SelectionError(f"unknown category {part!r}", hint=nearest(part, known))
    read_index(folder)
    profile = own_profile(folder)
    store = RunStore(folder / RUNS)
    bases = [spec for spec in plan(profile, device=device) if store.get(spec.key) is not None]
    if not bases:
        hint = "give the soi train command again"
        raise StoreError("no run of this folder is finished", where=folder, hint=hint)
    for base in bases:
        if not store.weights_path(base.key).exists():
            raise StoreError(
                "the model of a run was not kept, so it cannot be continued",
                where=folder,
                found=base.name,
                hint="train into another folder without --no-model",
            )
    wanted = Stages(subsets=("FRGE",), epochs=epochs, learning_rate_factor=learning_rate_factor)
    name = "ids" if ids else "+".join(subset)
    stages = [
        replace(stage, subset=name, ids=tuple(sorted(ids)), keep_weights=stage.control is None)
        for base in bases
        for stage in stages_of(base, wanted)
    ]
    rows = [row for stage in stages if stage.control is None for row in _left(stage, store)]
    if not any(row["reason"] == "" for row in rows):
        raise SelectionError(
            "no run has enough examples in this subset",
            where=folder,
            found=rows[0]["reason"],
            expected="at least 8 examples and two labels",
            hint="unite more categories",
        )
    return StageJob(folder, name, tuple(stages), pd.DataFrame(rows))


def _left(stage: StageSpec, store: RunStore) -> list[dict[str, Any]]:
    base = store.get(stage.base.key)
    assert base is not None
    dynamics = {name: base.dynamics(name) for name in stage.setting}
    choice = choose(stage, dynamics)
    return [
        {
            "dataset": name,
            "setting": str(stage.setting),
            "seed": stage.base.seed,
            "examples": choice.n[name],
            "left to learn": left_to_learn(dynamics[name], choice.ids[name]) if choice.ids else float("nan"),
            "reason": choice.reason,
        }
        for name in stage.setting
    ]


def train_stage(job: StageJob, *, jobs: int | None = None, quiet: bool = False) -> pd.DataFrame:
    """Do what is missing of a second stage, keep its models, and return `gains`. Raises SoiError."""
    done = run_all(job.stages, job.store, jobs=jobs, quiet=quiet)
    if launch.is_main_process():
        for stage in job.stages:
            if stage.control is None:
                keep_model(job.folder, stage)
    return gains(job.folder, done)


def gains(folder: str | Path, stages: Sequence[StoredRun] | None = None) -> pd.DataFrame:
    """What second stages gained, from the stages of a folder (all of them by default).

    Returns:
        A row a subset, setting, dataset and set of test examples: accuracy of the first model, after the second stage
        and after both controls, means over seeds; gains over each with low and high ends of 95 % intervals; `seeds`,
        `n`, and `advice`. No rows where there are no stages.
    """
    store = RunStore(Path(folder) / RUNS)
    found = [run for run in (store if stages is None else stages) if run.stage and run.manifest["stage"]["tested"]]
    groups: dict[tuple[str, Setting], dict[str | None, dict[int, StoredRun]]] = {}
    for run in found:
        about = run.manifest["identity"]
        sides = groups.setdefault((about["stage"]["subset"], run.setting), {})
        sides.setdefault(about["stage"]["control"], {})[run.seed] = run
    rows = []
    for (subset, setting), sides in groups.items():
        seeds = sorted(set.intersection(*(set(sides.get(side, {})) for side in SIDES)))
        if not seeds:
            continue
        runs = {name: [sides[side][seed] for seed in seeds] for side, name in SIDES.items()}
        firsts = [store.get(run.manifest["identity"]["base"]) for run in runs["second stage"]]
        before = {"first model": [run for run in firsts if run is not None]}
        for dataset in setting:
            rows += _gain_rows(subset, setting, dataset, before | runs)
    return pd.DataFrame(rows)


def _gain_rows(subset: str, setting: Setting, dataset: str, runs: dict[str, list[StoredRun]]) -> list[dict[str, Any]]:
    frames = {name: [run.predictions(dataset) for run in held] for name, held in runs.items()}
    rows = []
    for split in [s for s in ("test", "ood") if (frames["first model"][0]["split"] == s).any()]:
        right = {
            name: np.stack([_right(frame[frame["split"] == split]) for frame in held]) for name, held in frames.items()
        }
        row: dict[str, Any] = {"subset": subset, "setting": str(setting), "dataset": dataset, "set": split}
        row |= {name: float(table.mean()) for name, table in right.items()}
        effects = {}
        for against in ("first model", "random examples", "all examples"):
            effect = effects[against] = mean_effect(right["second stage"].astype(float) - right[against])
            interval = effect.interval(0.95)
            row |= {f"over {against}": effect.value, f"low over {against}": interval.low}
            row |= {f"high over {against}": interval.high}
        row |= {"seeds": len(right["second stage"]), "n": right["second stage"].shape[1]}
        rows.append(row | {"advice": advice(effects["first model"], effects["random examples"])})
    return rows


def _right(frame: pd.DataFrame) -> np.ndarray:
    ordered = frame.sort_values("id")
    return (ordered["predicted"] == ordered["gold"]).to_numpy()


def advice(over_first: Effect, over_random: Effect) -> str:
    """What the gains say a person may do: one sentence."""
    first, random = over_first.interval(0.95), over_random.interval(0.95)
    if first.high < 0:
        return "It made the model worse: keep the first model."
    if first.low <= 0:
        return f"No gain can be told from chance with {over_first.n} test examples and {over_first.seeds} seed(s)."
    if random.low > 0:
        return "The subset itself helped: use the model of the second stage."
    return "It helped, but random examples may help as much: more training, not this subset, may be what was missing."
