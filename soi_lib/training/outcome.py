"""The result of training: predictions, curves, and everything together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from soi_lib import distributed as processes
from soi_lib.dynamics import TrainingDynamics
from soi_lib.training.batching import Batches, Encoded

EVALUATED = 64
"""Batch size in evaluation; it affects only the speed."""


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
        """The share of correct predictions."""
        return float((self.predicted == self.gold).mean())

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the gold labels, in nats."""
        p = self.probabilities[np.arange(len(self.gold)), self.gold].astype(np.float64)
        return float(-np.log(np.maximum(p, 1e-30)).mean())


@dataclass(frozen=True)
class TrainResult:
    """The result of a run: dynamics and predictions by member, mean training loss by epoch, times, weights.

    `dynamics` are those of evaluation mode if it was recorded; `dynamics_train` are those of the training forward pass
    if both were recorded. `curves` are those of `curves_of`. All `processes` that trained get the same result, except
    for the times.
    """

    dynamics: dict[str, TrainingDynamics]
    dynamics_train: dict[str, TrainingDynamics]
    predictions: dict[str, dict[str, Predictions]]
    losses: list[float]
    curves: dict[str, dict[str, np.ndarray]]
    updates: int
    seconds: dict[str, float]
    device: dict[str, str]
    precision: str
    weights: dict[str, Tensor] = field(repr=False)
    processes: int = 1


def curves_of(
    dynamics: dict[str, TrainingDynamics], validation: list[list[tuple[float, float]]]
) -> dict[str, dict[str, np.ndarray]]:
    """Return the mean loss (nats) and accuracy of every member after each epoch, (E,) each.

    `train_loss` and `train_accuracy` come from the `dynamics` of the training forward pass, over the epoch;
    `validation_loss` and `validation_accuracy` come from `validation` (E, members, 2), in evaluation mode at its end.
    A member without validation examples has NaN there and gets no validation curves.
    """
    held = np.array(validation)
    curves = {}
    for i, (name, dyn) in enumerate(dynamics.items()):
        losses = -np.log(np.maximum(dyn.p_gold.astype(np.float64), 1e-30))
        curves[name] = {"train_loss": losses.mean(1), "train_accuracy": dyn.correct.mean(1)}
        if not np.isnan(held[:, i]).any():
            curves[name] |= {"validation_loss": held[:, i, 0], "validation_accuracy": held[:, i, 1]}
    return curves


def evaluated(data: Encoded) -> list[np.ndarray]:
    """Return the rows of this process's batches for evaluation: similar lengths together, in no particular order."""
    order = np.argsort(data.lengths, kind="stable")
    batches = [order[i : i + EVALUATED] for i in range(0, len(order), EVALUATED)]
    return batches[processes.rank() :: processes.world_size()]


@torch.no_grad()
def predict(model: nn.Module, data: Encoded, columns: slice, *, pad: int, device: torch.device) -> Predictions:
    """Return the predictions of one member's head on `data`, in evaluation mode; several processes call it together."""
    model.eval()
    batches = Batches(data, device, pad=pad)
    probabilities = torch.zeros(len(data), columns.stop - columns.start, device=device)
    for batch in batches.made(evaluated(data)):
        probabilities[batch["row"]] = model(batch, batch["member"])[:, columns].softmax(1)
    processes.sum_processes(probabilities)
    return Predictions(probabilities.cpu().numpy(), data.gold)
