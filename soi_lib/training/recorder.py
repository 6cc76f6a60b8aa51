"""What every example did in every epoch, kept on the device until the epoch ends.

`update` costs one softmax and two scattered writes into buffers of N places; nothing leaves the device before
`end_epoch`, which moves N float32 and N bool once. The rule for examples that do not come exactly once an epoch is
stated here and reported by `report`: of several presentations in an epoch the last one counts, and an example that
misses an epoch (a sampler that skips, `drop_last`) is left out of the result, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from soi_lib.dynamics import Meta, TrainingDynamics
from soi_lib.errors import DuplicateIdError, FormatError, RangeError


@dataclass(frozen=True)
class RecordingReport:
    """What the recorder met: epochs, examples kept, ids that missed an epoch, presentations beyond the first."""

    epochs: int
    kept: int
    missing: tuple[Any, ...]
    repeated: int


class DynamicsRecorder:
    """Records the gold label's probability and the correctness of every example, epoch by epoch.

    `ids` (N,) are strings or integers without repetition, `gold` (N,) integers in 0..n_classes-1. `meta` goes into
    the dynamics' metadata. With `keep_logits` the logits of every epoch are kept too (N x classes float32 each).
    Raises DuplicateIdError, RangeError and FormatError.
    """

    def __init__(
        self,
        ids: Iterable[Any],
        gold: Sequence[int] | np.ndarray,
        n_classes: int,
        *,
        device: torch.device | str | None = None,
        keep_logits: bool = False,
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.ids = list(ids)
        self._place = {example: i for i, example in enumerate(self.ids)}
        if len(self._place) != len(self.ids):
            first = next(e for i, e in enumerate(self.ids) if self._place[e] != i)
            raise DuplicateIdError(
                "an id is given to two examples",
                found=repr(first),
                expected="each id once",
                hint="number the rows, or drop the repeated ones",
            )
        golds = np.asarray(gold)
        if golds.shape != (len(self.ids),):
            raise FormatError("gold has another length than ids", found=golds.shape, expected=(len(self.ids),))
        if len(golds) and (golds.min() < 0 or golds.max() >= n_classes):
            wrong = int(np.flatnonzero((golds < 0) | (golds >= n_classes))[0])
            raise RangeError(
                "a gold label is outside the classes",
                where=f"id {self.ids[wrong]!r}",
                found=int(golds[wrong]),
                expected=f"0 to {n_classes - 1}",
            )
        self.n_classes, self.keep_logits, self.meta = n_classes, keep_logits, dict(meta or {})
        self._gold_cpu = golds.astype(np.int64)
        self._device = None if device is None else torch.device(device)
        self._p: list[np.ndarray] = []
        self._correct: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._missing = np.zeros(len(self.ids), dtype=bool)
        self._repeated = 0
        if self._device is not None:
            self._open(self._device)

    def _open(self, device: torch.device) -> None:
        n = len(self.ids)
        self._device = device
        self._gold = torch.from_numpy(self._gold_cpu).to(device)
        self._p_now = torch.zeros(n, dtype=torch.float32, device=device)
        self._correct_now = torch.zeros(n, dtype=torch.bool, device=device)
        self._seen = torch.zeros(n, dtype=torch.int32, device=device)
        self._logits_now = (
            torch.zeros(n, self.n_classes, dtype=torch.float32, device=device) if self.keep_logits else None
        )

    @property
    def epochs(self) -> int:
        """Epochs recorded so far."""
        return len(self._p)

    def update(self, ids: Iterable[Any], logits: Tensor) -> None:
        """Take the `logits` (B, C) of the examples `ids` (B,), as they are in the training forward pass."""
        try:
            index = np.fromiter((self._place[e] for e in _plain(ids)), dtype=np.int64)
        except KeyError as error:
            raise FormatError(
                "an id was never announced to the recorder",
                found=repr(error.args[0]),
                hint="give all ids when the recorder is made",
            ) from None
        if len(index) != len(np.unique(index)):  # inside one batch too, the last presentation counts
            last = len(index) - 1 - np.unique(index[::-1], return_index=True)[1]
            last.sort()
            self._repeated += len(index) - len(last)
            index, logits = index[last], logits[torch.from_numpy(last).to(logits.device)]
        self.update_at(torch.from_numpy(index).to(logits.device), logits)

    @torch.no_grad()
    def update_at(self, index: Tensor, logits: Tensor) -> None:
        """As `update`, for places (B,) int64 in the order of `ids` that are already on the device."""
        if logits.ndim != 2 or logits.shape[0] != index.shape[0] or logits.shape[1] != self.n_classes:
            raise FormatError(
                "logits have the wrong shape", found=tuple(logits.shape), expected=(index.shape[0], self.n_classes)
            )
        if self._device is None:
            self._open(logits.device)
        logits = logits.detach().float()
        gold = self._gold[index]
        self._p_now[index] = logits.softmax(1).gather(1, gold[:, None])[:, 0]
        self._correct_now[index] = logits.argmax(1) == gold
        self._seen[index] += 1
        if self._logits_now is not None:
            self._logits_now[index] = logits

    def end_epoch(self) -> None:
        """Close the epoch: move what was recorded to memory, once."""
        if self._device is None:
            self._open(torch.device("cpu"))
        seen = self._seen.cpu().numpy()
        self._missing |= seen == 0
        self._repeated += int(np.maximum(seen - 1, 0).sum())
        self._p.append(self._p_now.cpu().numpy().copy())
        self._correct.append(self._correct_now.cpu().numpy().copy())
        if self._logits_now is not None:
            self._logits.append(self._logits_now.cpu().numpy().copy())
            self._logits_now.zero_()
        self._p_now.zero_()
        self._correct_now.zero_()
        self._seen.zero_()

    @property
    def report(self) -> RecordingReport:
        """How many examples came, and which did not."""
        missing = tuple(self.ids[i] for i in np.flatnonzero(self._missing))
        return RecordingReport(self.epochs, len(self.ids) - len(missing), missing, self._repeated)

    def state(self) -> dict[str, np.ndarray]:
        """The closed epochs as arrays, for a checkpoint."""
        state = {
            "p": np.array(self._p),
            "correct": np.array(self._correct),
            "missing": self._missing,
            "repeated": np.array(self._repeated),
        }
        return state | ({"logits": np.array(self._logits)} if self.keep_logits else {})

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue after the epochs of a `state`."""
        self._p, self._correct = list(state["p"]), list(state["correct"])
        self._missing, self._repeated = state["missing"].astype(bool), int(state["repeated"])
        self._logits = list(state["logits"]) if self.keep_logits else []

    def finish(self) -> TrainingDynamics:
        """The dynamics of every example that was there in every epoch. Raises FormatError if no epoch was closed."""
        if not self._p:
            raise FormatError("nothing was recorded", expected="at least one epoch", hint="call end_epoch()")
        keep = ~self._missing
        ids = np.array(self.ids, dtype=np.int64 if all(type(e) is int for e in self.ids) else object)
        return TrainingDynamics(
            ids=ids[keep],
            gold=self._gold_cpu[keep].astype(np.int16),
            p_gold=np.ascontiguousarray(np.stack(self._p)[:, keep]),
            correct=np.ascontiguousarray(np.stack(self._correct)[:, keep]),
            meta=Meta.from_dict({"epochs": self.epochs, "classes": self.n_classes, **self.meta}),
            logits=np.ascontiguousarray(np.stack(self._logits)[:, keep]) if self.keep_logits else None,
        )


def _plain(ids: Iterable[Any]) -> list[Any]:
    """Ids as Python values: tensors and arrays of numbers become ints."""
    if isinstance(ids, Tensor):
        return ids.tolist()
    return ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
