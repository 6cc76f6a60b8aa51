"""Finished runs of known truth, written as real ones are: dynamics files, predictions, metrics, sealed manifests."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic import learn

from paper.recorded import Results
from paper.stage_runs import read_stage
from soi_lib import files
from soi_lib.analysis.soi import categorize, soi_counts
from soi_lib.dynamics import TrainingDynamics
from soi_lib.runs.config import Profile
from soi_lib.runs.store import RunStore, StoredRun

MEMBERS = {
    "task": ("entailment", "paraphrase", "sentiment"),
    "source": ("tweets", "amazon", "movie"),
    "lingual": ("en", "fr", "fa"),
}
Setting = tuple[str, ...]


def number(*words: object) -> int:
    """A seed from words, the same in every process."""
    return zlib.crc32(repr(words).encode())


@dataclass
class World:
    """What is true of the runs.

    `gain(member, setting, split)` is how much more accurate the member is in a multi setting than alone; `pace(member,
    setting)` how fast examples are learned; members in `shuffled` have histories that belong to no example, so that
    nothing repeats between seeds but the shares; `noise` is how much runs differ.
    """

    gain: Callable[[str, Setting, str], float] = lambda member, setting, split: 0.0
    pace: Callable[[str, Setting], float] = lambda member, setting: 1.5
    shuffled: Iterable[str] = ()
    noise: float = 0.25
    n: int = 300
    evaluate: int = 500
    epochs: int = 8
    record: str = "train"
    stages: dict[tuple[str, str], float] = field(default_factory=dict)
    """(subset, side) -> gain over the run; sides are "subset", "random" and "all"."""


def dynamics(world: World, comparison: str, member: str, setting: Setting, seed: int) -> TrainingDynamics:
    """The dynamics of one member of one run; the examples and how hard they are depend on the member only."""
    dyn = learn(
        world.n,
        world.epochs,
        seed=number(setting, seed, world.record),
        gain=world.pace(member, setting),
        corpus=number(member),
        member=member,
        setting=setting,
    )
    order = np.arange(len(dyn))
    if member in world.shuffled:
        order = np.random.default_rng(number(member, setting, seed)).permutation(len(dyn))
    meta = replace(dyn.meta, comparison=comparison, seed=seed)
    return TrainingDynamics(dyn.ids, dyn.gold, dyn.p_gold[:, order], dyn.correct[:, order], meta)


def predictions(world: World, member: str, split: str, size: float, *run: object) -> pd.DataFrame:
    """What a run answered: `size` is its gain. Sources share their OOD examples, as the real ones do."""
    corpus = "nyt" if split == "ood" and member in MEMBERS["source"] else member
    examples = np.random.default_rng(number(corpus, split))
    gold = examples.integers(0, 2, world.evaluate)
    rank = examples.permutation(world.evaluate) / world.evaluate
    chance = np.random.default_rng(number(member, split, *run)).normal(0, world.noise * 0.1, world.evaluate)
    right = rank + chance < 0.75 + size
    return pd.DataFrame(
        {
            "split": split,
            "id": [f"{corpus}/{split}/{i:04d}" for i in range(world.evaluate)],
            "gold": gold.astype(np.int16),
            "predicted": np.where(right, gold, 1 - gold).astype(np.int16),
            "p_gold": np.where(right, 0.9, 0.2).astype(np.float32),
        }
    )


def profile(comparisons: dict[str, dict[str, Any]], seeds: Sequence[int], world: World) -> Profile:
    return Profile(
        name="made",
        seeds=tuple(seeds),
        data={"train": world.n, "evaluate": world.evaluate},
        training={"epochs": world.epochs, "record": world.record},
        comparisons={k: {"encoder": "minilm", **v} for k, v in comparisons.items()},
    )


def make(
    root: Path,
    world: World | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    comparisons: Iterable[str] = ("source",),
    members: Sequence[str] | None = None,
) -> dict[str, Results]:
    """Results by comparison, from runs on disk. Tasks have pairs as well; `members` replaces those of a comparison."""
    world = world or World()
    plans: dict[str, dict[str, Any]] = {}
    for name in comparisons:
        settings = ("single", "pairs", "all") if name == "task" else ("single", "all")
        plans[name] = {"members": tuple(members or MEMBERS[name]), "settings": settings}
    sizes = profile(plans, seeds, world)
    found = {}
    store = RunStore(root)
    for name, part in sizes.comparisons.items():
        runs = [write(store, world, name, setting, seed) for setting in part.member_sets() for seed in seeds]
        stages = [stage for run in runs for stage in write_stages(store, world, run)]
        found[str(name)] = Results(name, sizes, tuple(runs), tuple(read_stage(stage) for stage in stages))
    return found


def write(
    store: RunStore, world: World, comparison: str, setting: Setting, seed: int, *, key: str = "", started: str = ""
) -> StoredRun:
    """One finished run in the store, under `key` where it must be that of a plan."""
    metrics: dict[str, Any] = {}

    def fill(folder: Path) -> None:
        (folder / "predictions").mkdir()
        (folder / "dynamics").mkdir()
        for member in setting:
            dyn = dynamics(world, comparison, member, setting, seed)
            dyn.save(folder / "dynamics" / f"{member}.parquet")
            size = {s: world.gain(member, setting, s) if len(setting) > 1 else 0.0 for s in ("test", "ood")}
            frames = [predictions(world, member, split, value, setting, seed) for split, value in size.items()]
            answers(folder, member, frames, metrics.setdefault(member, {}))
            metrics[member] |= {"n": len(dyn), "soi": soi_counts(categorize(dyn))}
        files.write_json(folder / "metrics.json", metrics)

    identity = {"comparison": comparison, "setting": list(setting), "seed": seed, "training": {"record": world.record}}
    key = key or f"{number(comparison, setting, seed, world.record):020d}"
    about = {"identity": identity, "machine": {"device": "cpu"}, "precision": "fp32", "started": started}
    return store.write(key, about, fill)


def answers(folder: Path, member: str, frames: list[pd.DataFrame], scores: dict[str, Any]) -> None:
    """Write a member's predictions and note their accuracy."""
    pd.concat(frames).to_parquet(folder / "predictions" / f"{member}.parquet")
    for frame in frames:
        right = float((frame["gold"] == frame["predicted"]).mean())
        scores[str(frame["split"].iloc[0])] = {"n": len(frame), "accuracy": right}


def write_stages(store: RunStore, world: World, run: StoredRun) -> list[StoredRun]:
    """The second stages of a run (of singles and of all together): a subset with its two controls."""
    done = []
    for (subset, side), size in world.stages.items():
        control = None if side == "subset" else side
        metrics: dict[str, Any] = {member: {"n": 40} for member in run.setting}

        def fill(folder: Path, size: float = size, metrics: dict[str, Any] = metrics) -> None:
            (folder / "predictions").mkdir()
            for member in run.setting:
                frames = []
                for split in ("test", "ood"):
                    base = world.gain(member, run.setting, split) if len(run.setting) > 1 else 0.0
                    frames.append(predictions(world, member, split, base + size, run.setting, run.seed))
                answers(folder, member, frames, metrics[member])
            files.write_json(folder / "metrics.json", metrics)

        stage = {"start": "final", "subset": subset, "control": control}
        identity = {**run.manifest["identity"], "base": run.key, "stage": stage}
        about = {"tested": True, "reason": "", "n": {member: 40 for member in run.setting}, "passes": 4}
        key = f"{number(run.key, subset, side):020d}"
        done.append(store.write(key, {"identity": identity, "stage": about}, fill))
    return done
