"""Finished runs of known truth, written as real ones are: dynamics files, predictions, metrics, sealed manifests."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic import learn

from paper.recorded import Results
from soi_lib import files
from soi_lib.analysis.soi import categorize, soi_counts
from soi_lib.dynamics import TrainingDynamics
from soi_lib.runs.config import Profile
from soi_lib.runs.store import RunStore, StoredRun

MEMBERS = ("tweets", "amazon", "movie")
Setting = tuple[str, ...]


def number(*words: object) -> int:
    """A seed from words, the same in every process."""
    return zlib.crc32(repr(words).encode())


@dataclass
class World:
    """What is true of the runs.

    `gain(member, setting, split)` is how much more accurate the member is in a multi setting than alone; `pace(member,
    setting)` how fast examples are learned; `noise` is how much runs differ.
    """

    gain: Callable[[str, Setting, str], float] = lambda member, setting, split: 0.0
    pace: Callable[[str, Setting], float] = lambda member, setting: 1.5
    noise: float = 0.25
    n: int = 300
    evaluate: int = 500
    epochs: int = 8
    record: str = "train"


def dynamics(world: World, member: str, setting: Setting, seed: int) -> TrainingDynamics:
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
    meta = replace(dyn.meta, comparison="source", seed=seed)
    return TrainingDynamics(dyn.ids, dyn.gold, dyn.p_gold, dyn.correct, meta)


def predictions(world: World, member: str, split: str, size: float, *run: object) -> pd.DataFrame:
    """What a run answered: `size` is its gain. Sources share their OOD examples, as the real ones do."""
    corpus = "nyt" if split == "ood" and member in MEMBERS else member
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


def make(root: Path, world: World | None = None, *, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Results]:
    """Results of the sources by comparison, from runs on disk."""
    world = world or World()
    sizes = Profile(
        name="made",
        seeds=tuple(seeds),
        data={"train": world.n, "evaluate": world.evaluate},
        training={"epochs": world.epochs, "record": world.record},
        comparisons={"source": {"encoder": "minilm", "members": MEMBERS, "settings": ("single", "all")}},
    )
    settings = sizes.comparisons["source"].member_sets()
    runs = [write(RunStore(root), world, setting, seed) for setting in settings for seed in seeds]
    return {"source": Results("source", sizes, tuple(runs))}


def write(store: RunStore, world: World, setting: Setting, seed: int) -> StoredRun:
    """One finished run in the store."""
    metrics: dict[str, Any] = {}

    def fill(folder: Path) -> None:
        (folder / "predictions").mkdir()
        (folder / "dynamics").mkdir()
        for member in setting:
            dyn = dynamics(world, member, setting, seed)
            dyn.save(folder / "dynamics" / f"{member}.parquet")
            size = {s: world.gain(member, setting, s) if len(setting) > 1 else 0.0 for s in ("test", "ood")}
            frames = [predictions(world, member, split, value, setting, seed) for split, value in size.items()]
            answers(folder, member, frames, metrics.setdefault(member, {}))
            metrics[member] |= {"n": len(dyn), "soi": soi_counts(categorize(dyn))}
        files.write_json(folder / "metrics.json", metrics)

    identity = {"comparison": "source", "setting": list(setting), "seed": seed, "training": {"record": world.record}}
    about = {"identity": identity, "machine": {"device": "cpu"}, "precision": "fp32", "started": ""}
    return store.write(f"{number(setting, seed, world.record):020d}", about, fill)


def answers(folder: Path, member: str, frames: list[pd.DataFrame], scores: dict[str, Any]) -> None:
    """Write a member's predictions and note their accuracy."""
    pd.concat(frames).to_parquet(folder / "predictions" / f"{member}.parquet")
    for frame in frames:
        right = float((frame["gold"] == frame["predicted"]).mean())
        scores[str(frame["split"].iloc[0])] = {"n": len(frame), "accuracy": right}
