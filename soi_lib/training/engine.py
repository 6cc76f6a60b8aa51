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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from soi_lib import distributed as processes
from soi_lib.dynamics import TrainingDynamics
from soi_lib.models.multitask import Heads, MultiTaskModel, derived_seed
from soi_lib.recorder import DynamicsRecorder, RecordingReport
from soi_lib.training import checkpoint, cpu, launch
from soi_lib.training.batching import Batches, Encoded, epoch_batches, join, sorted_batches
from soi_lib.training.device import (
    describe_device,
    enough_memory,
    kind_of,
    resolve_device,
    resolve_precision,
    torch_device,
)
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


EVALUATED = 64
"""Examples in a batch of evaluation; it changes nothing but the speed."""
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
    checkpoint, all read it. Raises AlignmentError when their calls differ, SoiError when one of them stops or memory
    runs out, EncoderError for a decoder.
    """
    target = _target(device)
    precision, count = resolve_precision(config.precision, target.type), processes.world_size()
    identity = f"{identity} on {target.type} in {precision}" + (f" by {count} processes" if count > 1 else "")
    # cuDNN's attention plans every shape anew
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with enough_memory(), sdpa_kernel(kernels) if target.type == "cuda" else nullcontext():
        run = _Run(encoder, members, config, target, precision, pad)
        run.prepare(initial, meta or {}, keep_logits=keep_logits)
        first = run.restore(checkpoint.load(checkpoint_path, identity) if checkpoint_path else None)
        if first and progress:
            progress(first - 1, first * len(run.data))
        if count > 1:
            run.align(first, kept=checkpoint_path is not None, keep_logits=keep_logits)
        run.flat.publish()
        saved = time.monotonic()
        for epoch in range(first, config.epochs):
            run.train_epoch(epoch, progress)
            run.close_epoch()
            due = checkpoint_path is not None and time.monotonic() - saved >= checkpoint_every
            if checkpoint_path and epoch < config.epochs - 1 and processes.main_process_says(due, target):
                run.save(checkpoint_path, identity, epoch + 1)
                saved = time.monotonic()
        return run.result()


def _target(name: str) -> torch.device:
    """The device to train on; of several processes that were launched together each has its own."""
    device = resolve_device(name)
    if not launch.several():
        return torch_device(device)
    from accelerate import Accelerator

    return Accelerator(cpu=kind_of(device) == "cpu").device


@dataclass(frozen=True)
class _Part:
    """A process's part of a batch, on the device: its rows, and what of it belongs to each member.

    `own` holds the number of a member, the places of its rows in the part (None for all), and their places among its
    examples. `size` is that of the whole batch.
    """

    index: np.ndarray
    rows: Tensor
    own: list[tuple[int, Tensor | None, Tensor]]
    size: int


class _Run:
    """One training: model, optimizer, data on the device, recorders, and what was measured so far."""

    def __init__(
        self,
        encoder: nn.Module,
        members: Sequence[TrainMember],
        config: TrainConfig,
        target: torch.device,
        precision: str,
        pad: int,
    ) -> None:
        self.members, self.config, self.target, self.precision, self.pad = members, config, target, precision, pad
        shape: Any = encoder.config
        labels = [m.labels for m in members]
        self.heads = Heads(shape.hidden_size, labels, dropout=config.dropout, seed=config.seed)
        self.model = MultiTaskModel(encoder, self.heads, pooling=config.pooling)
        self.data = join([m.splits["train"] for m in members])
        self.bounds = np.cumsum([0, *(len(m.splits["train"]) for m in members)])
        self.per_epoch = -(-len(self.data) // config.batch_size)
        self.seconds = {"train": 0.0, "record": 0.0, "evaluate": 0.0, "checkpoint": 0.0}
        self.losses: list[float] = []
        self.validation: list[list[tuple[float, float]]] = []  # loss and accuracy by epoch and member

    def prepare(self, initial: dict[str, Tensor] | None, meta: dict[str, Any], *, keep_logits: bool) -> None:
        """Bring model and data to the device, and make optimizer and recorders."""
        if initial is not None:
            self.model.load_state_dict(initial, strict=True)
        self.model.to(self.target)
        if self.target.type == "cpu":
            cpu.make_fast(self.model)
        config = self.config
        self.flat = FlatParameters(self.model, self.target, low_precision=self.precision == "bf16")
        self.optimizer = self.flat.optimizer(
            lr=config.learning_rate, weight_decay=config.weight_decay, head_factor=config.head_learning_rate_factor
        )
        self.batches = Batches(self.data, self.target, pad=self.pad)
        # the training forward pass is always recorded: the training curves come from it
        self.recorders = {
            mode: {
                m.name: DynamicsRecorder(
                    m.ids.tolist(),
                    m.splits["train"].gold,
                    len(m.labels),
                    device=self.target,
                    keep_logits=keep_logits,
                    meta={**meta, "member": m.name, "label_names": list(m.labels), "record": mode},
                )
                for m in self.members
            }
            for mode in (("train",) if config.record == "train" else ("train", "eval"))
        }
        self.every = {f"{mode}:{name}": r for mode, held in self.recorders.items() for name, r in held.items()}

    def restore(self, state: checkpoint.State | None) -> int:
        """Continue from `state`; return the first epoch that is to do."""
        if state is None:
            return 0
        self.flat.master.copy_(state.tensors["master"])
        _restore_moments(self.optimizer, state.tensors, step=state.epoch * self.per_epoch)
        self.losses = state.tensors["losses"].tolist()
        self.validation = state.tensors["validation"].tolist()
        for name, recorder in self.every.items():
            recorder.restore(state.recorders[name])
        return state.epoch

    def save(self, path: Path, identity: str, epoch: int) -> None:
        """Keep the state after `epoch` epochs; the first process writes it."""
        with self._clock("checkpoint"):
            measured = {"losses": self.losses, "validation": self.validation}
            tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in measured.items()}
            tensors |= {"master": self.flat.master, **_moments(self.optimizer)}
            held = {name: recorder.state() for name, recorder in self.every.items()}
            if processes.is_main_process():
                checkpoint.save(path, identity, checkpoint.State(epoch, tensors, held))

    def align(self, first: int, *, kept: bool, keep_logits: bool) -> None:
        """Let all processes start from one state, after a check that they were told the same."""
        processes.start_together(
            self.flat.master,
            configuration=(self.config, self.precision, self.pad, keep_logits),
            members=[(m.name, m.labels, self.recorders["train"][m.name].fingerprint) for m in self.members],
            texts=hashlib.sha256(self.data.token.tobytes() + self.data.offset.tobytes()).digest(),
            checkpoint=(kept, first),
        )

    def train_epoch(self, epoch: int, progress: Progress | None) -> None:
        """Every training example once. Nothing in the loop waits for the device, or sends anything to it."""
        config, rank = self.config, processes.rank()
        with self._clock("train"):
            self.model.train()
            masks = derived_seed(config.seed, "dropout", epoch, *([rank] if rank else []))
            torch.manual_seed(masks)
            cpu.seed_dropout(masks)
            summed = torch.zeros((), device=self.target)
            whole = epoch_batches(self.data.lengths, config.batch_size, seed=config.seed, epoch=epoch)
            for step, part in enumerate(self._parts(whole), epoch * self.per_epoch):
                if len(part.index):
                    batch = self.batches.make(part.index, part.rows)
                    logits = self.model(batch, batch["member"])
                    column = batch["gold"] + self.heads.offset[batch["member"]]
                    loss = functional.cross_entropy(logits, column)
                    loss.backward()
                    summed += loss.detach() * len(part.index)
                    _record(self.recorders["train"], self.members, self.heads, part, logits)
                processes.average_gradient(self.flat.collect(), len(part.index) / part.size)
                self.flat.clip(config.clip)
                rate = config.learning_rate * _rate(step, self.per_epoch * config.epochs, config.warmup)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                self.optimizer.step()
                self.flat.publish()
                if progress:
                    progress(epoch, part.size)
            processes.sum_processes(summed)
            self.losses.append(float(summed) / len(self.data))

    def close_epoch(self) -> None:
        """Record in evaluation mode if that is wanted, close the recorders, and look at the validation examples."""
        if "eval" in self.recorders:
            with self._clock("record"):
                dealt = processes.shard_batches(sorted_batches(self.data.lengths, EVALUATED))
                for part, logits in self._evaluated(dealt):
                    _record(self.recorders["eval"], self.members, self.heads, part, logits)
        for recorder in self.every.values():
            recorder.end_epoch()
        with self._clock("evaluate"):
            self.validation.append([self._validated(i) for i in range(len(self.members))])

    def result(self) -> TrainResult:
        """What the run leaves."""
        with self._clock("evaluate"):
            predictions = {
                m.name: {split: self._predicted(i, split) for split in m.splits if split != "train"}
                for i, m in enumerate(self.members)
            }
        dynamics = {mode: {name: r.finish() for name, r in held.items()} for mode, held in self.recorders.items()}
        return TrainResult(
            dynamics=dynamics["train" if self.config.record == "train" else "eval"],
            dynamics_train=dynamics["train"] if self.config.record == "both" else {},
            predictions=predictions,
            reports={name: recorder.report for name, recorder in self.recorders["train"].items()},
            losses=self.losses,
            curves=_curves(dynamics["train"], self.validation),
            updates=self.per_epoch * self.config.epochs,
            seconds=self.seconds,
            device=describe_device(self.target),
            precision=self.precision,
            weights=self.flat.named_master(),
            processes=processes.world_size(),
        )

    def _parts(self, batches: Sequence[np.ndarray], *, shared: bool = True) -> list[_Part]:
        """This process's part of each batch (all of it if not `shared`), by one transfer to the device."""
        taken = [processes.shard(index) if shared else index for index in batches]
        owned: list[list[tuple[int, np.ndarray]]] = []
        for index in taken:
            owner = np.searchsorted(self.bounds, index, side="right") - 1
            owned.append([(int(i), np.flatnonzero(owner == i)) for i in np.unique(owner)])
        places = [
            values
            for index, own in zip(taken, owned, strict=True)
            for values in (index, *(v for i, rows in own for v in (rows, index[rows] - self.bounds[i])))
        ]
        there = iter(self.batches.upload(places))
        parts = []
        for whole, index, own in zip(batches, taken, owned, strict=True):
            rows = next(there)
            held = [(i, next(there), next(there)) for i, _ in own]
            alone = len(held) == 1
            parts.append(_Part(index, rows, [(i, None if alone else r, p) for i, r, p in held], len(whole)))
        return parts

    @torch.no_grad()
    def _evaluated(self, batches: Sequence[np.ndarray]) -> Iterator[tuple[_Part, Tensor]]:
        """Batches of the training data with their logits in evaluation mode."""
        self.model.eval()
        for part in self._parts(batches, shared=False):
            batch = self.batches.make(part.index, part.rows)
            yield part, self.model(batch, batch["member"])

    def _predicted(self, member: int, split: str) -> Predictions:
        data, columns = self.members[member].splits[split], self.heads.columns[member]
        return predict(self.model, data, columns, pad=self.pad, device=self.target)

    def _validated(self, member: int) -> tuple[float, float]:
        """Loss and accuracy on the validation examples of a member; NaN where it has none."""
        if "validation" not in self.members[member].splits:
            return math.nan, math.nan
        found = self._predicted(member, "validation")
        return found.loss, found.accuracy

    @contextmanager
    def _clock(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[what] += time.monotonic() - start


def _curves(dynamics: dict[str, TrainingDynamics], validation: list[list[tuple[float, float]]]) -> dict[str, Curve]:
    """The curves of every member: from the dynamics of the training forward pass, and `validation` (E, members, 2)."""
    held = np.array(validation)
    curves = {}
    for i, (name, dyn) in enumerate(dynamics.items()):
        losses = -np.log(np.maximum(dyn.p_gold.astype(np.float64), 1e-30))
        known = () if np.isnan(held[:, i]).any() else (held[:, i, 0], held[:, i, 1])
        curves[name] = Curve(losses.mean(1), dyn.correct.mean(1), *known)
    return curves


@torch.no_grad()
def predict(model: nn.Module, data: Encoded, columns: slice, *, pad: int, device: torch.device) -> Predictions:
    """Predictions of one member's head on `data`, in evaluation mode; several processes call it together."""
    model.eval()
    batches = Batches(data, device, pad=pad)
    dealt = processes.shard_batches(sorted_batches(data.lengths, EVALUATED))
    probabilities = torch.zeros(len(data), columns.stop - columns.start, device=device)
    for index, rows in zip(dealt, batches.upload(dealt), strict=True):
        batch = batches.make(index, rows)
        probabilities[rows] = model(batch, batch["member"])[:, columns].softmax(1)
    processes.sum_processes(probabilities)
    return Predictions(probabilities.cpu().numpy(), data.gold)


def _record(
    recorders: dict[str, DynamicsRecorder],
    members: Sequence[TrainMember],
    heads: Heads,
    part: _Part,
    logits: Tensor,
) -> None:
    """Give every recorder the rows of the batch that are its own, in the columns of its head."""
    logits = logits.detach()
    for i, rows, place in part.own:
        own = logits if rows is None else logits[rows]
        recorders[members[i].name].update_at(place, own[:, heads.columns[i]])


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
