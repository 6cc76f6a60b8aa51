"""Doing one run: corpora and encoder in, a sealed folder of dynamics, predictions and metrics out.

Runs are trained on one thread each, so that their bits depend on the machine's kind and not on how many cores it
has; several runs share a machine side by side (see `reproduce`). On two cores that is a third faster than one run on
two threads.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from soi_lib import atomic
from soi_lib.analysis.categories import SOI, categorize
from soi_lib.analysis.statistics import accuracy, macro_f1
from soi_lib.corpora import load
from soi_lib.corpora.base import Corpus, Split
from soi_lib.experiments.plan import RunSpec
from soi_lib.experiments.store import RunStore, StoredRun

Progress = Callable[[str, int, int], None]
"""Called with the run's key, the epoch (from 0) and the number of training examples done since the last call."""

EVALUATED = ("test", "ood")


def do_run(
    spec: RunSpec, store: RunStore, *, progress: Progress | None = None, keep_weights: bool = False
) -> StoredRun:
    """Train `spec` unless `store` has it, and return the stored run. One process at a time does a given run.

    With `keep_weights` the final weights (float32, trimmed vocabulary) are kept beside the store's runs, for a second
    stage to start from.
    """
    with store.lock(spec.key):
        return store.get(spec.key) or _train_and_store(spec, store, progress, keep_weights)


def taken_splits(corpus: Corpus, spec: RunSpec) -> dict[str, Split]:
    """The part of a corpus that a run uses: train, test, ood (and further OOD sets as `ood:<name>`)."""
    splits = {
        "train": corpus.splits["train"].take(spec.data.train),
        "test": corpus.splits["test"].take(spec.data.evaluate),
        "ood": corpus.splits["ood"].take(spec.data.evaluate),
    }
    return splits | {f"ood:{name}": s.take(spec.data.evaluate) for name, s in sorted(corpus.extra_ood.items())}


def _train_and_store(spec: RunSpec, store: RunStore, progress: Progress | None, keep_weights: bool) -> StoredRun:
    import torch
    from safetensors.torch import save_file

    from soi_lib.corpora.baselines import baselines
    from soi_lib.encoders.sources import encoder_card, encoder_dir
    from soi_lib.encoders.vocabulary import load_trimmed, special_ids, tokenize, used_tokens
    from soi_lib.training.batching import encode
    from soi_lib.training.engine import TrainConfig, TrainMember, train

    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    torch.set_num_threads(1)
    corpora = {name: load(name) for name in spec.setting}
    splits = {name: taken_splits(corpus, spec) for name, corpus in corpora.items()}
    folder, card = encoder_dir(spec.encoder), encoder_card(spec.encoder)
    training = spec.training

    tokens = {
        (member, name): tokenize(
            folder, split.text, split.text_pair, max_length=training.max_length, prefix=card.prefix
        )
        for member, parts in splits.items()
        for name, split in parts.items()
    }
    used = used_tokens(*(t.ids for t in tokens.values()), special=special_ids(folder))
    encoder, id_map = load_trimmed(folder, used)
    model_config: Any = encoder.config
    members = [
        TrainMember(
            name=member,
            labels=corpora[member].labels,
            ids=parts["train"].ids,
            splits={n: encode(tokens[member, n], id_map, s.label, member=i) for n, s in parts.items()},
        )
        for i, (member, parts) in enumerate(splits.items())
    ]
    meta = {
        "comparison": spec.comparison,
        "setting": list(spec.setting),
        "seed": spec.seed,
        "profile": spec.key,
        "library_version": _version("soi_lib"),
        "commit": commit(),
    }
    config = TrainConfig(**training.model_dump(exclude={"max_length"}), seed=spec.seed)
    result = train(
        encoder,
        members,
        config,
        pad=int(model_config.pad_token_id),
        meta=meta,
        progress=None if progress is None else lambda epoch, n: progress(spec.key, epoch, n),
        checkpoint_path=store.checkpoint_path(spec.key),
        identity=spec.key,
    )
    metrics = {
        member: {
            "n": len(splits[member]["train"]),
            "soi": _counts(result.dynamics[member]),
            **{name: _scores(p) for name, p in result.predictions[member].items()},
            **baselines(corpora[member], spec.data.train, spec.data.evaluate),
            "tokens": {n: round(float(tokens[member, n].lengths.mean()), 2) for n in splits[member]},
            "truncated": {n: tokens[member, n].truncated for n in splits[member]},
        }
        for member in spec.setting
    }
    manifest = {
        "identity": spec.identity(),
        "command": f"soi run {spec.key}",
        "commit": meta["commit"],
        "started": started,
        "seconds": {"total": round(time.monotonic() - clock, 2)} | {k: round(v, 2) for k, v in result.seconds.items()},
        "updates": result.updates,
        "examples": sum(len(m.splits["train"]) for m in members),
        "precision": result.precision,
        "machine": machine(result.device),
        "versions": {name: _version(name) for name in ("soi_lib", "torch", "transformers", "numpy", "pyarrow")},
    }

    if keep_weights:
        with atomic.replacing(store.weights_path(spec.key)) as tmp:
            save_file({name: value.cpu().clone() for name, value in result.weights.items()}, tmp, {"key": spec.key})

    def fill(out: Path) -> None:
        for member in spec.setting:
            (out / "dynamics").mkdir(exist_ok=True)
            (out / "predictions").mkdir(exist_ok=True)
            result.dynamics[member].save(out / "dynamics" / f"{member}.parquet")
            _save_predictions(out / "predictions" / f"{member}.parquet", splits[member], result.predictions[member])
        atomic.write_json(out / "metrics.json", metrics)
        lines = [json.dumps({"epoch": i, "loss": round(x, 6)}) for i, x in enumerate(result.losses)]
        atomic.write_text(out / "log.jsonl", "\n".join(lines) + "\n")

    return store.write(spec.key, manifest, fill)


def _counts(dynamics: Any) -> dict[str, int]:
    codes = categorize(dynamics)
    return {soi.name: int((codes == soi).sum()) for soi in SOI}


def _scores(predictions: Any) -> dict[str, float | int]:
    gold, predicted = predictions.gold, predictions.predicted
    return {
        "n": len(gold),
        "accuracy": round(accuracy(gold, predicted), 6),
        "macro_f1": round(macro_f1(gold, predicted), 6),
        "loss": round(predictions.loss, 6),
    }


def _save_predictions(path: Path, splits: dict[str, Split], predictions: dict[str, Any]) -> None:
    """A row per evaluated example: what intervals over examples need. No texts."""
    import pandas as pd

    parts = []
    for name, p in predictions.items():
        gold = p.gold
        parts.append(
            pd.DataFrame(
                {
                    "split": name,
                    "id": splits[name].ids,
                    "gold": gold.astype(np.int16),
                    "predicted": p.predicted.astype(np.int16),
                    "p_gold": p.probabilities[np.arange(len(gold)), gold],
                }
            )
        )
    with atomic.replacing(path) as tmp:
        pd.concat(parts, ignore_index=True).to_parquet(tmp, compression="zstd", index=False)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of the checkout that the library runs from, with `+` when files differ from it; else empty."""
    root = Path(__file__).resolve().parents[2]
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        state = [
            "git",
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            "soi_lib",
            "profiles",
            "data/packages.txt",
        ]
        changed = subprocess.run(state, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def machine(device: str) -> dict[str, Any]:
    """What a run was done on: processor, device, Python, system. No names and no paths."""
    cpu = ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        cpu = platform.processor()
    return {"cpu": cpu, "device": device, "threads": 1, "python": platform.python_version(), "system": sys.platform}
