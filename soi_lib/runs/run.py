"""Train one run: read the corpora and the encoder, write a sealed folder of dynamics, predictions and metrics.

Each run is trained on one thread, so that its bits depend on the kind of machine and not on the number of cores;
several runs share a machine side by side (see `soi_lib.runs.scheduler`). On two cores this is a third faster than one
run on two threads.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soi_lib import files
from soi_lib.analysis.soi import categorize, soi_counts
from soi_lib.data.cache import load
from soi_lib.data.dataset import Corpus, Split
from soi_lib.data.match import save_trained_rows
from soi_lib.errors import StoreError
from soi_lib.runs.spec import Job, Progress, RunSpec
from soi_lib.runs.store import RunStore, StoredRun
from soi_lib.training.device import held, is_writer, processor, reproducibly

if TYPE_CHECKING:
    from torch import nn

    from soi_lib.models.vocabulary import Tokens
    from soi_lib.training.engine import TrainMember
    from soi_lib.training.outcome import Predictions, TrainResult


def do_run(spec: RunSpec, store: RunStore, *, progress: Progress | None = None) -> StoredRun:
    """Train `spec` unless `store` has it, and return the stored run.

    A run is trained by one process at a time, or by several that `accelerate launch` started to train it together. With
    `spec.keep_weights`, the final weights (float32, trimmed vocabulary) are kept beside the store's runs, for a second
    stage to start from. If the store has the run but not its weights, it is trained again; raises StoreError if that
    does not reproduce the stored dynamics bit for bit.
    """
    from soi_lib.data.baselines import baselines
    from soi_lib.training.checkpoint import has_weights

    with held(store.lock(spec.key)):
        run = store.get(spec.key)
        if run is not None:
            stored = {member: run.dynamics(member).fingerprint() for member in run.setting}
            path = store.weights_path(spec.key)
            if not spec.keep_weights or has_weights(path, key=spec.key, dynamics=stored):
                return run
        began, ready = begin(), prepare(spec)
        result = train_prepared(spec, ready, store, progress, seed=spec.seed)
        if run is None:
            metrics = {
                member: {
                    "n": len(splits["train"]),
                    **baselines(splits),
                    "tokens": {name: round(float(ready.tokens[member, name].lengths.mean()), 2) for name in splits},
                    "truncated": {name: ready.tokens[member, name].truncated for name in splits},
                }
                for member, splits in ready.splits.items()
            }
            examples = sum(len(member.splits["train"]) for member in ready.members)
            return write_run(spec, store, ready, result, began, metrics, {"examples": examples})
        store.checkpoint_path(spec.key).unlink(missing_ok=True)
        for member, dynamics in result.dynamics.items():
            if (made := dynamics.fingerprint()) != stored[member]:
                path, expected = run.folder / "dynamics" / f"{member}.parquet", stored[member][:12]
                what = (
                    "training the run again gives other dynamics than those stored, so its weights cannot be recreated"
                )
                hint = "use the machine that made the run, or train all runs again in another folder with --runs"
                raise StoreError(what, where=path, found=made[:12], expected=expected, hint=hint)
        keep_weights(store, spec.key, ready, result)
        return run


@dataclass(frozen=True)
class Prepared:
    """What a run trains on: its splits, as tokens of a trimmed encoder. The same spec always gives the same result.

    vocabulary (K,) int64 holds the token of each row of the encoder's embedding.
    """

    corpora: dict[str, Corpus]
    splits: dict[str, dict[str, Split]]
    tokens: dict[tuple[str, str], Tokens]
    encoder: nn.Module
    vocabulary: np.ndarray
    members: list[TrainMember]


def taken_splits(corpus: Corpus, spec: RunSpec) -> dict[str, Split]:
    """Return the parts of a corpus that a run uses: train, validation, test, ood (further OOD sets as `ood:<name>`).

    Only a corpus defined by a profile may lack `ood`; the run's metrics and predictions then lack it too.
    """
    train = corpus.splits["train"].take(spec.data.train)
    if spec.setting.budget == "equal":
        train = train.take(max(1, len(train) // len(spec.setting)))
    sizes = {"validation": spec.data.validation, "test": spec.data.evaluate, "ood": spec.data.ood}
    taken = {"train": train}
    taken |= {name: corpus.splits[name].take(n) for name, n in sizes.items() if name in corpus.splits and n != 0}
    return taken | {f"ood:{name}": split.take(spec.data.ood) for name, split in sorted(corpus.extra_ood.items())}


def prepare(spec: RunSpec) -> Prepared:
    """Read the corpora of `spec`, and load its encoder with only the tokens that they use."""
    from soi_lib.models.encoder import encoder_card, encoder_dir
    from soi_lib.models.vocabulary import load_trimmed, tokenize
    from soi_lib.training.batching import encode
    from soi_lib.training.engine import TrainMember

    corpora = {name: load(name, spec.fingerprint(f"corpus/{name}")) for name in spec.setting}
    splits = {name: taken_splits(corpus, spec) for name, corpus in corpora.items()}
    encoder = spec.encoder_folder or spec.encoder
    folder, card = encoder_dir(encoder), encoder_card(encoder)
    longest = spec.training.max_length
    tokens = {
        (member, name): tokenize(folder, split.text, split.text_pair, max_length=longest, prefix=card.prefix)
        for member, parts in splits.items()
        for name, split in parts.items()
    }
    texts, pooler = [t.ids for t in tokens.values()], spec.training.pooling == "pooler"
    model, id_map = load_trimmed(folder, texts, pooler=pooler)
    members = [
        TrainMember(
            name=member,
            labels=corpora[member].labels,
            ids=parts["train"].ids,
            splits={n: encode(tokens[member, n], id_map, s.label, member=i) for n, s in parts.items()},
        )
        for i, (member, parts) in enumerate(splits.items())
    ]
    return Prepared(corpora, splits, tokens, model, np.flatnonzero(id_map >= 0), members)


def train_prepared(
    job: Job, ready: Prepared, store: RunStore, progress: Progress | None, *, seed: int, **other: Any
) -> TrainResult:
    """Train the prepared run or stage `job`; its state is kept in `store` until it is done.

    For a stage, `other` gives `initial` (the weights to start from) and the number of `epochs`.
    """
    from soi_lib.training.checkpoint import Checkpoint
    from soi_lib.training.engine import TrainConfig, train

    identity = job.identity()
    of_identity = ("comparison", "setting", "seed", "base", "stage")
    meta: dict[str, Any] = {name: identity[name] for name in of_identity if name in identity}
    meta |= {"budget": job.setting.budget, "profile": job.key}
    meta |= {"library_version": version("soi_lib"), "commit": commit()}
    settings = job.training.model_dump(exclude={"max_length"})
    settings |= {"seed": seed, "epochs": other.get("epochs", job.training.epochs)}
    with reproducibly(job.device):
        return train(
            ready.encoder,
            ready.members,
            TrainConfig(**settings),
            device=job.device,
            meta=meta,
            initial=other.get("initial"),
            progress=None if progress is None else lambda epoch, n: progress(job.key, epoch, n),
            checkpoint=Checkpoint(store.checkpoint_path(job.key), job.key),
        )


def keep_weights(store: RunStore, key: str, ready: Prepared, result: TrainResult) -> None:
    """Keep the final weights of a run or a stage beside the store's runs."""
    from soi_lib.training.checkpoint import save_weights

    if is_writer():
        dynamics = {member: d.fingerprint() for member, d in result.dynamics.items()}
        path = store.weights_path(key)
        save_weights(path, result.weights, key=key, vocabulary=ready.vocabulary, dynamics=dynamics)


def write_run(
    job: Job,
    store: RunStore,
    ready: Prepared,
    result: TrainResult,
    began: tuple[str, float],
    metrics: dict[str, dict[str, Any]],
    about: dict[str, Any],
) -> StoredRun:
    """Write the folder of a trained run or stage, after its weights if they are to be kept.

    `began` is `begin()` before it was trained; `metrics` and `about` are what only a run or only a stage has in its
    metrics and in its manifest.
    """
    if job.keep_weights:
        keep_weights(store, job.key, ready, result)
    for member, found in metrics.items():
        found["soi"] = soi_counts(categorize(result.dynamics[member]))
        found |= {split: scores(predictions) for split, predictions in result.predictions[member].items()}
    started, clock = began
    manifest = heading(job) | about
    manifest |= {
        "started": started,
        "seconds": {"total": round(time.monotonic() - clock, 2)} | {k: round(v, 2) for k, v in result.seconds.items()},
        "updates": result.updates,
        "precision": result.precision,
        "machine": machine(result.device) | ({"processes": result.processes} if result.processes > 1 else {}),
        "versions": {name: version(name) for name in ("soi_lib", "torch", "transformers", "numpy", "pyarrow")},
    }

    def fill(out: Path) -> None:
        save_result(out, ready.splits, result, metrics)
        for member, corpus in ready.corpora.items() if isinstance(job, RunSpec) else ():
            if corpus.comparison == "user":
                save_trained_rows(out / "rows" / f"{member}.parquet", corpus, ready.splits[member]["train"])

    return store.write(job.key, manifest, fill)


def heading(job: Job) -> dict[str, Any]:
    """Return the part of a manifest that is known before training: what is trained, by which command and commit."""
    identity = job.identity()
    command = "soi second-stage" if "stage" in identity else "soi train"
    own = identity["comparison"] == "user"
    return {"identity": identity, "command": command if own else f"python -m paper run {job.key}", "commit": commit()}


def begin() -> tuple[str, float]:
    """Return the time as text, and the reading of a clock that never jumps."""
    return datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()


def version(package: str) -> str:
    """Return the version of an installed package, or "unknown"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def machine(device: dict[str, str]) -> dict[str, Any]:
    """Return what a run was trained on: processor, `device` (name and versions), Python, system; no hosts or paths."""
    return {"cpu": processor(), **device, "threads": 1, "python": platform.python_version(), "system": sys.platform}


@cache
def commit() -> str:
    """Return the commit of the checkout that the library runs from, with `+` if files differ from it, or "".

    On a machine that has the files but not their history, `$SOI_COMMIT` gives the commit.
    """
    if given := os.environ.get("SOI_COMMIT"):
        return given
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    sources = ("soi_lib", "paper", "data/packages.txt")
    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:  # installed inside somebody else's repository
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *sources)
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def save_result(out: Path, splits: dict[str, dict[str, Split]], result: TrainResult, metrics: dict[str, Any]) -> None:
    """Write the files of a run to `out`: dynamics and predictions of each member, metrics.json, log.jsonl.

    `dynamics/` holds evaluation mode if it was recorded, otherwise the training forward pass; if both were recorded,
    `dynamics-train/` holds the latter. log.jsonl has one line per epoch: its number from 0, the mean training loss of
    all examples (`loss`), and under `datasets`, for each dataset, train_loss, train_accuracy and, with validation
    examples, validation_loss and validation_accuracy; losses in nats.
    Predictions have one row per example and no texts.
    """
    import pandas as pd

    for name, found in (("dynamics", result.dynamics), ("dynamics-train", result.dynamics_train)):
        for member, dynamics in found.items():
            (out / name).mkdir(exist_ok=True)
            dynamics.save(out / name / f"{member}.parquet")
    (out / "predictions").mkdir()
    for member, predictions in result.predictions.items():
        parts = [
            pd.DataFrame(
                {
                    "split": name,
                    "id": splits[member][name].ids,
                    "gold": p.gold.astype(np.int16),
                    "predicted": p.predicted.astype(np.int16),
                    "p_gold": p.probabilities[np.arange(len(p.gold)), p.gold],
                }
            )
            for name, p in predictions.items()
        ]
        with files.replacing(out / "predictions" / f"{member}.parquet") as tmp:
            pd.concat(parts, ignore_index=True).to_parquet(tmp, compression="zstd", index=False)
    files.write_json(out / "metrics.json", metrics)
    log = ""
    for i, loss in enumerate(result.losses):
        curves = {m: {k: round(float(v[i]), 6) for k, v in c.items()} for m, c in result.curves.items()}
        log += json.dumps({"epoch": i, "loss": round(loss, 6), "datasets": curves}) + "\n"
    files.write_text(out / "log.jsonl", log)


def scores(predictions: Predictions) -> dict[str, float]:
    """Return the size, accuracy, macro-F1 and loss (nats) of predictions, as in metrics.json.

    For two classes, also the AUC of the probability of class 1 and the balanced accuracy, unless all examples are of
    one class.
    """
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    from soi_lib.data import baselines

    gold, predicted = predictions.gold, predictions.predicted
    found = baselines.scores(gold, predicted) | {"loss": predictions.loss}
    if predictions.probabilities.shape[1] == 2 and len(np.unique(gold)) == 2:
        found["auc"] = float(roc_auc_score(gold, predictions.probabilities[:, 1]))
        found["balanced_accuracy"] = float(balanced_accuracy_score(gold, predicted))
    return {name: round(value, 6) for name, value in found.items()}
