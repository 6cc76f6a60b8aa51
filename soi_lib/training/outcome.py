"""What a training gives: predictions, curves, and all of it together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from soi_lib import distributed as processes
from soi_lib.dynamics import TrainingDynamics
from soi_lib.recorder import RecordingReport
from soi_lib.training.batching import Batches, Encoded, sorted_batches

EVALUATED = 64
"""Examples in a batch of evaluation; it changes nothing but the speed."""


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
    """What a run leaves: dynamics and predictions by member, mean training loss by epoch, times, weights.

    `dynamics` are those of evaluation mode if it was recorded; `dynamics_train` are those of the training forward pass
    if both were. Each of the `processes` that trained gets the same result, except for the times.
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


def curves_of(dynamics: dict[str, TrainingDynamics], validation: list[list[tuple[float, float]]]) -> dict[str, Curve]:
    """The curves of every member, from the dynamics of the training forward pass and `validation` (E, members, 2)."""
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
    shard = processes.shard_batches(sorted_batches(data.lengths, EVALUATED))
    probabilities = torch.zeros(len(data), columns.stop - columns.start, device=device)
    for index, rows in zip(shard, batches.upload(shard), strict=True):
        batch = batches.make(index, rows)
        probabilities[rows] = model(batch, batch["member"])[:, columns].softmax(1)
    processes.sum_processes(probabilities)
    return Predictions(probabilities.cpu().numpy(), data.gold)
