"""A second stage on the user's own runs: continue each model on a subset, and report whether that helped.

A gain over the first model alone is no evidence for the subset. So the same model is also continued on as many random
examples of the same labels, and on all examples for as many updates. Gains over these controls are reported with their
intervals over seeds and test examples.
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
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import SelectionError, StoreError, nearest
from soi_lib.runs.config import Setting, Stages
from soi_lib.runs.own_folder import RUNS, model_folder, own_profile, read_index, run_and_keep, stage_name, time_words
from soi_lib.runs.results import Results
from soi_lib.runs.second_stage import CONFIDENT, SMALLEST, choose, left_to_learn
from soi_lib.runs.spec import RunSpec, StageSpec, plan, stages_of
from soi_lib.runs.store import RunStore, StoredRun

_SIDES = {None: "second stage", "random": "random examples", "all": "all examples"}
"""Names of the trainings that continue the first model, by the control of a stage."""
AGAINST = ("first model", "random examples", "all examples")
"""What a second stage is compared with."""


@dataclass(frozen=True)
class StageJob:
    """A second stage that is about to be trained on the runs of a folder.

    name: the subset, and the recipe if it is not the default.
    left: one row per run and dataset: the setting, seed, size of the subset, number of its examples used after its
    classes are balanced, and the share of these with something left to learn; `reason` says why a run cannot have this
    stage. unknown: ids that no training example has.
    """

    folder: Path
    name: str
    stages: tuple[StageSpec, ...]
    left: pd.DataFrame
    unknown: tuple[str, ...]

    @property
    def store(self) -> RunStore:
        """The store of runs and stages."""
        return RunStore(self.folder / RUNS)

    @property
    def models(self) -> list[str]:
        """The existing folders of continued models, relative to `folder`."""
        names = [model_folder(s.setting, s.base.seed, self.name) for s in self.stages if s.control is None]
        return [name for name in names if (self.folder / name).is_dir()]  # runs with too small a subset have none

    @property
    def recipe(self) -> str:
        """Name, epochs and learning rate, as text."""
        training = self.stages[0].training
        return f"{self.name}: {training.epochs} epochs, learning rate {training.learning_rate:g}"


def cost_words(job: StageJob) -> str:
    """Return about what training a second stage takes, estimated from the runs that it continues."""
    minutes = size = 0.0
    todo = [stage for stage in job.stages if stage.found(job.store) is None]
    if not todo:
        return f"all {len(job.stages)} trainings, including controls, are done already"
    for stage in todo:
        base = job.store.get(stage.base.key)
        assert base is not None
        same = (job.left["setting"] == str(stage.setting)) & (job.left["seed"] == base.seed)
        presented = job.left["examples"][same].sum() * stage.training.epochs
        share = presented / (base.manifest["examples"] * stage.base.training.epochs)
        minutes += base.manifest["seconds"]["total"] * share / 60
        size += 2 * job.store.weights_path(base.key).stat().st_size if stage.control is None else 0
    time, disk = time_words(minutes), f"disk: about {size / 1e6:.0f} MB"
    return f"{len(todo)} trainings, including controls: {time} on one core; {disk}"


def prepare_stage(
    folder: str | Path,
    subset: Sequence[str] = ("UNE", "FRGE_1", "FRGE_2"),
    *,
    ids: Sequence[str] = (),
    epochs: int = 4,
    learning_rate_factor: float = 0.1,
    device: str = "auto",
) -> StageJob:
    """Plan a second stage on every finished run of a folder made by `soi train`; nothing is trained.

    Args:
        subset: the categories or map regions whose union is the subset.
        ids: ids of examples, instead of `subset`.
        epochs: passes over the subset.
        learning_rate_factor: the learning rate as a multiple of that of the first training.
        device: auto, cpu, cuda or cuda:N; of the same kind as the runs were trained on.

    Raises:
        StoreError: no run is finished, or the weights of a run were not kept.
        SelectionError: no run has enough examples in the subset.
    """
    folder = Path(folder)
    known = [*SOI.__members__, *REGIONS]
    for part in subset if not ids else ():
        if part not in known:
            raise SelectionError(f"unknown category {part!r}", hint=nearest(part, known))
    # neither the order in which categories or ids are given nor repetitions matter
    united = "ids" if ids else "+".join(name for name in known if name in subset)
    ids = tuple(sorted(set(ids)))
    bases = _bases(folder, device)
    trained = {str(i) for _, held in bases for dynamics in held.values() for i in dynamics.ids} if ids else set()
    unknown = tuple(i for i in ids if i not in trained)
    if ids and len(unknown) == len(ids):
        what = "none of these is the id of a training example"
        expected = "one id per line, as in a .txt file from soi select"
        raise SelectionError(what, where=folder, found=unknown[0], expected=expected)
    wanted = Stages(subsets=("FRGE",), epochs=epochs, learning_rate_factor=learning_rate_factor)
    possible: list[StageSpec] = []
    rows: list[dict[str, Any]] = []
    for base, dynamics in bases:
        stages = [replace(s, subset=united, ids=ids, keep_weights=not s.control) for s in stages_of(base, wanted)]
        choice = choose(stages[0], dynamics)
        possible += [] if choice.reason else stages
        rows += [
            {
                "dataset": name,
                "setting": str(base.setting),
                "seed": base.seed,
                "in the subset": choice.there[name],
                "examples": choice.n[name],
                "left to learn": left_to_learn(dynamics[name], choice.ids[name]) if choice.ids else float("nan"),
                "reason": choice.reason,
            }
            for name in base.setting
        ]
    if not possible:
        raise _too_small(folder, stages[0], *bases[0], rows[0]["reason"])
    name = stage_name(possible[0].identity()["stage"], possible[0].base.training.learning_rate)
    return StageJob(folder, name, tuple(possible), pd.DataFrame(rows), unknown)


def _too_small(
    folder: Path, stage: StageSpec, base: RunSpec, dynamics: dict[str, TrainingDynamics], reason: str
) -> SelectionError:
    """Return the error for a subset that is too small in every run, with the regions that are not."""
    regions = {name: choose(replace(stage, base=base, subset=name, ids=()), dynamics) for name in REGIONS}
    enough = [f"--subset {name} ({sum(c.n.values())} examples)" for name, c in regions.items() if not c.reason]
    what, expected = "no run has enough examples in this subset", f"at least {SMALLEST} examples and two labels"
    hint = f"combine more categories, or use {' or '.join(enough)}" if enough else "train on more rows"
    return SelectionError(what, where=folder, found=reason, expected=expected, hint=hint)


def _bases(folder: Path, device: str) -> list[tuple[RunSpec, dict[str, TrainingDynamics]]]:
    """Return the finished runs of a folder with their dynamics. Raises StoreError if there are none."""
    read_index(folder)
    store = RunStore(folder / RUNS)
    bases = []
    for spec in plan(own_profile(folder), device=device):
        if (run := store.get(spec.key)) is None:
            continue
        if not store.weights_path(spec.key).exists():
            what, hint = "the model of a run was not kept", "train into another folder without --no-model"
            raise StoreError(f"{what}, so it cannot be continued", where=folder, found=spec.name, hint=hint)
        bases.append((spec, {name: run.dynamics(name) for name in run.setting}))
    if not bases:
        raise StoreError("no run of this folder is finished", where=folder, hint="run the soi train command again")
    return bases


def train_stage(job: StageJob, *, jobs: int | None = None, quiet: bool = False) -> pd.DataFrame:
    """Train the missing parts of a second stage, keep its models, and return `gains`. Raises SoiError."""
    return gains(job.folder, run_and_keep(job.folder, job.stages, jobs=jobs, quiet=quiet))


def gains(folder: str | Path, stages: Sequence[StoredRun] | None = None) -> pd.DataFrame:
    """Return the gains of second stages in a folder (by default, of all stages that continue its runs).

    Returns:
        One row per stage (by name), setting, dataset and set of test examples: the number of `examples` in the subset,
        the share of them with something left to learn before and after, the accuracies of the first model, the second
        stage and both controls (means over seeds); gains over each with the low and high ends of 95 % intervals;
        `seeds`, `n`, and `advice`. No rows if there are no stages.
    """
    folder = Path(folder)
    store, profile = RunStore(folder / RUNS), own_profile(folder)
    bases = {row["key"] for row in read_index(folder)["runs"]}
    groups: dict[tuple[str, Setting], dict[str, dict[int, StoredRun]]] = {}
    for run in store if stages is None else stages:
        about = run.manifest["identity"]
        base = store.get(about["base"]) if run.stage and about["base"] in bases else None
        if base is None or not run.manifest["stage"]["tested"]:
            continue
        name = stage_name(about["stage"], base.manifest["identity"]["training"]["learning_rate"])
        sides = groups.setdefault((name, run.setting), {})
        sides.setdefault("first model", {})[run.seed] = base
        sides.setdefault(_SIDES[about["stage"]["control"]], {})[run.seed] = run
    rows = []
    for (name, setting), sides in groups.items():
        seeds = set.intersection(*(set(sides.get(side, {})) for side in _SIDES.values()))
        parts = {side: tuple(sides[side][seed] for seed in sorted(seeds)) for side in ("first model", *_SIDES.values())}
        results = {side: Results("user", profile, part) for side, part in parts.items()}
        rows += [row for dataset in setting if seeds for row in _gain_rows(name, setting, dataset, results)]
    return pd.DataFrame(rows)


def _gain_rows(name: str, setting: Setting, dataset: str, sides: dict[str, Results]) -> list[dict[str, Any]]:
    stages = [run.manifest["stage"] for run in sides["second stage"].runs]
    before, after = np.mean([stage["left"][dataset] for stage in stages], axis=0).tolist()
    examples, rows = float(np.mean([stage["n"][dataset] for stage in stages])), []
    for split in sides["first model"].splits(dataset):
        answers = {side: results.evaluated(dataset, setting, split) for side, results in sides.items()}
        right = {side: (found.predicted == found.gold).astype(float) for side, found in answers.items()}
        row: dict[str, Any] = {"subset": name, "setting": str(setting), "dataset": dataset, "set": split}
        row |= {"examples": examples, "left before": before, "left after": after}
        row |= {side: float(table.mean()) for side, table in right.items()}
        effects = {against: mean_effect(right["second stage"] - right[against]) for against in AGAINST}
        for against, effect in effects.items():
            interval = effect.interval()
            row |= {f"over {against}": effect.value, f"low over {against}": interval.low}
            row |= {f"high over {against}": interval.high}
        row |= {"seeds": len(stages), "n": right["second stage"].shape[1], "advice": advice(*effects.values())}
        rows.append(row)
    return rows


# --- texts and tables for people, the same in the command and on the page --------------------------------------------


def advice(over_first: Effect, over_random: Effect, over_all: Effect) -> str:
    """Return one sentence of advice that follows from the gains."""
    first, *others = (effect.interval() for effect in (over_first, over_random, over_all))
    seeds = f"{over_first.seeds} seed{'' if over_first.seeds == 1 else 's'}"
    if first.high < 0:
        return "It made the model worse: keep the first model."
    if first.low <= 0:
        known = f"{over_first.n} test examples and {seeds}"
        return f"No gain is distinguishable from chance with {known}: keep the first model, or add test rows or seeds."
    if min(other.low for other in others) <= 0:
        return "It helped, but other examples may help just as much: train longer, and do not credit the subset."
    if over_first.seeds < 3:
        return f"The subset itself helped with {seeds}: repeat it with three or more before you rely on it."
    return "The subset itself helped: use the model of the second stage."


def left_words(share: float) -> str:
    """Return one sentence on the share of a subset's examples with something left to learn."""
    few = "; training on them can change little" if share < 0.2 else ""
    return f"{share:.0%} of these examples are misclassified, or correct with a probability below {CONFIDENT}{few}"


def cut_words(left: pd.DataFrame) -> str:
    """Return one sentence on how many examples of a subset are used if balancing leaves some out, otherwise ""."""
    usable = left[left["reason"] == ""]
    there, used = usable["in the subset"].sum(), usable["examples"].sum()
    cut = f"{used} of {there} examples are used: more frequent labels are cut back to balance the subset"
    return "" if there == used else cut


def case(row: pd.Series) -> str:
    """Return what a row of `gains` is about: `reviews alone, test`."""
    return f"{row['dataset']} {'alone' if row['dataset'] == row['setting'] else 'together'}, {row['set']}"


def gain_table(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Return the rows of `gains` as a table for people: accuracies, and gains with their intervals."""

    def gain(row: pd.Series, against: str) -> str:
        low, high = row[f"low over {against}"], row[f"high over {against}"]
        return f"{row[f'over {against}']:+.3f} [{low:+.3f}, {high:+.3f}]"

    return [
        {
            "second stage": row["subset"],
            "tested on": case(row),
            "first": f"{row['first model']:.3f}",
            "then": f"{row['second stage']:.3f}",
            **{f"over {against}": gain(row, against) for against in AGAINST},
        }
        for _, row in frame.iterrows()
    ]
