"""The training loop: one function, read in one sitting.

It trains a shared encoder on the examples of one or several members and records what each of them does. Nothing in
it depends on how many members there are: batches mix members by size, the heads are one matrix (see
`encoders.multitask`), every recorder sees its own rows. So a single- and a multi-member run differ in their data
only. All randomness (heads, order, dropout) is derived from `seed` and the epoch.

Several processes (`accelerate launch`) each take their share of every batch and add their gradients, so that an update
is the one that a single process makes, up to rounding and dropout masks. `processes` holds what they do together.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from soi_lib import distributed as processes
from soi_lib.dynamics import TrainingDynamics
from soi_lib.models.multitask import Heads, MultiTaskModel, derived_seed
from soi_lib.recorder import DynamicsRecorder, RecordingReport
from soi_lib.training import checkpoint, cpu, launch
from soi_lib.training.batching import Encoded, collate, epoch_batches, join, sorted_batches
from soi_lib.training.device import describe_device, kind_of, resolve_device, resolve_precision, torch_device
from soi_lib.training.optimizer import FlatParameters


@dataclass(frozen=True)
class TrainConfig:
    """Hyperparameters of a run; equal between the settings of a comparison.

    `warmup` is the share of updates with a rising learning rate, `clip` the largest gradient norm, `dropout` that of
    the heads (the encoder keeps its own). The heads learn `head_learning_rate_factor` times as fast as the encoder: a
    new head at the encoder's rate learns so slowly that confidence measures the number of updates, more than the
    example. It is the same in every setting. `record` says when predictions are taken: "train" in the training forward
    pass (free), "eval" in an extra pass in evaluation mode after each epoch, "both" in both of them. `precision` "auto"
    is bf16 where the device computes in it natively.
    """

    epochs: int = 6
    batch_size: int = 16
    learning_rate: float = 5e-5
    head_learning_rate_factor: float = 1.0
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    dropout: float = 0.1
    pooling: str = "mean"
    record: Literal["train", "eval", "both"] = "train"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    seed: int = 0


@dataclass(frozen=True)
class TrainMember:
    """The data of one member: label names, ids of its training examples, and token ids per split.

    `splits` holds "train" and any splits to evaluate at the end; "validation" also after every epoch.
    """

    name: str
    labels: tuple[str, ...]
    ids: np.ndarray
    splits: dict[str, Encoded]


@dataclass(frozen=True)
class Predictions:
    """Predictions on one split at the end of a run: probabilities (N, C) float32 and gold (N,) int64."""

    probabilities: np.ndarray
    gold: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class, (N,) int64."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return float((self.predicted == self.gold).mean())

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the gold labels, in nats."""
        p = self.probabilities[np.arange(len(self.gold)), self.gold].astype(np.float64)
        return float(-np.log(np.maximum(p, 1e-30)).mean())


@dataclass(frozen=True)
class Curve:
    """Mean loss (nats) and accuracy of one dataset after each epoch, (E,) each.

    `train_*` are of the training forward pass, over the epoch; `validation_*` in evaluation mode at its end, None for a
    dataset without validation examples.
    """

    train_loss: np.ndarray
    train_accuracy: np.ndarray
    validation_loss: np.ndarray | None = None
    validation_accuracy: np.ndarray | None = None


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves: dynamics and predictions per member, mean training loss per epoch, times, weights.

    `dynamics` are those of evaluation mode where it was recorded, and then `dynamics_train` those of the training
    forward pass where both were. Each of the `processes` that trained it gets the same, but for the times.
    """

    dynamics: dict[str, TrainingDynamics]
    dynamics_train: dict[str, TrainingDynamics]
    predictions: dict[str, dict[str, Predictions]]
    reports: dict[str, RecordingReport]
    losses: list[float]
    curves: dict[str, Curve]
    updates: int
    seconds: dict[str, float]
    device: dict[str, str]
    precision: str
    weights: dict[str, Tensor] = field(repr=False)
    processes: int = 1


Progress = Callable[[int, int], None]
"""Called after every batch with the epoch (from 0) and the number of training examples done, by all processes."""


def _rate(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of `total` updates, then linear decay to 0."""
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising)


def train(
    encoder: nn.Module,
    members: Sequence[TrainMember],
    config: TrainConfig,
    *,
    pad: int = 0,
    device: str = "auto",
    meta: dict[str, Any] | None = None,
    initial: dict[str, Tensor] | None = None,
    progress: Progress | None = None,
    checkpoint_path: Path | None = None,
    checkpoint_every: float = 60.0,
    identity: str = "",
    keep_logits: bool = False,
) -> TrainResult:
    """Train `encoder` with a head a member on all `members` together, recording every training example.

    `encoder` is changed in place; token ids in `members` must be those of its (trimmed) vocabulary and `pad` its
    padding id. `device` is a name for `soi_lib.training.device.resolve_device`. `initial` (named parameters, as in
    `TrainResult.weights`) starts from another run's weights. With a `checkpoint_path` the state is kept there at the
    first epoch end after every `checkpoint_every` seconds, and a later call with the same `identity`, kind of device,
    precision and number of processes continues from it to the same bits. With `keep_logits` the dynamics hold the
    logits of every example and epoch as well. Several processes all make the same call; the first one writes the
    checkpoint, all read it. Raises AlignmentError when their calls differ, SoiError when one of them stops.
    """
    target = _target(device)
    rank, count = processes.place()
    precision = resolve_precision(config.precision, target.type)
    identity = f"{identity} on {target.type} in {precision}" + (f" by {count} processes" if count > 1 else "")
    shape: Any = encoder.config
    heads = Heads(shape.hidden_size, [m.labels for m in members], dropout=config.dropout, seed=config.seed)
    model = MultiTaskModel(encoder, heads, pooling=config.pooling)
    if initial is not None:
        model.load_state_dict(initial, strict=True)
    model.to(target)
    if target.type == "cpu":
        cpu.make_fast(model)
    flat = FlatParameters(model, target, low_precision=precision == "bf16")
    optimizer = flat.optimizer(
        lr=config.learning_rate, weight_decay=config.weight_decay, head_factor=config.head_learning_rate_factor
    )

    data = join([m.splits["train"] for m in members])
    bounds = np.cumsum([0, *(len(m.splits["train"]) for m in members)])
    # the training forward pass is always recorded: the training curves come from it
    recorders = {
        mode: {
            m.name: DynamicsRecorder(
                m.ids.tolist(),
                m.splits["train"].gold,
                len(m.labels),
                device=target,
                keep_logits=keep_logits,
                meta={**(meta or {}), "member": m.name, "label_names": list(m.labels), "record": mode},
            )
            for m in members
        }
        for mode in (("train",) if config.record == "train" else ("train", "eval"))
    }
    every = {f"{mode}:{name}": recorder for mode, held in recorders.items() for name, recorder in held.items()}
    per_epoch = -(-len(data) // config.batch_size)
    total = per_epoch * config.epochs
    seconds = {"train": 0.0, "record": 0.0, "evaluate": 0.0, "checkpoint": 0.0}
    losses: list[float] = []
    validation: list[list[tuple[float, float]]] = []  # loss and accuracy by epoch and member
    first = 0
    state = checkpoint.load(checkpoint_path, identity) if checkpoint_path else None
    if state is not None:
        first = state.epoch
        flat.master.copy_(state.tensors["master"])
        _restore_moments(optimizer, state.tensors, step=first * per_epoch)
        losses = state.tensors["losses"].tolist()
        validation = state.tensors["validation"].tolist()
        for name, recorder in every.items():
            recorder.restore(state.recorders[name])
        if progress:
            progress(first - 1, first * len(data))
    if count > 1:
        processes.begin(
            flat.master,
            configuration=(config, precision, pad, keep_logits),
            members=[(m.name, m.labels, recorders["train"][m.name].mark) for m in members],
            texts=hashlib.sha256(data.token.tobytes() + data.offset.tobytes()).digest(),
            checkpoint=(checkpoint_path is None, first),
        )
    flat.publish()

    saved = time.monotonic()
    for epoch in range(first, config.epochs):
        start = time.monotonic()
        model.train()
        masks = derived_seed(config.seed, "dropout", epoch, *([rank] if rank else []))
        torch.manual_seed(masks)
        cpu.seed_dropout(masks)
        summed = torch.zeros((), device=target)
        batches = epoch_batches(data.lengths, config.batch_size, seed=config.seed, epoch=epoch)
        for i, index in enumerate(batches):
            mine = processes.share(index)
            if len(mine):
                batch = _to(collate(data, mine, pad=pad), target)
                logits = model(batch, batch["member"])
                column = batch["gold"] + heads.offset[batch["member"]]
                loss = functional.cross_entropy(logits, column)
                loss.backward()
                summed += loss.detach() * len(mine)
                _record(recorders["train"], members, heads, bounds, mine, logits)
            processes.average(flat.collect(), len(mine) / len(index))
            flat.clip(config.clip)
            rate = config.learning_rate * _rate(epoch * per_epoch + i, total, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.step()
            flat.publish()
            if progress:
                progress(epoch, len(index))
        processes.add(summed)
        losses.append(float(summed) / len(data))
        seconds["train"] += time.monotonic() - start
        if "eval" in recorders:
            start = time.monotonic()
            for index, logits in _forward(model, data, pad=pad, device=target):
                _record(recorders["eval"], members, heads, bounds, index, logits)
            seconds["record"] += time.monotonic() - start
        for recorder in every.values():
            recorder.end_epoch()
        start = time.monotonic()
        validation.append([_validated(model, m, heads.columns[i], pad, target) for i, m in enumerate(members)])
        seconds["evaluate"] += time.monotonic() - start
        last = epoch == config.epochs - 1
        due = time.monotonic() - saved >= checkpoint_every
        if checkpoint_path and not last and processes.first_says(due, target):
            start = time.monotonic()
            tensors = {"master": flat.master, "losses": torch.tensor(losses, dtype=torch.float64)}
            tensors |= _moments(optimizer) | {"validation": torch.tensor(validation, dtype=torch.float64)}
            held = {name: recorder.state() for name, recorder in every.items()}
            if rank == 0:
                checkpoint.save(checkpoint_path, identity, checkpoint.State(epoch + 1, tensors, held))
            saved = time.monotonic()
            seconds["checkpoint"] += saved - start

    start = time.monotonic()
    predictions = {
        m.name: {
            split: predict(model, encoded, heads.columns[i], pad=pad, device=target)
            for split, encoded in m.splits.items()
            if split != "train"
        }
        for i, m in enumerate(members)
    }
    seconds["evaluate"] += time.monotonic() - start
    dynamics = {mode: {name: r.finish() for name, r in held.items()} for mode, held in recorders.items()}
    return TrainResult(
        dynamics=dynamics["train" if config.record == "train" else "eval"],
        dynamics_train=dynamics["train"] if config.record == "both" else {},
        predictions=predictions,
        reports={name: recorder.report for name, recorder in recorders["train"].items()},
        losses=losses,
        curves=_curves(dynamics["train"], validation),
        updates=total,
        seconds=seconds,
        device=describe_device(target),
        precision=precision,
        weights=flat.named_master(),
        processes=count,
    )


def _target(name: str) -> torch.device:
    """The device to train on; of several processes that were launched together each has its own."""
    device = resolve_device(name)
    if not launch.several():
        return torch_device(device)
    from accelerate import Accelerator

    return Accelerator(cpu=kind_of(device) == "cpu").device


def _validated(
    model: nn.Module, member: TrainMember, columns: slice, pad: int, device: torch.device
) -> tuple[float, float]:
    """Loss and accuracy on the validation examples of a member; NaN where it has none."""
    if "validation" not in member.splits:
        return math.nan, math.nan
    found = predict(model, member.splits["validation"], columns, pad=pad, device=device)
    return found.loss, found.accuracy


def _curves(dynamics: dict[str, TrainingDynamics], validation: list[list[tuple[float, float]]]) -> dict[str, Curve]:
    """The curves of every member: from the dynamics of the training forward pass, and `validation` (E, members, 2)."""
    held = np.array(validation)
    curves = {}
    for i, (name, dyn) in enumerate(dynamics.items()):
        losses = -np.log(np.maximum(dyn.p_gold.astype(np.float64), 1e-30))
        known = () if np.isnan(held[:, i]).any() else (held[:, i, 0], held[:, i, 1])
        curves[name] = Curve(losses.mean(1), dyn.correct.mean(1), *known)
    return curves


def predict(
    model: nn.Module, data: Encoded, columns: slice, *, pad: int, device: torch.device, batch_size: int = 64
) -> Predictions:
    """Predictions of one member's head on `data`, in evaluation mode; several processes call it together."""
    probabilities = np.zeros((len(data), columns.stop - columns.start), dtype=np.float32)
    for index, logits in _forward(model, data, pad=pad, device=device, batch_size=batch_size):
        probabilities[index] = logits[:, columns].softmax(1).cpu().numpy()
    processes.add(torch.from_numpy(probabilities))
    return Predictions(probabilities, data.gold)


@torch.no_grad()
def _forward(model: nn.Module, data: Encoded, *, pad: int, device: torch.device, batch_size: int = 64) -> Any:
    """Yield (index, logits) over this process's part of `data` in evaluation mode."""
    model.eval()
    for index in processes.deal(sorted_batches(data.lengths, batch_size)):
        batch = _to(collate(data, index, pad=pad), device)
        yield index, model(batch, batch["member"])


def _record(
    recorders: dict[str, DynamicsRecorder],
    members: Sequence[TrainMember],
    heads: Heads,
    bounds: np.ndarray,
    index: np.ndarray,
    logits: Tensor,
) -> None:
    """Give every recorder the rows of the batch that are its own, in the columns of its head."""
    owner = np.searchsorted(bounds, index, side="right") - 1
    for i in np.unique(owner):
        rows = np.flatnonzero(owner == i)
        place = torch.from_numpy(index[rows] - bounds[i]).to(logits.device, non_blocking=True)
        own = logits.detach() if len(rows) == len(index) else logits.detach()[torch.from_numpy(rows)]
        recorders[members[i].name].update_at(place, own[:, heads.columns[i]])


def _to(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return (
        batch
        if device.type == "cpu"
        else {k: v if k == "padded" else v.to(device, non_blocking=True) for k, v in batch.items()}
    )


def _moments(optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Both moments of every parameter slice, by position."""
    flat = [p for group in optimizer.param_groups for p in group["params"]]
    return {f"{key}/{i}": optimizer.state[p][key] for i, p in enumerate(flat) for key in ("exp_avg", "exp_avg_sq")}


def _restore_moments(optimizer: torch.optim.AdamW, tensors: dict[str, Tensor], *, step: int) -> None:
    for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        optimizer.state[p] = {
            "step": torch.tensor(float(step), device=p.device),
            "exp_avg": tensors[f"exp_avg/{i}"].to(p.device),
            "exp_avg_sq": tensors[f"exp_avg_sq/{i}"].to(p.device),
        }
