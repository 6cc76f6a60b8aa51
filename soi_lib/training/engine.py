"""The training loop.

It trains a shared encoder on the examples of one or several datasets ("members") and records how each example is
learned. Nothing in it depends on the number of members: batches mix them by size, the heads are one matrix (see
`soi_lib.models.multitask`), and every recorder sees only its own rows. So single- and multi-member runs differ only in
their data. All randomness (heads, order, dropout) is derived from `seed` and the epoch.

Several processes (`accelerate launch`) each take a shard of every batch and add up their gradients, so an update equals
that of a single process, up to rounding and dropout masks. `soi_lib.distributed` handles their communication.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from soi_lib import distributed as processes
from soi_lib.models.multitask import Heads, MultiTaskModel, derived_seed
from soi_lib.recorder import DynamicsRecorder
from soi_lib.training import cpu
from soi_lib.training.batching import Batches, Encoded, epoch_batches, join
from soi_lib.training.checkpoint import Checkpoint
from soi_lib.training.device import (
    describe_device,
    enough_memory,
    kind_of,
    launched_together,
    resolve_device,
    resolve_precision,
    torch_device,
)
from soi_lib.training.optimizer import FlatParameters, moments, restore_moments
from soi_lib.training.outcome import Predictions, TrainResult, curves_of, evaluated, predict


@dataclass(frozen=True)
class TrainConfig:
    """Hyperparameters of a run; the same in all settings of a comparison.

    `warmup` is the share of updates with a rising learning rate, `clip` the maximum gradient norm, `dropout` that of
    the heads (the encoder keeps its own). The heads' learning rate is `head_learning_rate_factor` times the encoder's:
    with a larger factor, a new head learns sooner, so that confidence depends less on the number of updates.
    `record` says when predictions are recorded: "train" in the training forward pass (free), "eval" in an extra
    pass in evaluation mode after each epoch, "both" in both. `precision` "auto" is bf16 if the device supports it
    natively. With `keep_logits`, the dynamics also contain the logits of every example at every epoch.
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
    keep_logits: bool = False


@dataclass(frozen=True)
class TrainMember:
    """The data of one member: label names, ids of its training examples, and token ids per split.

    `splits` contains "train" and any splits to evaluate at the end; "validation" is also evaluated after every epoch.
    """

    name: str
    labels: tuple[str, ...]
    ids: np.ndarray
    splits: dict[str, Encoded]


Progress = Callable[[int, int], None]
"""Called after every batch with the epoch (from 0) and the number of training examples in it, over all processes."""


def _rate(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of `total` updates, then linear decay to 0."""
    rising = math.ceil(warmup * total)
    return (step + 1) / rising if step < rising else (total - step) / max(1, total - rising)


def train(
    encoder: nn.Module,
    members: Sequence[TrainMember],
    config: TrainConfig,
    *,
    device: str = "auto",
    meta: dict[str, Any] | None = None,
    initial: dict[str, Tensor] | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainResult:
    """Train `encoder` with one head per member on all `members` together, recording every training example.

    With several processes, all make the same call; the first one writes the checkpoint, and all read it.

    Args:
        encoder: modified in place. Token ids in `members` must be those of its (trimmed) vocabulary.
        device: a name that `soi_lib.training.device.resolve_device` accepts.
        meta: added to the metadata of the dynamics.
        initial: the weights to start from, as in `TrainResult.weights`.
        checkpoint: where to store the state. A later call with the same identity and machine continues bit-identically.

    Raises:
        AlignmentError: if the calls of several processes differ.
        SoiError: if one of the processes stops, or memory runs out.
        EncoderError: if `encoder` is a decoder.
    """
    target = _target(device)
    precision, count = resolve_precision(config.precision, target.type), processes.world_size()
    if checkpoint is not None:
        place = f"on {target.type} in {precision}" + (f" by {count} processes" if count > 1 else "")
        checkpoint = Checkpoint(checkpoint.path, f"{checkpoint.identity} {place}")
    # without cuDNN's attention, which makes a new plan for every shape
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with enough_memory(), sdpa_kernel(kernels) if target.type == "cuda" else nullcontext():
        run = _Run(encoder, members, config, target, precision, initial=initial, meta=meta or {})
        first = run.restore(checkpoint.load() if checkpoint else None)
        if first and progress:
            progress(first - 1, first * len(run.data))
        if count > 1:
            run.align(first, kept=checkpoint is not None)
        run.flat.sync_low_precision()
        saved, cost = time.monotonic(), 0.25
        for epoch in range(first, config.epochs):
            run.train_epoch(epoch, progress)
            run.close_epoch()
            if checkpoint is None or epoch == config.epochs - 1:
                continue
            due = processes.rank() == 0 and time.monotonic() - saved >= checkpoint.every * cost
            if processes.highest([int(due)], target) == [1]:  # the first process decides
                before = run.seconds["checkpoint"]
                run.save(checkpoint, epoch + 1)
                saved, cost = time.monotonic(), run.seconds["checkpoint"] - before
        return run.result()


def _target(name: str) -> torch.device:
    """Return the device to train on. Each of several processes launched together has its own."""
    device = resolve_device(name)
    if not launched_together():
        return torch_device(device)
    from accelerate import Accelerator

    return Accelerator(cpu=kind_of(device) == "cpu").device


class _Run:
    """One run: model, optimizer, data on the device, recorders, and the measurements so far."""

    def __init__(
        self,
        encoder: nn.Module,
        members: Sequence[TrainMember],
        config: TrainConfig,
        target: torch.device,
        precision: str,
        *,
        initial: dict[str, Tensor] | None,
        meta: dict[str, Any],
    ) -> None:
        self.members, self.config, self.target, self.precision = members, config, target, precision
        shape: Any = encoder.config
        self.pad = getattr(shape, "pad_token_id", None) or 0
        self.heads = Heads(shape.hidden_size, [m.labels for m in members], dropout=config.dropout, seed=config.seed)
        self.model = MultiTaskModel(encoder, self.heads, pooling=config.pooling)
        if initial is not None:
            self.model.load_state_dict(initial, strict=True)
        self.model.to(target)
        if target.type == "cpu":
            cpu.make_fast(self.model)
        self.flat = FlatParameters(self.model, target, low_precision=precision == "bf16")
        self.optimizer = self.flat.optimizer(
            lr=config.learning_rate, weight_decay=config.weight_decay, head_factor=config.head_learning_rate_factor
        )
        self.data = join([m.splits["train"] for m in members])
        self.batches = Batches(self.data, target, pad=self.pad)
        self.first = np.cumsum([0, *(len(m.splits["train"]) for m in members)]).tolist()  # row of each member
        self.per_epoch = -(-len(self.data) // config.batch_size)
        self.seconds = {"train": 0.0, "record": 0.0, "evaluate": 0.0, "checkpoint": 0.0}
        self.losses: list[float] = []
        self.validation: list[list[tuple[float, float]]] = []  # loss and accuracy by epoch and member
        # the training forward pass is always recorded: the training curves come from it
        modes = ("train",) if config.record == "train" else ("train", "eval")
        self.recorders = {mode: {m.name: self._recorder(m, mode, meta) for m in members} for mode in modes}
        self.every = {f"{mode}:{name}": r for mode, held in self.recorders.items() for name, r in held.items()}

    def _recorder(self, member: TrainMember, mode: str, meta: dict[str, Any]) -> DynamicsRecorder:
        about = {**meta, "member": member.name, "label_names": list(member.labels), "record": mode}
        ids, gold, classes = member.ids.tolist(), member.splits["train"].gold, len(member.labels)
        return DynamicsRecorder(ids, gold, classes, device=self.target, keep_logits=self.config.keep_logits, meta=about)

    def restore(self, state: dict[str, Tensor] | None) -> int:
        """Continue from `state`; return the first epoch that remains to be trained."""
        if state is None:
            return 0
        epoch = int(state["epoch"])
        self.flat.master.copy_(state["tensor/master"])
        restore_moments(self.optimizer, state, step=epoch * self.per_epoch)
        self.losses, self.validation = state["tensor/losses"].tolist(), state["tensor/validation"].tolist()
        for name, recorder in self.every.items():
            start = f"recorder/{name}/"
            recorder.restore({k.removeprefix(start): v.numpy() for k, v in state.items() if k.startswith(start)})
        return epoch

    def save(self, checkpoint: Checkpoint, epoch: int) -> None:
        """Save the state after `epoch` epochs; the first process writes it."""
        with self._clock("checkpoint"):
            state = {"epoch": torch.tensor(epoch), "tensor/master": self.flat.master, **moments(self.optimizer)}
            for name, values in (("losses", self.losses), ("validation", self.validation)):
                state[f"tensor/{name}"] = torch.tensor(values, dtype=torch.float64)
            for name, recorder in self.every.items():
                state |= {f"recorder/{name}/{k}": torch.from_numpy(np.array(v)) for k, v in recorder.state().items()}
            if processes.rank() == 0:
                checkpoint.save(state)

    def align(self, first: int, *, kept: bool) -> None:
        """Start all processes from the same state, after checking that they were given the same inputs."""
        processes.check_same(
            self.target,
            configuration=(self.config, self.precision, self.pad),
            members=[(m.name, m.labels, self.recorders["train"][m.name].fingerprint) for m in self.members],
            texts=hashlib.sha256(self.data.token.tobytes() + self.data.offset.tobytes()).digest(),
            checkpoint=(kept, first),
        )
        processes.copy_to_all(self.flat.master)

    def train_epoch(self, epoch: int, progress: Progress | None) -> None:
        """Train on every example once. The loop neither waits for the device nor sends anything to it."""
        config, rank = self.config, processes.rank()
        with self._clock("train"):
            self.model.train()
            masks = derived_seed(config.seed, "dropout", epoch, *([rank] if rank else []))
            torch.manual_seed(masks)
            cpu.seed_dropout(masks)
            summed = torch.zeros((), device=self.target)
            batches = epoch_batches(self.data.lengths, config.batch_size, seed=config.seed, epoch=epoch)
            shares = self.batches.made([processes.shard(index) for index in batches])
            for step, (whole, batch) in enumerate(zip(batches, shares, strict=True), epoch * self.per_epoch):
                if n := len(batch["row"]):
                    logits = self.model(batch, batch["member"])
                    column = batch["gold"] + self.heads.offset[batch["member"]]
                    loss = functional.cross_entropy(logits, column)
                    loss.backward()
                    summed += loss.detach() * n
                    self._record("train", batch, logits)
                gradient = self.flat.gather_gradients()
                if processes.world_size() > 1:  # the mean over the share becomes that over the whole batch
                    processes.sum_processes(gradient.mul_(n / len(whole)))
                self.flat.clip(config.clip)
                rate = config.learning_rate * _rate(step, self.per_epoch * config.epochs, config.warmup)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                self.optimizer.step()
                self.flat.sync_low_precision()
                if progress:
                    progress(epoch, len(whole))
            processes.sum_processes(summed)
            self.losses.append(float(summed) / len(self.data))

    def close_epoch(self) -> None:
        """Record in evaluation mode if requested, close the recorders, and evaluate the validation examples."""
        if "eval" in self.recorders:
            with self._clock("record"), torch.no_grad():
                self.model.eval()
                for batch in self.batches.made(evaluated(self.data)):
                    self._record("eval", batch, self.model(batch, batch["member"]))
        for recorder in self.every.values():
            recorder.end_epoch()
        with self._clock("evaluate"):
            found = [
                self._predicted(i, "validation") if "validation" in m.splits else None
                for i, m in enumerate(self.members)
            ]
            self.validation.append([(math.nan, math.nan) if p is None else (p.loss, p.accuracy) for p in found])

    def result(self) -> TrainResult:
        """Return the result of the run."""
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
            losses=self.losses,
            curves=curves_of(dynamics["train"], self.validation),
            updates=self.per_epoch * self.config.epochs,
            seconds=self.seconds,
            device=describe_device(self.target),
            precision=self.precision,
            weights=self.flat.named_master(),
            processes=processes.world_size(),
        )

    def _record(self, mode: str, batch: dict[str, Tensor], logits: Tensor) -> None:
        """Pass every recorder of `mode` its own rows of the batch, in the columns of its head."""
        sizes = batch["sizes"].tolist()
        rows, own = (held[batch["by_member"]].split(sizes) for held in (batch["row"], logits.detach()))
        for i, recorder in enumerate(self.recorders[mode].values()):
            if i < len(sizes) and sizes[i]:
                recorder.update_at(rows[i] - self.first[i], own[i][:, self.heads.columns[i]])

    def _predicted(self, member: int, split: str) -> Predictions:
        data, columns = self.members[member].splits[split], self.heads.columns[member]
        return predict(self.model, data, columns, pad=self.pad, device=self.target)

    @contextmanager
    def _clock(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[what] += time.monotonic() - start
