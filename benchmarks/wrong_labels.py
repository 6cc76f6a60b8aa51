"""Measure how well wrong labels are found: flip some labels, train, rank the examples, and score the ranking.

    .venv/bin/python benchmarks/wrong_labels.py                  # everything; can be interrupted and continued
    .venv/bin/python benchmarks/wrong_labels.py --examples 100 --epochs 2 --seeds 0 --folds 2 --out try.json

For each corpus, rate of flipped labels and seed, there is one training with recording for all rules of
`soi_lib.analysis.label_issues` (the area under the margin of Pleiss et al. 2020 is the rule "margin"), and K trainings
on all but a K-th of the examples; their predictions on the held-out K-th are the input of cleanlab. All use the same
encoder, examples and hyperparameters. Results are kept under `--work` by a key of everything that determines them, so
nothing is trained twice; calls with different --corpora or --seeds can run in parallel, followed by one call with all
of them. The scores are average precision, and the recall among as many top examples as labels were flipped, as means
over seeds with 95 % intervals (Student's t). Our default rule was chosen on flips that are not part of the report:
--seeds 100 --rates 0.1 --examples 400 --folds 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import average_precision_score
from tqdm.auto import tqdm

from paper.datasets.flipped import flip
from soi_lib import TrainingDynamics, files
from soi_lib.analysis.label_issues import DEFAULT_RULE, RULES, label_issues

ROOT = Path(__file__).resolve().parent.parent
ENCODER = {"en": "e5", "fr": "e5", "fa": "e5"}
TRAINING = {"batch_size": 16, "learning_rate": 1e-4}
OURS = DEFAULT_RULE
"""The rule that the other methods are compared with."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=["sentiment", "paraphrase", "en"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.05, 0.1, 0.2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--folds", type=int, default=3, help="cross-validation folds; 0 omits cleanlab")
    parser.add_argument("--work", type=Path, default=ROOT / "_build" / "wrong_labels")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "wrong_labels.json")
    return parser.parse_args()


def main() -> int:
    given = options()
    cells = [(c, rate, seed) for c in given.corpora for rate in given.rates for seed in given.seeds]
    todo = [job for cell in cells for job in jobs(given, *cell) if not path_of(given, job).exists()]
    print(f"{len(todo)} trainings to do", file=sys.stderr)
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()
    with tqdm(
        total=sum(examples_of(job) for job in todo), unit=" examples", unit_scale=True, dynamic_ncols=True
    ) as bar:
        for job in todo:
            bar.set_description(f"{job['corpus']} {job['rate']:.0%} seed {job['seed']} {job['part']}")
            do(given, job, bar.update)
    spent = time.monotonic() - started
    rankings = {cell: ranked(given, *cell) for cell in tqdm(cells, desc="rank", dynamic_ncols=True)}
    report = summary(given, rankings)
    report["seconds_of_this_call"] = round(spent, 1)
    files.write_json(given.out, report)
    show(report)
    print(given.out)
    return 0


# --- trainings --------------------------------------------------------------------------------------------------------


def jobs(given: argparse.Namespace, corpus: str, rate: float, seed: int) -> list[dict[str, Any]]:
    """Return the trainings of one cell: one on all examples, and one per fold."""
    common = {"corpus": corpus, "rate": rate, "seed": seed, "examples": given.examples, "epochs": given.epochs}
    parts = ["all", *(f"fold {k + 1} of {given.folds}" for k in range(given.folds))]
    return [common | {"part": part, "folds": given.folds if part != "all" else 0, **TRAINING} for part in parts]


def examples_of(job: dict[str, Any]) -> int:
    """Return about how many examples a training processes, summed over epochs."""
    share = 1.0 if job["part"] == "all" else 1 - 1 / job["folds"]
    return round(job["examples"] * job["epochs"] * share)


def path_of(given: argparse.Namespace, job: dict[str, Any]) -> Path:
    """Return the file of a training's result: dynamics with logits, or probabilities of a fold's held-out examples."""
    from soi_lib.training import ENGINE_VERSION

    corpus = job["corpus"]
    identity = job | {
        "corpus_fingerprint": corpus_of(corpus).fingerprint,
        "encoder": encoder_of(corpus)[2],
        "engine": ENGINE_VERSION,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]
    return given.work / f"{key}.{'parquet' if job['part'] == 'all' else 'npy'}"


@lru_cache
def encoder_of(corpus: str) -> tuple[Path, str, str]:
    """Return the folder, the prefix and the fingerprint of the encoder for a corpus."""
    from soi_lib.models.encoder import encoder_card, encoder_dir, fingerprint

    name = ENCODER.get(corpus, "minilm")
    return encoder_dir(name), encoder_card(name).prefix, fingerprint(encoder_dir(name))


@lru_cache
def corpus_of(name: str) -> Any:
    from paper.datasets import load

    return load(name)


def flipped(corpus: str, examples: int, rate: float, seed: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the training examples, their labels of which some are flipped, and which are."""
    split = corpus_of(corpus).splits["train"].take(examples)
    return split, *flip(split.label.astype(np.int64), len(corpus_of(corpus).labels), rate, seed)


def folds_of(labels: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels))


def do(given: argparse.Namespace, job: dict[str, Any], progress: Callable[[int], Any]) -> None:
    """Train on all examples, recording logits, or on those outside a fold, and save the file of `path_of`."""
    from soi_lib.models.vocabulary import load_trimmed, tokenize
    from soi_lib.training import engine
    from soi_lib.training.batching import encode

    corpus, path = job["corpus"], path_of(given, job)
    split, labels, _ = flipped(corpus, job["examples"], job["rate"], job["seed"])
    parts = {"train": np.arange(len(split))}
    if job["folds"]:
        number = int(job["part"].split()[1]) - 1
        parts = dict(zip(("train", "rest"), folds_of(labels, job["folds"], job["seed"])[number], strict=True))
    folder, prefix, _ = encoder_of(corpus)

    def tokens(rows: np.ndarray) -> Any:
        pair = None if split.text_pair is None else [split.text_pair[i] for i in rows]
        return tokenize(folder, [split.text[i] for i in rows], pair, max_length=128, prefix=prefix)

    made = {name: tokens(rows) for name, rows in parts.items()}
    model, id_map = load_trimmed(folder, [t.ids for t in made.values()])
    member = engine.TrainMember(
        name=corpus,
        labels=corpus_of(corpus).labels,
        ids=split.ids[parts["train"]],
        splits={name: encode(made[name], id_map, labels[rows], member=0) for name, rows in parts.items()},
    )
    config = engine.TrainConfig(epochs=job["epochs"], seed=job["seed"], keep_logits=True, **TRAINING)
    result = engine.train(model, [member], config, progress=lambda _, n: progress(n))
    if job["folds"]:
        with files.replacing(path) as tmp, open(tmp, "wb") as handle:
            np.save(handle, result.predictions[corpus]["rest"].probabilities, allow_pickle=False)
    else:
        result.dynamics[corpus].save(path, overwrite=True)


# --- rankings ---------------------------------------------------------------------------------------------------------


def ranked(given: argparse.Namespace, corpus: str, rate: float, seed: int) -> dict[str, Any]:
    """Return the flipped examples of one cell, and each method's ranking of all rows, most suspicious first."""
    split, labels, wrong = flipped(corpus, given.examples, rate, seed)
    whole, *parts = jobs(given, corpus, rate, seed)
    dynamics = TrainingDynamics.load(path_of(given, whole))
    assert np.array_equal(dynamics.gold, labels)
    place = {key: row for row, key in enumerate(split.ids)}
    orders = {rule: np.array([place[i] for i in label_issues(dynamics, rule)["id"]]) for rule in RULES}
    if not parts:
        return {"wrong": wrong, "orders": orders}
    held_out = np.full((len(split), len(corpus_of(corpus).labels)), np.nan, dtype=np.float64)
    for (_, outside), part in zip(folds_of(labels, given.folds, seed), parts, strict=True):
        held_out[outside] = np.load(path_of(given, part), allow_pickle=False)
    return {"wrong": wrong, "orders": orders | by_cleanlab(labels, held_out)}


def by_cleanlab(labels: np.ndarray, held_out: np.ndarray) -> dict[str, np.ndarray]:
    """Return cleanlab's rankings from out-of-fold probabilities: by quality, and with its label issues first."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    held_out = held_out / held_out.sum(1, keepdims=True)
    out = {}
    for method in ("self_confidence", "normalized_margin"):
        quality = get_label_quality_scores(labels, held_out, method=method)
        out[f"cleanlab {method.replace('_', ' ')}"] = np.argsort(quality, kind="stable")
    by_quality = out["cleanlab self confidence"]
    issues = find_label_issues(labels, held_out, return_indices_ranked_by="self_confidence", n_jobs=1)
    rest = by_quality[~np.isin(by_quality, issues)]
    return out | {"cleanlab find_label_issues": np.concatenate([issues, rest]).astype(np.int64)}


def scores(order: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Return the average precision of a ranking, and its recall at the number of wrong labels."""
    hits = wrong[order]
    precision = average_precision_score(hits, -np.arange(len(hits)))
    return {"average_precision": float(precision), "recall": float(hits[: hits.sum()].mean())}


def interval(values: pd.Series) -> dict[str, Any]:
    """Return the mean over seeds with its 95 % interval (Student's t); no interval for one seed."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None
    low, high = (None, None) if half is None else (round(mean - half, 4), round(mean + half, 4))
    return {"mean": round(mean, 4), "low": low, "high": high, "seeds": [round(v, 4) for v in values]}


def summary(given: argparse.Namespace, rankings: dict[Any, Any]) -> dict[str, Any]:
    """Return the report: every cell, the means over cells, and the differences from our rule by seed."""
    from soi_lib.runs.run import commit, machine, version

    measured = pd.DataFrame(
        [
            dict(zip(("corpus", "rate", "seed"), cell, strict=True), method=method) | scores(order, found["wrong"])
            for cell, found in rankings.items()
            for method, order in found["orders"].items()
        ]
    )
    names = ["average_precision", "recall"]
    keys = ["corpus", "rate", "method"]
    rows = [
        dict(zip(keys, cell, strict=True)) | {name: interval(part[name]) for name in names}
        for cell, part in measured.groupby(keys, sort=False)
    ]
    means = measured.groupby(["method", "seed"], sort=False)[names].mean()
    overall = []
    for method in measured["method"].unique():
        row = {"method": method}
        for name in names:
            row[name] = interval(means.loc[method][name])
            row[f"{OURS} minus it, {name}"] = interval((means.loc[OURS] - means.loc[method])[name])
        overall.append(row)
    overall.sort(key=lambda row: -row["average_precision"]["mean"])
    sizes = {k: getattr(given, k) for k in ("corpora", "rates", "seeds", "examples", "epochs", "folds")}
    words = [f"--{k} {' '.join(map(str, v if isinstance(v, list) else [v]))}" for k, v in sizes.items()]
    return {
        "command": f".venv/bin/python benchmarks/wrong_labels.py {' '.join(words)}",
        "commit": commit(),
        "machine": machine({"device": "cpu"}),
        "versions": {name: version(name) for name in ("soi_lib", "torch", "transformers", "numpy", "cleanlab")},
        "training": TRAINING | {"encoders": {c: ENCODER.get(c, "minilm") for c in given.corpora}},
        **sizes,
        "chance": "average precision and recall of a random ranking are about the rate",
        "ours": OURS,
        "rows": rows,
        "overall": overall,
    }


def show(report: dict[str, Any]) -> None:
    """Print the means as a table."""

    def cell(value: dict[str, Any]) -> str:
        return f"{value['mean']:.3f}" + ("" if value["low"] is None else f" [{value['low']:.3f}, {value['high']:.3f}]")

    for row in report["overall"]:
        print(f"{row['method']:28} AP {cell(row['average_precision'])}  recall {cell(row['recall'])}")


if __name__ == "__main__":
    sys.exit(main())
