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
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from soi_lib import distributed as processes
from soi_lib.dynamics import TrainingDynamics
from soi_lib.models.multitask import Heads, MultiTaskModel, derived_seed
from soi_lib.recorder import DynamicsRecorder, RecordingReport
from soi_lib.training import checkpoint, cpu
from soi_lib.training.batching import Encoded, collate, epoch_batches, join, sorted_batches
from soi_lib.training.optimizer import FlatParameters


@dataclass(frozen=True)
class TrainConfig:
    """Hyperparameters of a run; equal between the settings of a comparison.

    `warmup` is the share of updates with a rising learning rate, `clip` the largest gradient norm, `dropout` that of
    the heads (the encoder keeps its own). `record` says when predictions are taken: in the training forward pass
    (free) or in an extra pass in evaluation mode after each epoch. `precision` "auto" is bf16 where the device
    computes in it natively.
    """

    epochs: int = 6
    batch_size: int = 16
    learning_rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    dropout: float = 0.1
    pooling: str = "mean"
    record: Literal["train", "eval"] = "train"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    seed: int = 0


@dataclass(frozen=True)
class TrainMember:
    """The data of one member: label names, ids of its training examples, and token ids per split.

    `splits` holds "train" and any splits to evaluate at the end.
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
    def loss(self) -> float:
        """Mean negative log-likelihood of the gold labels, in nats."""
        p = self.probabilities[np.arange(len(self.gold)), self.gold].astype(np.float64)
        return float(-np.log(np.maximum(p, 1e-30)).mean())


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves: dynamics and predictions per member, mean training loss per epoch, times, weights.

    Each of the `processes` that trained it gets the same, but for the times.
    """

    dynamics: dict[str, TrainingDynamics]
    predictions: dict[str, dict[str, Predictions]]
    reports: dict[str, RecordingReport]
    losses: list[float]
    updates: int
    seconds: dict[str, float]
    device: str
    precision: str
    weights: dict[str, Tensor] = field(repr=False)
    processes: int = 1


Progress = Callable[[int, int], None]
"""Called after every batch with the epoch (from 0) and the number of training examples done, by all processes."""


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision that "auto" stands for on `device`: bf16 where it is computed natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


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
    padding id. `initial` (named parameters, as in `TrainResult.weights`) starts from another run's weights. With a
    `checkpoint_path` the state is kept there at the first epoch end after every `checkpoint_every` seconds, and a
    later call with the same `identity` and as many processes continues from it to the same bits. With `keep_logits`
    the dynamics hold the logits of every example and epoch as well. Several processes all make the same call; the
    first one writes the checkpoint, all read it. Raises AlignmentError when their calls differ, SoiError when one of
    them stops.
    """
    accelerator = Accelerator()
    device = accelerator.device
    rank, count = processes.place()
    identity = identity if count == 1 else f"{identity} by {count} processes"
    precision = resolve_precision(config.precision, device)
    shape: Any = encoder.config
    heads = Heads(shape.hidden_size, [m.labels for m in members], dropout=config.dropout, seed=config.seed)
    model = MultiTaskModel(encoder, heads, pooling=config.pooling)
    if initial is not None:
        model.load_state_dict(initial, strict=True)
    model.to(device)
    if device.type == "cpu":
        cpu.make_fast(model)
    flat = FlatParameters(model, device, low_precision=precision == "bf16")
    optimizer = flat.optimizer(lr=config.learning_rate, weight_decay=config.weight_decay)

    data = join([m.splits["train"] for m in members])
    bounds = np.cumsum([0, *(len(m.splits["train"]) for m in members)])
    recorders = {
        m.name: DynamicsRecorder(
            m.ids.tolist(),
            m.splits["train"].gold,
            len(m.labels),
            device=device,
            keep_logits=keep_logits,
            meta={**(meta or {}), "member": m.name, "label_names": list(m.labels), "record": config.record},
        )
        for m in members
    }
    per_epoch = -(-len(data) // config.batch_size)
    total = per_epoch * config.epochs
    seconds = {"train": 0.0, "record": 0.0, "evaluate": 0.0, "checkpoint": 0.0}
    losses: list[float] = []
    first = 0
    state = checkpoint.load(checkpoint_path, identity) if checkpoint_path else None
    if state is not None:
        first = state.epoch
        flat.master.copy_(state.tensors["master"])
        _restore_moments(optimizer, state.tensors, step=first * per_epoch)
        losses = state.tensors["losses"].tolist()
        for name, recorder in recorders.items():
            recorder.restore(state.recorders[name])
        if progress:
            progress(first - 1, first * len(data))
    if count > 1:
        processes.begin(
            flat.master,
            configuration=(config, precision, pad, keep_logits),
            members=[(name, m.labels, recorders[name].mark) for name, m in zip(recorders, members, strict=True)],
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
        summed = torch.zeros((), device=device)
        batches = epoch_batches(data.lengths, config.batch_size, seed=config.seed, epoch=epoch)
        for i, index in enumerate(batches):
            mine = processes.share(index)
            if len(mine):
                batch = _to(collate(data, mine, pad=pad), device)
                logits = model(batch, batch["member"])
                target = batch["gold"] + heads.offset[batch["member"]]
                loss = functional.cross_entropy(logits, target)
                loss.backward()
                summed += loss.detach() * len(mine)
                if config.record == "train":
                    _record(recorders, members, heads, bounds, mine, logits)
            processes.average(flat.collect(), len(mine) / len(index))
            flat.clip(config.clip)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _rate(epoch * per_epoch + i, total, config.warmup)
            optimizer.step()
            flat.publish()
            if progress:
                progress(epoch, len(index))
        processes.add(summed)
        losses.append(float(summed) / len(data))
        seconds["train"] += time.monotonic() - start
        if config.record == "eval":
            start = time.monotonic()
            for index, logits in _forward(model, data, pad=pad, device=device):
                _record(recorders, members, heads, bounds, index, logits)
            seconds["record"] += time.monotonic() - start
        for recorder in recorders.values():
            recorder.end_epoch()
        last = epoch == config.epochs - 1
        due = time.monotonic() - saved >= checkpoint_every
        if checkpoint_path and not last and processes.first_says(due, device):
            start = time.monotonic()
            tensors = {"master": flat.master, "losses": torch.tensor(losses, dtype=torch.float64)}
            tensors |= _moments(optimizer)
            held = {name: recorder.state() for name, recorder in recorders.items()}
            if rank == 0:
                checkpoint.save(checkpoint_path, identity, checkpoint.State(epoch + 1, tensors, held))
            saved = time.monotonic()
            seconds["checkpoint"] += saved - start

    start = time.monotonic()
    predictions = {
        m.name: {
            split: predict(model, encoded, heads.columns[i], pad=pad, device=device)
            for split, encoded in m.splits.items()
            if split != "train"
        }
        for i, m in enumerate(members)
    }
    seconds["evaluate"] = time.monotonic() - start
    return TrainResult(
        dynamics={name: recorder.finish() for name, recorder in recorders.items()},
        predictions=predictions,
        reports={name: recorder.report for name, recorder in recorders.items()},
        losses=losses,
        updates=total,
        seconds=seconds,
        device=_device_name(device),
        precision=precision,
        weights=flat.named_master(),
        processes=count,
    )


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


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
