"""Small trainings, executed in one process by tests and in two by test_processes, which launches this file."""

import os
import signal
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

from soi_lib.errors import AlignmentError, SoiError
from soi_lib.recorder import DynamicsRecorder
from soi_lib.training.batching import Encoded
from soi_lib.training.checkpoint import Checkpoint
from soi_lib.training.engine import TrainConfig, TrainMember, train
from soi_lib.training.outcome import TrainResult

WORDS = 2000
QUIET = TrainConfig(epochs=2, batch_size=7, learning_rate=1e-3, dropout=0.0, precision="fp32", seed=3)
NOISY = TrainConfig(epochs=3, batch_size=8, learning_rate=1e-3, dropout=0.1, seed=4)


def encoded(texts: Sequence[str], gold: np.ndarray, member: int = 0) -> Encoded:
    """Encode the first 30 words of each text as one of `WORDS` numbers."""
    rows = [[1, *(2 + zlib.crc32(w.encode()) % (WORDS - 2) for w in text.lower().split()[:30])] for text in texts]
    offset = np.cumsum([0, *map(len, rows)])
    owner = np.full(len(rows), member, dtype=np.int64)
    return Encoded(np.concatenate(rows).astype(np.int64), None, offset, gold.astype(np.int64), owner)


def made(n: int, classes: int, member: int) -> TrainMember:
    """A dataset of n training texts and half as many test texts, of very different lengths."""
    rng = np.random.default_rng([n, classes, member])

    def texts(k: int) -> list[str]:
        return [" ".join(f"w{i}" for i in rng.integers(0, 300, rng.integers(1, 20))) for _ in range(k)]

    splits = {k: encoded(texts(m), rng.integers(0, classes, m), member) for k, m in (("train", n), ("test", n // 2))}
    labels = tuple(f"m{member}c{i}" for i in range(classes))
    return TrainMember(f"m{member}", labels, np.array([f"{member}/{i}" for i in range(n)], dtype=object), splits)


def bert(dropout: float = 0.0, **changes: object) -> BertModel:
    torch.manual_seed(0)
    shape = {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 64, "max_position_embeddings": 64}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertModel(BertConfig(**shape, **rates, **changes), add_pooling_layer=False)


def done(config: TrainConfig, members: Sequence[TrainMember], *, dropout: float = 0.0, **more: object) -> TrainResult:
    return train(bert(dropout), members, config, **more)


def values(result: TrainResult) -> dict[str, np.ndarray]:
    """All results of a training except times."""
    out = {f"weights/{name}": w.numpy() for name, w in result.weights.items()}
    out |= {"losses": np.array(result.losses), "processes": np.array(result.processes)}
    for name, dyn in result.dynamics.items():
        out |= {f"{name}/ids": dyn.ids.astype(str), f"{name}/gold": dyn.gold, f"{name}/p": dyn.p_gold}
        out |= {f"{name}/correct": dyn.correct, f"{name}/predictions": result.predictions[name]["test"].probabilities}
        out[f"{name}/repeated"] = np.array(dyn.meta.extra.get("recorded_repeated", 0))
    return out


def both() -> list[TrainMember]:
    """Two datasets with different labels, one of them small."""
    return [made(25, 2, 0), made(6, 3, 1)]


def twins() -> list[TrainMember]:
    """Two examples with the same text: in the first batch only dropout differs."""
    data = encoded(["one and the same"] * 2, np.array([0, 0]))
    return [TrainMember("twins", ("a", "b"), np.array(["x", "y"], dtype=object), {"train": data, "test": data})]


def presented(n: int, classes: int, epochs: int, ranks: int = 1) -> list[list[list[tuple[np.ndarray, np.ndarray]]]]:
    """Batches with repeated examples: [epoch][step][rank] -> (rows, logits)."""
    rng = np.random.default_rng(0)

    def batch(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = rng.normal(size=(len(rows), classes)).astype(np.float32) * 3
        logits[0, 0] = -0.0  # its sign must be kept too
        return rows, logits

    out = []
    for _ in range(epochs):
        order = np.concatenate([rng.permutation(n), rng.integers(0, n, 23)])
        out.append([[batch(r) for r in np.array_split(part, ranks)] for part in np.array_split(order, 7)])
    return out


def recorded(rank: int | None) -> dict[str, np.ndarray]:
    """Record three epochs of the batches of this process (None: of both).

    In the last epoch example 17 is missing, and process 1 has fewer batches.
    """

    def recorder() -> DynamicsRecorder:
        return DynamicsRecorder(range(50), np.random.default_rng(1).integers(0, 4, 50), keep_logits=True)

    rec = recorder()
    for e, steps in enumerate(presented(50, 4, 3, ranks=2)):
        for s, parts in enumerate(steps):
            if (e, s) == (1, 4):  # stop in the middle of an epoch and continue
                state, rec = rec.state(), recorder()
                rec.restore(state)
            if e == 2:
                parts = [(rows[rows != 17], logits[rows != 17]) for rows, logits in parts[: 1 if s > 4 else 2]]
            if mine := parts if rank is None else parts[rank : rank + 1]:
                rows, logits = (np.concatenate(values) for values in zip(*mine, strict=True))
                rec.update(rows, torch.from_numpy(logits))
        rec.end_epoch()
    dyn, report = rec.finish(), rec.report
    counts = np.array([report.kept, report.repeated, *report.missing])
    return {"ids": dyn.ids, "p": dyn.p_gold, "correct": dyn.correct, "logits": dyn.logits, "report": counts}


class Stopped(Exception):
    """The training was stopped on purpose."""


def main(folder: Path) -> None:
    """Train everything in the launched processes; each saves its results in `folder`."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    kept: dict[str, np.ndarray] = {}

    def keep(name: str, result: TrainResult) -> None:
        kept.update({f"{name}/{key}": value for key, value in values(result).items()})

    keep("quiet", done(QUIET, [made(60, 3, 0)]))
    keep("twins", done(replace(QUIET, batch_size=2), twins(), dropout=0.5))
    keep("noisy", done(NOISY, both(), dropout=0.1))
    checkpoint = Checkpoint(folder / "state.safetensors", "x")
    seen: list[tuple[int, int]] = []

    def stop(epoch: int, n: int) -> None:
        if epoch == 2:
            raise Stopped

    Checkpoint.every = 0.0
    try:
        done(NOISY, both(), dropout=0.1, progress=stop, checkpoint=checkpoint)
    except Stopped:
        kept["stopped"] = np.array(checkpoint.path.exists())
    resumed = done(NOISY, both(), dropout=0.1, checkpoint=checkpoint, progress=lambda e, n: seen.append((e, n)))
    keep("resumed", resumed)
    kept["seen"] = np.array(seen)

    try:
        done(replace(QUIET, seed=rank), [made(8, 2, rank)])
    except AlignmentError as error:
        kept["refused"] = np.array(str(error))
    kept.update({f"recorder/{key}": value for key, value in recorded(rank).items()})
    other = DynamicsRecorder([1, 2 + rank], [0, 1])
    other.update([1], torch.zeros(1, 2))
    try:
        other.end_epoch()
    except AlignmentError as error:
        kept["refused to record"] = np.array(str(error))
    grid(folder)
    np.savez(folder / f"out{rank}.npz", **kept)

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher sends it as soon as the other process ends

    def die(epoch: int, n: int) -> None:
        if rank == 1 and epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    start = time.monotonic()
    try:
        done(QUIET, [made(60, 3, 0)], progress=die)
    except SoiError as error:
        (folder / "left").write_text(f"{time.monotonic() - start:.1f}\n{error}", encoding="utf-8")


def grid(folder: Path) -> None:
    """Train a run of a profile in all processes, then find it in the store."""
    from soi_lib.runs.config import load_profile
    from soi_lib.runs.run import do_run
    from soi_lib.runs.spec import plan
    from soi_lib.runs.store import RunStore

    (spec,) = plan(load_profile(folder / "tiny.yaml"), only=["lingual"])
    store = RunStore(folder / "runs")
    first = do_run(replace(spec, keep_weights=True), store)
    again = do_run(replace(spec, keep_weights=True), store)
    assert first.manifest == again.manifest


if __name__ == "__main__":
    main(Path(sys.argv[1]))
