"""Training on the user's own data: a folder that contains a profile, the rows, the runs, and an index of them.

The user's files become a profile with its own corpora and the comparison `user`; everything after that (plan, keys,
store, workers) is the code that the paper's comparisons use. The folder contains a copy of each dataset as one Parquet
file, so that runs can be continued and reported after the original files have moved. Using the folder with other rows
or settings raises an error, so that runs are never mixed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml

from soi_lib import files
from soi_lib.data import cache
from soi_lib.data.dataset import Split
from soi_lib.data.load import LoadedDataset, load_dataset
from soi_lib.data.places import DatasetSpec
from soi_lib.errors import OutputExistsError, ProfileError, SoiError, raise_all
from soi_lib.models.encoder import EncoderCard, encoder_card, find_encoder, fingerprint
from soi_lib.runs import own_folder
from soi_lib.runs.config import NAME, ComparisonPlan, DataSizes, Profile, Setting, Training
from soi_lib.runs.spec import BYTES_A_PARAMETER, CORE_RATE, RunSpec, flop, plan
from soi_lib.runs.store import RunStore, StoredRun
from soi_lib.training.device import cards, default_jobs, kind_of, resolve_device, resolve_precision

_START = 8.0  # seconds before a run's first update


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of `soi train`: the location and format of each dataset, by name, and how to train."""

    datasets: dict[str, DatasetSpec]
    model: str = "minilm"
    epochs: int = 10
    seeds: tuple[int, ...] = (0,)
    batch_size: int = 16
    learning_rate: float | None = None
    max_length: int = 128
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    keep_logits: bool = False
    device: str = "auto"
    precision: str | None = None


@dataclass(frozen=True)
class TrainingJob:
    """What training needs: the folder, its profile, its datasets, the decisions made, and whether it has begun."""

    folder: Path
    profile: Profile
    datasets: tuple[LoadedDataset, ...]
    encoder: Path
    decisions: tuple[str, ...]
    begun: bool
    device: str = "cpu"

    @property
    def store(self) -> RunStore:
        """The store of the folder's runs."""
        return RunStore(self.folder / own_folder.RUNS)

    def specs(self) -> list[RunSpec]:
        """Return the runs; the folder must already contain the rows."""
        return plan(self.profile, device=self.device)

    def finished(self) -> int:
        """Return how many of the runs are done."""
        try:
            return sum(spec.found(self.store) is not None for spec in self.specs()) if self.begun else 0
        except SoiError:  # some rows are not written yet
            return 0

    @property
    def settings(self) -> list[Setting]:
        """The settings that are trained."""
        return self.profile.comparisons["user"].member_sets()


def prepare(request: TrainRequest, folder: str | Path, *, force: bool = False) -> TrainingJob:
    """Read and check everything that was requested, and the output folder, without writing to it.

    Raises SoiError for anything that cannot be trained, and OutputExistsError if the folder contains something else and
    `force` is False.
    """
    folder = Path(folder).expanduser()
    _check_sizes(request)
    device = resolve_device(request.device)
    cards(device)  # report a missing GPU before reading any data
    begun = _begun(folder, force)
    old = own_folder.own_profile(folder) if begun else None
    precision = request.precision or (old.training.precision if old else "auto")  # a folder keeps its precision
    precision = resolve_precision(precision, kind_of(device))
    taken = {s.hub: s.revision for s in old.encoders.values()} if old else {}
    encoder, source, place = find_encoder(request.model, taken)
    if source is not None or request.pooling == "pooler":
        from soi_lib.models.multitask import check_encoder

        check_encoder(place, pooling=request.pooling, max_length=request.max_length)
    datasets = _load(request, own_folder.known_index(folder).get("sources", {}))
    training = {name: value for name, value in vars(request).items() if name in Training.model_fields}
    training |= {"learning_rate": request.learning_rate or (1e-4 if source is None else 5e-5), "precision": precision}
    sizes = [{split: len(rows) for split, rows in dataset.corpus.splits.items()} for dataset in datasets]
    copies = {name: own_folder.data_file(folder, name).resolve() for name in request.datasets}
    profile = Profile(
        name=folder.resolve().name or "own",
        description="made by soi train",
        seeds=request.seeds,
        data=DataSizes(
            train=max(size["train"] for size in sizes),
            evaluate=max(n for size in sizes for split, n in size.items() if split != "train"),
        ),
        training=Training(**training),
        comparisons={
            "user": ComparisonPlan(encoder=encoder, members=tuple(request.datasets), settings=("single", "all"))
        },
        corpora={name: DatasetSpec(path=str(path)) for name, path in copies.items()},
        encoders={} if source is None else {encoder: source},
    )
    found = TrainingJob(folder, profile, datasets, place, _decisions(profile, datasets), begun, device)
    if old is not None and not force:
        _refuse_other(found, old)
    return found


def train(
    todo: TrainingJob, *, command: str = "", models: bool = True, jobs: int | None = None, quiet: bool = False
) -> list[StoredRun]:
    """Write the folder, train the missing runs, and return all runs in the order of the plan. Raises SoiError.

    If it is interrupted, the same call continues. `command` is the command line that does so, for the folder's README;
    `models` keeps the trained model of every run that this call trains.
    """
    path = todo.folder / own_folder.PROFILE
    if not todo.begun and path.is_file():  # another process created it first
        _refuse_other(todo, own_folder.own_profile(todo.folder))
    profile = yaml.safe_dump(json.loads(todo.profile.model_dump_json()), sort_keys=False, allow_unicode=True)
    _write(path, f"# Made by soi train; the runs in {own_folder.RUNS}/ depend on it.\n{profile}".encode())
    for dataset in todo.datasets:
        path, held = own_folder.data_file(todo.folder, dataset.name), None
        with suppress(SoiError):
            held = cache.read(path)
        if held is None or (held.fingerprint, held.card) != (dataset.corpus.fingerprint, dataset.corpus.card):
            cache.write(path, dataset.corpus)
    specs = [replace(spec, keep_weights=models and todo.store.get(spec.key) is None) for spec in todo.specs()]
    _write_index(todo, specs, command)
    runs = own_folder.run_and_keep(todo.folder, specs, models=models, jobs=jobs, quiet=quiet)
    _write_index(todo, specs, command)
    return runs


def summary(todo: TrainingJob) -> dict[str, Any]:
    """Return the rows of each split, the labels, the decisions made, and the dataset sources, as JSON values."""
    decided = [f"{d.name}: {sentence}" for d in todo.datasets for sentence in d.decisions]
    return {
        "rows": {d.name: {split: len(rows) for split, rows in d.corpus.splits.items()} for d in todo.datasets},
        "labels": {d.name: list(d.corpus.labels) for d in todo.datasets},
        "decided": [*decided, *todo.decisions],
        "sources": {d.name: d.spec.model_dump(exclude_defaults=True) for d in todo.datasets},
    }


# --- the cost, printed before training starts -------------------------------------------------------------------------


def cost_lines(todo: TrainingJob, *, finished: int, jobs: int | None, models: bool) -> list[str]:
    """Return lines on the remaining runs and their cost; `models` says whether the trained models are kept."""
    seeds, encoder = todo.profile.seeds, todo.profile.comparisons["user"].encoder
    total = len(todo.settings) * len(seeds)
    what = f"runs: {total} run{'s' if total > 1 else ''} of {todo.profile.training.epochs} epochs with {encoder}, "
    what += f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}, "
    what += f"on {'the CPU' if todo.device == 'cpu' else 'a GPU'} in {todo.profile.training.precision}"
    if finished == total:
        return [f"{what}; all done"]
    if finished:
        what += f"; {finished} done already"
    card = encoder_card(todo.encoder)
    time = _time(todo, card, jobs, finished / total) if todo.device == "cpu" else "the time on a GPU is not estimated"
    # an upper bound: vocabulary rows that no text uses are left out of training
    gigabytes = BYTES_A_PARAMETER * card.parameters / 1e9
    memory = f"memory: up to {gigabytes:.1f} GB per run for its parameters, plus memory for its batches"
    lines = [f"{what}; {time}", memory]
    if models:  # the model with its full vocabulary, and the weights that a second stage starts from
        lines.append(f"disk: up to {2 * 4 * card.parameters / 1e6:.0f} MB per run for its model (none with --no-model)")
    return lines


def _time(todo: TrainingJob, card: EncoderCard, jobs: int | None, done: float) -> str:
    """Return about how long the runs take on this machine's cores, in words."""
    longest, seconds = todo.profile.training.max_length, {}
    for dataset in todo.datasets:
        splits = dataset.corpus.splits.items()
        tokens = {split: len(part) * min(1.35 * part.mean_words + 3, longest) for split, part in splits}
        trained = tokens["train"] * todo.profile.training.epochs
        evaluated = sum(n for split, n in tokens.items() if split in ("test", "ood"))
        operations = flop(card.parameters - card.embedding_parameters, trained, evaluated)
        seconds[dataset.name] = operations / CORE_RATE
    every = [_START + sum(seconds[m] for m in s) for s in todo.settings for _ in todo.profile.seeds]
    cores = default_jobs("cpu")
    minutes = sum(every) * (1 - done) / min(jobs or cores, len(every)) / 60
    return f"{own_folder.time_words(minutes)} on {cores} core{'s' if cores > 1 else ''} (a rough estimate)"


# --- checking a request ---------------------------------------------------------------------------------------------


def _check_sizes(request: TrainRequest) -> None:
    if not 2 <= request.epochs <= 64:
        what = "training dynamics need 2 to 64 epochs"
        raise ProfileError(what, where="--epochs", found=request.epochs, hint="start with 10")
    seeds = {seed for seed in request.seeds if isinstance(seed, int) and seed >= 0}
    if not seeds or len(seeds) < len(request.seeds):
        found = ", ".join(map(str, request.seeds)) or "none"
        expected = "whole numbers from 0, without duplicates"
        raise ProfileError("these seeds are not valid", where="--seed", found=found, expected=expected)
    for name in request.datasets:
        if not re.fullmatch(NAME, name):
            what, expected = "this cannot be used as a dataset name", "letters, digits, '-', '_' and '.'"
            raise ProfileError(what, found=repr(name), expected=expected, hint="choose a name: --dataset NAME=FILE")


def _load(request: TrainRequest, sources: dict[str, Any]) -> tuple[LoadedDataset, ...]:
    """Load the datasets, those of the hub at the commit that was used before. Raises one SoiError for all problems."""
    loaded: list[LoadedDataset] = []
    problems: list[SoiError] = []
    for name, spec in request.datasets.items():
        before = sources.get(name, {})
        if spec.hub is not None and spec.revision is None and before.get("hub") == spec.hub:
            spec = spec.model_copy(update={"revision": before["revision"]})
        try:
            loaded.append(load_dataset(name, spec))
        except SoiError as error:
            problems.append(error)
    raise_all(problems)
    return tuple(loaded)


def _begun(folder: Path, force: bool) -> bool:
    """Return whether `soi train` created this folder; raise if it is a file, or (unless `force`) has other content."""
    if folder.exists() and not folder.is_dir():
        raise SoiError("the output folder is a file", where=folder, hint="choose another --out")
    if (folder / own_folder.PROFILE).is_file():
        return True
    there = sorted(p.name for p in folder.iterdir() if not p.name.startswith(files.PREFIX)) if folder.is_dir() else []
    if there and not force:
        what, found = "the folder contains something else", ", ".join(there[:4]) + (" ..." if len(there) > 4 else "")
        expected, hint = "a new or empty folder", "choose another --out, or pass --force to write into it anyway"
        raise OutputExistsError(what, where=folder, found=found, expected=expected, hint=hint)
    return False


def _decisions(profile: Profile, datasets: Sequence[LoadedDataset]) -> tuple[str, ...]:
    """Return what the user should know before training starts."""
    values, encoder = profile.training, profile.comparisons["user"].encoder
    said = [
        f"batches of {values.batch_size}, learning rate {values.learning_rate:g}, at most {values.max_length} tokens, "
        f"{values.pooling} pooling"
    ]
    first: dict[tuple[str, ...], str] = {}
    for dataset in datasets:
        other = first.setdefault(dataset.corpus.labels, dataset.name)
        if other != dataset.name:
            said.append(f"{other} and {dataset.name} have the same labels, so they share a head when trained together")
        if len(dataset.corpus.labels) > 2 and not values.keep_logits:
            said.append(f"without --keep-logits, soi label-issues cannot suggest labels for {dataset.name}")
        if encoder == "minilm" and (share := _foreign_share(dataset.corpus.splits["train"])) > 0.2:
            said.append(
                f"caution: {share:.0%} of the letters in {dataset.name} are not Latin, and {encoder} was trained on "
                "English only; the multilingual model is --model e5"
            )
    return tuple(said)


def _foreign_share(split: Split) -> float:
    """Return the share of letters that are not Latin: neither below U+0250 nor from U+1E00 to U+1EFF."""
    letters = [c for text in islice(split.text, 1000) for c in text[:1000] if c.isalpha()]
    foreign = sum(c > "\u024f" and not "\u1e00" <= c <= "\u1eff" for c in letters)
    return foreign / max(1, len(letters))


def _refuse_other(new: TrainingJob, old: Profile) -> None:
    """Raise OutputExistsError if the folder was made with other settings or rows; additional seeds are allowed."""
    index = own_folder.known_index(new.folder)  # if it was not written yet, run keys distinguish old rows from new ones
    before, now = _settings(old), _settings(new.profile)
    before["device"], now["device"] = index.get("device", kind_of(new.device)), kind_of(new.device)
    if set(old.seeds) <= set(new.profile.seeds):
        before["seeds"] = now["seeds"]
    other = [name for name in before if before[name] != now[name]]
    differences = [f"{name.replace('_', ' ')} {before[name]}, now {now[name]}" for name in other]
    for dataset in new.datasets:
        if index.get("corpora", {}).get(dataset.name) not in (None, dataset.corpus.fingerprint):
            differences.append(f"other rows of {dataset.name}")
    if not differences and index.get("encoder") not in (None, fingerprint(new.encoder)):
        differences.append("another model in the same folder")
    if differences:
        what, found = "the folder was made with other settings", "; ".join(differences)
        hint = "choose another --out, or pass --force (finished runs are kept, models are replaced)"
        raise OutputExistsError(what, where=new.folder, found=found, hint=hint)


def _settings(profile: Profile) -> dict[str, Any]:
    """Return what runs in one folder have in common, by name."""
    part, seeds = profile.comparisons["user"], ", ".join(map(str, profile.seeds))
    members = {"seeds": seeds, "datasets": ", ".join(part.members), "model": part.encoder}
    return members | profile.training.model_dump()


# --- writing the folder ---------------------------------------------------------------------------------------------


def _write(path: Path, data: bytes) -> None:
    """Write the file unless it already has this content."""
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    files.write_bytes(path, data)


def _write_index(todo: TrainingJob, specs: Sequence[RunSpec], command: str) -> None:
    """Write runs.json for programs and README.md for people."""
    about, part = summary(todo), todo.profile.comparisons["user"]
    about |= {"command": command, "members": list(part.members), "model": part.encoder}
    about |= {"epochs": todo.profile.training.epochs, "precision": todo.profile.training.precision}
    about |= {"encoder": fingerprint(todo.encoder), "device": kind_of(todo.device)}
    about["corpora"] = {dataset.name: dataset.corpus.fingerprint for dataset in todo.datasets}
    about["runs"] = [_row(todo, spec) for spec in specs]
    _write(todo.folder / own_folder.INDEX, files.json_text(about).encode())
    _write(todo.folder / own_folder.README, own_folder.readme(about).encode())


def _row(todo: TrainingJob, spec: RunSpec) -> dict[str, Any]:
    """Return the entry of a run in runs.json: its setting and seed, whether it is done, its dynamics and scores."""
    run, scores = spec.found(todo.store), {}
    for member, metrics in run.metrics.items() if run is not None else ():
        scores[member] = {"n": metrics["n"], "soi": metrics["soi"]}
        for split in [split for split in ("test", "ood") if split in metrics]:
            held = {name: metrics[split][name] for name in ("n", "accuracy", "macro_f1")}
            scores[member][split] = held | {"bag_of_words": metrics["bag_of_words"][split]["accuracy"]}
    folder, model = f"{own_folder.RUNS}/{spec.key}", own_folder.model_folder(spec.setting, spec.seed)
    return {
        "key": spec.key,
        "setting": list(spec.setting),
        "seed": spec.seed,
        "state": "to do" if run is None else "done",
        "folder": folder,
        "dynamics": {member: f"{folder}/dynamics/{member}.parquet" for member in spec.setting},
        "scores": scores,
        "model": model if own_folder.run_of(todo.folder / model) == spec.key else None,
    }
