"""Record the predictions for every example in every epoch, on the device until the epoch ends.

    from soi_lib import DynamicsRecorder
    rec = DynamicsRecorder(ids, gold)        # before training: all ids and labels
    rec.update(batch_ids, logits)            # after every forward pass
    rec.end_epoch()                          # after every epoch
    dyn = rec.finish()                       # after training

`update` costs one softmax and a few scattered writes into buffers of N entries; nothing leaves the device before
`end_epoch`, which transfers N numbers once. Examples that are not presented exactly once per epoch are covered by
`report`: of several presentations in an epoch only the last one counts, and an example that misses an epoch (a sampler
that skips, `drop_last`) is left out of the result.

With several processes (`torch.distributed`) nothing changes for the caller: every process gives all ids, passes its own
batches to `update` and calls `end_epoch`, which joins them. All processes then have the result of a single process that
was given the batches of process 0, 1, ... one after another, update by update.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from soi_lib.distributed import check_same, highest, join_buffers, rank, sum_processes, world_size
from soi_lib.dynamics import MAX_EPOCHS, Meta, TrainingDynamics, as_ids, refuse_duplicates, refuse_unknown
from soi_lib.errors import AlignmentError, FormatError, RangeError

logger = logging.getLogger("soi_lib")

_OPEN = "open_"  # in a state, the prefix of the buffers of an open epoch


@dataclass(frozen=True)
class RecordingReport:
    """How completely the examples were recorded.

    Closed epochs; examples kept; ids that missed an epoch; repeated presentations within an epoch; and the number of
    examples seen in an open epoch, which is not part of the result.
    """

    epochs: int
    kept: int
    missing: tuple[Any, ...]
    repeated: int
    unfinished: int = 0


class DynamicsRecorder:
    """Records the gold label's probability and the correctness of every example, epoch by epoch.

    Args:
        ids: (N,) unique strings, integers, or tuples of these (stored as their JSON text).
        gold: (N,) integers from 0 to `n_classes` - 1.
        n_classes: The number of classes; by default, the width of the first logits.
        device: The device of the buffers; by default, that of the logits.
        keep_logits: Also keep the logits of every epoch (N x classes float32 each).
        meta: Added to the metadata of the dynamics.

    Raises:
        DuplicateIdError: An id appears twice.
        RangeError: A gold label is not one of the classes, or there are too few or too many classes.
        FormatError: `ids` or `gold` have the wrong type or length.
    """

    def __init__(
        self,
        ids: Iterable[Any],
        gold: Sequence[int] | np.ndarray | Tensor,
        n_classes: int | None = None,
        *,
        device: torch.device | str | None = None,
        keep_logits: bool = False,
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.ids = _as_python(ids)
        self._ids = _id_array(self.ids)
        refuse_duplicates(self._ids)
        self._row_of = {example: i for i, example in enumerate(self.ids)}
        self._gold_cpu = class_numbers(gold, len(self.ids))
        self.keep_logits, self.meta = keep_logits, dict(meta or {})
        self._device, self._follow = torch.device(device or "cpu"), device is None
        # the open epoch: one entry per example, and one more for presentations that a later one overrides;
        # "turn" is the number of the last update with this example, from 1, or 0 if it has not been seen
        n, kinds = len(self.ids) + 1, {"p": torch.float32, "correct": torch.bool, "turn": torch.int32}
        self._gold = torch.from_numpy(np.append(self._gold_cpu, 0)).to(self._device)
        self._buffers = {name: torch.zeros(n, dtype=kind, device=self._device) for name, kind in kinds.items()}
        self._updates = self._presented = 0
        # the closed epochs
        names = ("p", "correct", "logits") if keep_logits else ("p", "correct")
        self._closed: dict[str, list[np.ndarray]] = {name: [] for name in names}
        self._missing, self._repeated = np.zeros(len(self.ids), dtype=bool), 0
        self.n_classes: int | None = None
        if n_classes is None:
            refuse_unknown(self._ids, self._gold_cpu, np.iinfo(np.int16).max)
        else:
            self._set_classes(n_classes)

    def _set_classes(self, n: int) -> None:
        """Set the number of classes once it is known, check gold against it, and allocate the buffer for logits."""
        if not 2 <= n <= np.iinfo(np.int16).max:
            hint = "pass a sigmoid's logit z as torch.stack([torch.zeros_like(z), z], 1)" if n == 1 else None
            raise RangeError("the number of classes is out of range", found=n, expected="2 to 32767", hint=hint)
        refuse_unknown(self._ids, self._gold_cpu, n)
        self.n_classes = n
        if self.keep_logits and "logits" not in self._buffers:
            self._buffers["logits"] = torch.zeros(len(self.ids) + 1, n, device=self._device)

    @property
    def epochs(self) -> int:
        """Number of epochs recorded so far."""
        return len(self._closed["p"])

    @property
    def begun(self) -> bool:
        """Whether any example has been seen since the last epoch was closed."""
        return self._updates > 0

    def update(self, ids: Iterable[Any], logits: Tensor) -> None:
        """Record the `logits` (B, C) of the examples `ids` (B,), as computed in the training forward pass.

        Raises FormatError for an id that the recorder was not given and for logits of the wrong shape.
        """
        try:
            index = np.fromiter((self._row_of[e] for e in _as_python(ids)), dtype=np.int64)
        except (KeyError, TypeError) as error:
            hint = "give all ids when creating the recorder"
            raise FormatError("the recorder was not given this id", found=repr(error.args[0]), hint=hint) from None
        self.update_at(torch.from_numpy(last_of(index, len(self.ids))).to(logits.device, non_blocking=True), logits)

    @torch.no_grad()
    def update_at(self, index: Tensor, logits: Tensor) -> None:
        """Like `update`, for positions (B,) int64 in the order of `ids` that are already on the device.

        No position may occur twice, except N (see `last_of`), which stands for no example.
        """
        if self.n_classes is None and logits.ndim == 2:
            self._set_classes(logits.shape[1])
        if logits.ndim != 2 or logits.shape[0] != index.shape[0] or logits.shape[1] != self.n_classes:
            expected = f"({index.shape[0]}, {self.n_classes or 'classes'})"
            raise FormatError("logits have the wrong shape", found=tuple(logits.shape), expected=expected)
        if self._follow and self._device != logits.device:
            self._device, self._gold = logits.device, self._gold.to(logits.device)
            self._buffers = {name: held.to(logits.device) for name, held in self._buffers.items()}
        logits = logits.detach().to(self._device).float()
        index = index.to(self._device)
        now, gold = self._buffers, self._gold[index]
        now["p"][index] = logits.softmax(1).gather(1, gold[:, None])[:, 0]
        now["correct"][index] = logits.argmax(1) == gold
        if self.keep_logits:
            now["logits"][index] = logits
        self._updates += 1
        self._presented += len(index)
        now["turn"].index_fill_(0, index, self._updates)  # assignment would create a tensor first

    def end_epoch(self) -> None:
        """Close the epoch: join the processes, if there are several, and copy the recording to host memory, once.

        Raises RangeError for non-finite logits and for a 65th epoch, FormatError for an epoch without any update, and
        AlignmentError if the processes were given different ids. Earlier epochs are kept.
        """
        if self.epochs == MAX_EPOCHS:
            what, hint = "there are more epochs than a history can hold", "finish() returns those before this one"
            raise RangeError(what, found=MAX_EPOCHS + 1, expected=f"at most {MAX_EPOCHS}", hint=hint)
        buffers, presented = self._joined()
        now = {name: held[:-1].cpu().numpy().copy() for name, held in buffers.items()}
        seen = now["turn"] > 0
        if not seen.any():
            hint = "call update() after every forward pass and end_epoch() once per epoch"
            raise FormatError("no example was seen in this epoch", where=f"epoch {self.epochs}", hint=hint)
        self._refuse_non_finite(now)
        self._missing |= ~seen
        self._repeated += presented - int(seen.sum())
        for name, epochs in self._closed.items():
            epochs.append(now[name])
        self.discard()

    def discard(self) -> None:
        """Discard everything seen since the last `end_epoch`."""
        for held in self._buffers.values():
            held.zero_()
        self._updates = self._presented = 0

    def _refuse_non_finite(self, now: dict[str, np.ndarray]) -> None:
        """Raise if a softmax failed (NaN or +inf among the logits), or if logits are kept and one is not finite."""
        bad = np.isnan(now["p"])
        if self.keep_logits:
            bad |= ~np.isfinite(now["logits"]).all(1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise RangeError(
                f"the logits of id {self.ids[row]!r} at epoch {self.epochs} are not finite",
                found=f"NaN or infinity for {int(bad.sum())} of {len(bad)} examples",
                hint="lower the learning rate, clip gradients, or train in a higher precision",
            )

    def _joined(self) -> tuple[dict[str, Tensor], int]:
        """Return the buffers of the open epoch and how many examples were presented, over all processes."""
        if world_size() == 1:
            return self._buffers, self._presented
        check_same(self._device, examples=self.fingerprint)
        if known := highest([self.n_classes or 0], self._device)[0]:
            self._set_classes(known)
        sum_processes(presented := torch.tensor(self._presented, device=self._device))
        return join_buffers(self._buffers, self._device), int(presented)

    @cached_property
    def fingerprint(self) -> int:
        """A number below 2^56 from ids, gold and options: equal for recorders that can restore each other's state."""
        digest = hashlib.sha256(json.dumps([self.ids, self.keep_logits]).encode())
        digest.update(self._gold_cpu.tobytes())
        return int.from_bytes(digest.digest()[:7], "little")

    @property
    def report(self) -> RecordingReport:
        """How many examples were recorded, and which ones were not."""
        missing = tuple(self.ids[i] for i in np.flatnonzero(self._missing))
        unfinished = int((self._buffers["turn"][:-1] > 0).sum())
        return RecordingReport(self.epochs, len(self.ids) - len(missing), missing, self._repeated, unfinished)

    def so_far(self) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """Return p_gold (N,) and correct (N,) of each closed epoch, and a bool mask (N,) of examples seen in all."""
        return self._closed["p"], self._closed["correct"], ~self._missing

    def state(self) -> dict[str, np.ndarray]:
        """Return the recording, including an open epoch, as arrays for a checkpoint.

        With several processes, all of them call this together and get the same arrays.
        """
        buffers, presented = self._joined()  # first: a process that has seen no batch learns the classes from it
        state = {
            "fingerprint": np.array(self.fingerprint),
            "missing": self._missing,
            "repeated": np.array(self._repeated),
            **{name: np.array(epochs) for name, epochs in self._closed.items()},
        }
        if self.n_classes is not None:
            state["classes"] = np.array(self.n_classes)
        if presented:
            state |= {_OPEN + name: held.cpu().numpy().copy() for name, held in buffers.items()}
            state["presented"] = np.array(presented)
        return state

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a `state`, in the middle of its open epoch if it has one.

        With several processes (their number may change), all pass the same state. Raises AlignmentError for a state of
        other examples.
        """
        if int(state.get("fingerprint", self.fingerprint)) != self.fingerprint:
            raise AlignmentError(
                "the state belongs to a recorder of other examples or options",
                found=f"{len(state['missing'])} examples",
                expected=f"{len(self.ids)} examples {'with' if self.keep_logits else 'without'} logits",
                hint="give the recorder the ids, gold and keep_logits that it had when the state was saved",
            )
        needed = ["fingerprint", "missing", "repeated", *self._closed]
        needed += ["presented"] if _OPEN + "turn" in state else []
        if lacking := [name for name in needed if name not in state]:
            what, hint = "this is not the state of a recorder of this version", "resume from another checkpoint"
            raise FormatError(what, found=f"no {lacking[0]!r}", hint=hint)
        if "classes" in state:
            known, found = self.n_classes, int(state["classes"])
            if known not in (None, found):
                raise AlignmentError("the state has a different number of classes", found=found, expected=known)
            self._set_classes(found)
        self.discard()
        self._closed = {name: list(state[name]) for name in self._closed}
        self._missing, self._repeated = state["missing"].astype(bool), int(state["repeated"])
        if _OPEN + "turn" in state:
            self._updates = int(state[_OPEN + "turn"].max())
            if rank() == 0:  # only one process holds it; otherwise it would count several times
                self._presented = int(state["presented"])
                for name, held in self._buffers.items():
                    held.copy_(torch.from_numpy(state[_OPEN + name]))

    def finish(self) -> TrainingDynamics:
        """Return the dynamics of all examples seen in every closed epoch; with several processes, in each process.

        The numbers of examples left out and of repeated presentations, if not 0, are logged and stored in the metadata
        (`recorded_missing`, `recorded_repeated`). Raises FormatError if no epoch was closed or no example remains.
        """
        if not self.epochs:
            raise FormatError("nothing was recorded", expected="at least one epoch", hint="call end_epoch()")
        keep, left = ~self._missing, np.flatnonzero(self._missing)
        if not keep.any():
            what, hint = "no example was seen in every epoch", "call end_epoch() only after all examples have been seen"
            raise FormatError(what, found=f"{len(left)} examples, each missing at least once", hint=hint)
        met: dict[str, Any] = {}
        if len(left):
            met["recorded_missing"] = len(left)
            some = ", ".join(repr(self.ids[i]) for i in left[:5])
            logger.warning("%d of %d examples missed an epoch and are left out: %s", len(left), len(keep), some)
        if self._repeated:
            met["recorded_repeated"] = self._repeated
            logger.warning("%d presentations were repeats within an epoch; only the last one counts", self._repeated)
        p, correct, *logits = (np.stack(epochs)[:, keep] for epochs in self._closed.values())
        meta = Meta.from_dict({"epochs": self.epochs, "classes": self.n_classes, **met, **self.meta})
        return TrainingDynamics(self._ids[keep], self._gold_cpu[keep], p, correct, meta, *logits)


def last_of(index: np.ndarray, n: int) -> np.ndarray:
    """Return positions (B,) of one batch, with `n` for those that occur again later in it: only the last one counts."""
    last = len(index) - 1 - np.unique(index[::-1], return_index=True)[1]
    out = np.full_like(index, n)
    out[last] = index[last]
    return out


def _as_python(ids: Iterable[Any]) -> list[Any]:
    """Return ids as Python values: tensors, arrays and NumPy scalars become ints and strings."""
    if isinstance(ids, Tensor | np.ndarray):
        return ids.tolist()
    return [e.item() if isinstance(e, Tensor | np.generic) else e for e in ids]


def class_numbers(gold: Sequence[int] | np.ndarray | Tensor, n: int) -> np.ndarray:
    """Return `gold` as (N,) int64. Raises FormatError if it has another length or type."""
    what, hint = "gold does not contain class numbers", "number the classes, e.g. sorted(set(labels)).index(label)"
    try:
        golds = np.asarray(gold.cpu() if isinstance(gold, Tensor) else gold)
    except ValueError as error:  # lists of different lengths
        raise FormatError(what, found=error, expected="one integer from 0 per example", hint=hint) from None
    if golds.ndim != 1:
        raise FormatError(what, found=f"shape {golds.shape}", expected="one integer from 0 per example", hint=hint)
    if len(golds) != n:
        raise FormatError("gold and ids differ in length", found=len(golds), expected=n)
    if golds.dtype.kind not in "iub" and n:
        wrong = ((row, label) for row, label in enumerate(golds.tolist()) if not isinstance(label, int))
        row, label = next(wrong, (0, golds.dtype))
        raise FormatError(what, found=f"{label!r} in row {row}", expected="one integer from 0 per example", hint=hint)
    return golds.astype(np.int64)


def _id_array(ids: list[Any]) -> np.ndarray:
    """Return ids as stored in the dynamics: (N,) int64, or text (tuples as JSON). Raises FormatError or RangeError."""
    if {type(e) for e in ids} == {tuple} and all(type(part) in (str, int) for e in ids for part in e):
        ids = [json.dumps(e, ensure_ascii=False, separators=(",", ":")) for e in ids]
    return as_ids(ids)
