"""A folder made by `soi train`: how to open it, and its index, as JSON for programs and Markdown for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from math import isclose
from pathlib import Path
from typing import Any

import pandas as pd

from soi_lib.data import cache
from soi_lib.data.dataset import Split
from soi_lib.errors import ProfileError, SoiError, StoreError
from soi_lib.runs.config import Profile, Stages, load_profile
from soi_lib.runs.results import Results
from soi_lib.runs.scheduler import run_all
from soi_lib.runs.spec import Job, StageSpec
from soi_lib.runs.store import RunStore, StoredRun, open_run
from soi_lib.training.device import is_writer

PROFILE, INDEX, README, DATA, RUNS = "profile.yaml", "runs.json", "README.md", "data", "runs"


def own_profile(folder: str | Path) -> Profile:
    """Return the profile of a folder made by `soi train`, with its rows at the folder's current location.

    Raises ProfileError if the profile is missing or damaged.
    """
    folder = Path(folder)
    profile = load_profile(folder / PROFILE)
    if "user" not in profile.comparisons:
        raise ProfileError("was not made by soi train", where=folder / PROFILE, hint="give a folder made by soi train")
    paths = {name: str(data_file(folder, name).resolve()) for name in profile.corpora}
    corpora = {name: spec.model_copy(update={"path": paths[name]}) for name, spec in profile.corpora.items()}
    return profile.model_copy(update={"corpora": corpora})


def is_own(folder: str | Path) -> bool:
    """Return whether `soi train` made this folder."""
    return (Path(folder) / PROFILE).is_file() and (Path(folder) / INDEX).is_file()


def open_own(folder: str | Path) -> tuple[Results, dict[str, Any]]:
    """Return the finished runs of a folder and its index. Seeds with a missing run are left out. Raises StoreError."""
    folder = Path(folder)
    index, profile = read_index(folder), own_profile(folder)
    runs = [open_run(folder / row["folder"]) for row in index["runs"] if (folder / row["folder"]).is_dir()]
    settings = {tuple(row["setting"]) for row in index["runs"]}
    whole = [s for s in profile.seeds if {run.setting for run in runs if run.seed == s} >= settings]
    if not whole:
        found, hint = f"{len(runs)} of {len(index['runs'])}", index.get("command") or "run the soi train command again"
        raise StoreError("the runs are not finished", where=folder, found=found, hint=hint)
    return Results("user", profile, tuple(run for run in runs if run.seed in whole)), index


def read_index(folder: str | Path) -> dict[str, Any]:
    """Return the index of a folder: its runs by setting and seed. Raises StoreError."""
    path = Path(folder) / INDEX
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        for row in value["runs"]:
            row["folder"], row["setting"], row["dynamics"]
        value.setdefault("sources", {})
    except FileNotFoundError:
        hint = "give a folder that soi train made"
        raise StoreError("was not made by soi train", where=folder, expected=f"{PROFILE}, {INDEX}", hint=hint) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError("cannot be read", where=path, found=error, hint="run the soi train command again") from error
    return dict(value)


def known_index(folder: Path) -> dict[str, Any]:
    """Return the index of a folder, or an empty one if it was not written yet or is damaged."""
    try:
        return read_index(folder)
    except StoreError:
        return {}


def training_rows(folder: str | Path, member: str) -> Split:
    """Return the training rows of a dataset in a folder. Raises StoreError."""
    path = data_file(Path(folder), member)
    try:
        return cache.read(path).splits["train"]
    except (SoiError, OSError) as error:
        hint = "run the soi train command again"
        raise StoreError("the training rows cannot be read", where=path, found=error, hint=hint) from error


def data_file(folder: Path, name: str) -> Path:
    """Return the path of a folder's copy of a dataset."""
    return folder / DATA / f"{name}.parquet"


_README = """\
# Training dynamics

Datasets: {datasets}. Model: {model}. Epochs: {epochs}.

| setting | seed | state | dynamics |
|---|---|---|---|
{runs}

This folder contains:

- `runs.json`: this table for programs, with the scores;
- `runs/KEY/`: one run: `dynamics/`, `predictions/`, `rows/`, `metrics.json`, `manifest.json`;
- `models/SETTING-seedN/`: the trained models, for `soi predict` and `soi_lib.load_classifier`; after a second stage,
  the folder name ends in the stage's name. `transformers.pipeline` can load models trained on one dataset with
  `--pooling pooler`;
- `data/DATASET.parquet`: the training and test rows, with the same ids as in the dynamics: those of the file's id
  column, or row numbers from 0;
- `profile.yaml`: the configuration.

Notes on the data and the training:

{decisions}

Next: `soi report` with this folder writes a page for the browser; `soi categorize` and `soi compare` read the dynamics
files above.
"""


def readme(index: dict[str, Any]) -> str:
    """Return README.md: what the folder contains and how to continue."""
    runs, decided = [], []
    for row in index["runs"]:
        files = ", ".join(f"[{dataset}]({path})" for dataset, path in row["dynamics"].items())
        runs.append(f"| {setting_words(row['setting'])} | {row['seed']} | {row['state']} | {files} |")
    for sentence in index["decided"]:  # the user's text: on one line, without markup
        plain = " ".join(sentence.split()).replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
        decided.append(f"- {plain}")
    values = {"model": index["model"], "epochs": index["epochs"], "datasets": ", ".join(index["members"])}
    text = _README.format(**values, runs="\n".join(runs), decisions="\n".join(decided))
    command = " ".join(index["command"].split())
    return text + (f"\nMade with this command, which also continues it:\n\n    {command}\n" if command else "")


def model_folder(setting: Sequence[str], seed: int, stage: str = "") -> str:
    """Return the path of a run's model, relative to the folder; `stage` is the name of a second stage."""
    return f"models/{'+'.join(setting)}-seed{seed}" + (f"-{stage}" if stage else "")


def run_and_keep(
    folder: Path, specs: Sequence[Job], *, models: bool = True, jobs: int | None = None, quiet: bool = False
) -> list[StoredRun]:
    """Train the missing runs or stages of a folder and keep their `models`; return all of them. Raises SoiError."""
    keep = partial(keep_model, folder)
    runs = run_all(specs, RunStore(folder / RUNS), jobs=jobs, quiet=quiet, then=keep if models else None)
    for spec in specs if models and is_writer() else ():  # models of earlier runs that were lost
        keep(spec)
    return runs


def keep_model(folder: Path, spec: Job) -> None:
    """Write the model of a run or second stage if its weights were kept, replacing that of another run."""
    base = spec.base if isinstance(spec, StageSpec) else spec
    stage = stage_name(spec.identity()["stage"], base.training.learning_rate) if isinstance(spec, StageSpec) else ""
    target = folder / model_folder(spec.setting, base.seed, stage)
    weights = RunStore(folder / RUNS).weights_path(spec.key)
    if run_of(target) == spec.key or not weights.exists():
        return
    from soi_lib.training.checkpoint import load_weights
    from soi_lib.training.classifier import save_classifier

    tensors, vocabulary, _ = load_weights(weights)
    encoder = base.encoder_folder or base.encoder
    corpora = {name: cache.read(data_file(folder, name)) for name in spec.setting}
    save_classifier(
        target,
        tensors,
        encoder=encoder,
        vocabulary=vocabulary,
        datasets={name: corpus.labels for name, corpus in corpora.items()},
        pairs=[name for name, corpus in corpora.items() if corpus.splits["train"].text_pair is not None],
        pooling=spec.training.pooling,
        max_length=spec.training.max_length,
        run=spec.key,
    )


def run_of(model: Path) -> str | None:
    """Return the key of the run that a kept model belongs to, or None if there is no model."""
    try:
        return str(json.loads((model / "soi.json").read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stage_name(stage: Mapping[str, Any], first_rate: float) -> str:
    """Return the name of a second stage, from its identity and the learning rate of the run that it continues.

    It is the subset (for ids, with a hash of them), plus the epochs and learning rate if they are not the defaults.
    """
    name, training, usual = str(stage["subset"]), stage["training"], Stages()
    if stage.get("ids"):
        name += "-" + hashlib.sha256("\n".join(stage["ids"]).encode()).hexdigest()[:6]
    if training["epochs"] != usual.epochs:
        name += f"-{training['epochs']}-epochs"
    if not isclose(training["learning_rate"], first_rate * usual.learning_rate_factor, rel_tol=1e-4):
        name += f"-lr-{training['learning_rate']:g}"
    return name


def time_words(minutes: float) -> str:
    """Return an approximate duration in words."""
    if minutes < 1.5:
        return "a minute or two"
    return f"about {minutes:.0f} minutes" if minutes < 90 else f"about {minutes / 60:.1f} hours"


def setting_words(setting: Sequence[str]) -> str:
    """Return `tweets alone`, or `tweets + amazon together`."""
    return f"{' + '.join(setting)} {company(setting)}"


def company(setting: Sequence[str]) -> str:
    """Return `alone` or `together`."""
    return "together" if len(setting) > 1 else "alone"


def below_words(index: dict[str, Any]) -> list[str]:
    """Return a sentence for each dataset and setting whose models are less accurate than a bag of words."""
    rows = [
        (f"{dataset} {company(row['setting'])}", scores["test"]["accuracy"], scores["test"]["bag_of_words"])
        for row in index["runs"]
        for dataset, scores in row["scores"].items()
        if "bag_of_words" in scores.get("test", {})
    ]
    means = pd.DataFrame(rows, columns=["name", "own", "words"]).groupby("name", sort=False).mean()
    return [
        f"caution: {name} reaches an accuracy of {own:.3f}, but a bag of words {words:.3f}; do not rely on the "
        "categories or label issues of such a model"
        for name, own, words in means.round(3).itertuples()
        if own < words
    ]
