"""Record training dynamics with an unmodified Hugging Face Trainer, in two lines.

    from soi_lib.integrations.huggingface import record
    rec = record(trainer, id_column="id")    # before trainer.train()
    dyn = rec.finish()                       # after trainer.train()

The Trainer, its dataset, its collator and its model stay unchanged, and the weights it computes are bit-identical. Row
numbers are added to the batches after the user's collator (see `trainer_data`), the training step removes them, and a
forward hook reads the logits of the training forward pass (with dropout, before the update). The recording is saved in
each of the Trainer's checkpoints and restored by `resume_from_checkpoint`; with several processes, all of them get the
same dynamics. At the end of every epoch a summary is passed to `Trainer.log`, so every tracker that the Trainer reports
to shows it.

Lightning needs no callback: with a `DynamicsRecorder`, call `rec.update(ids, logits)` at the end of `training_step` and
`rec.end_epoch()` in `on_train_epoch_end`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from soi_lib.analysis.label_issues import TINY
from soi_lib.analysis.soi import categorize, soi_shares
from soi_lib.dynamics import MAX_EPOCHS, TrainingDynamics
from soi_lib.errors import FormatError, RangeError, located
from soi_lib.files import replacing
from soi_lib.integrations.trainer_data import KEY, Examples, examples_of, number
from soi_lib.recorder import DynamicsRecorder, RecordingReport

logger = logging.getLogger("soi_lib")

FILE = "soi_recorder.safetensors"
"""Name of the file with the recording in a checkpoint folder."""


def record(
    trainer: Any,
    id_column: str | None = None,
    *,
    ids: Sequence[Any] | None = None,
    gold: Sequence[int] | np.ndarray | None = None,
    dataset_column: str | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    keep_logits: bool = False,
    meta: dict[str, Any] | None = None,
) -> TrainerRecording:
    """Attach a recording to `trainer` and return it; its `finish()` gives the dynamics after training.

    `id_column` names the column of ids in the training set, or `ids` (N,) gives them; by default, rows are numbered
    from 0. `gold` (N,) are class numbers; by default, the training set's "labels", "label" or "label_ids". `logits`
    extracts the scores (B, C) from a model's output; by default, they are its "logits" or its first (B, C) tensor.
    `keep_logits` and `meta` are those of DynamicsRecorder, whose rules for repeated and missing examples apply. A new
    `train()` starts a new recording unless it resumes from a checkpoint. An epoch that training leaves before its end
    is not recorded.

    After every epoch `trainer.log` receives, under "soi/", the share of each category as if training had ended there
    ("soi/UNE"), "confidence" (mean of p_gold over examples and epochs so far) and, for this epoch alone, "accuracy",
    "loss" (mean cross-entropy) and "newly_forgotten" (how many examples were right in the previous epoch and are wrong
    in this one). `dataset_column` names the column of the training set that holds each row's dataset: the same values
    are then also logged per dataset ("soi/NAME/accuracy"), and `by_dataset()` returns the dynamics of each.
    Raises FormatError, DuplicateIdError and RangeError, here or during training.
    """
    if isinstance(getattr(trainer.training_step, "__self__", None), TrainerRecording):
        raise FormatError("this Trainer is already being recorded", hint="use the first recording, or detach() it")
    labels = trainer.label_names or ["labels"]
    examples = examples_of(trainer.train_dataset, id_column, ids, gold, labels, dataset_column)
    meta = {"seed": trainer.args.seed, "record": "train", **(meta or {})}
    new = partial(DynamicsRecorder, examples.ids, examples.gold, keep_logits=keep_logits, meta=meta)
    return TrainerRecording(trainer, examples, new, logits)


class TrainerRecording(TrainerCallback):
    """A recording attached to a Trainer by `record`: `finish()` after training, `report` at any time, `detach()`."""

    def __init__(
        self,
        trainer: Any,
        examples: Examples,
        new: Callable[[], DynamicsRecorder],
        logits: Callable[[Any], Tensor] | None,
    ) -> None:
        self.trainer, self._examples, self._new, self._choose = trainer, examples, new, logits
        self.recorder = new()
        self._checkpoint: str | None = None  # the one that the current train() resumes from
        self.resumed = False  # until the first epoch after resuming
        self._rows: Tensor | None = None  # of the current step, until its logits have been recorded
        self._originals = {name: getattr(trainer, name) for name in ("train", "training_step", "get_train_dataloader")}
        self._before = {name: vars(trainer)[name] for name in self._originals if name in vars(trainer)}
        vars(trainer).update({name: getattr(self, f"_{name}") for name in self._originals})
        trainer.add_callback(self)

    @property
    def report(self) -> RecordingReport:
        """Epochs, examples kept, ids that missed an epoch, repeated presentations."""
        return self.recorder.report

    def finish(self) -> TrainingDynamics:
        """Return the dynamics of all examples seen in every epoch; in every process, if there are several.

        Raises FormatError if no epoch was completed or no example remains.
        """
        names = self._examples.names or _names(self.trainer.model)
        if len(names) == self.recorder.n_classes:
            self.recorder.meta.setdefault("label_names", list(names))
        return self.recorder.finish()

    def by_dataset(self) -> dict[str, TrainingDynamics]:
        """Return the dynamics of `finish()` for each dataset in `dataset_column`; its name is `meta.member`.

        Raises FormatError as `finish` does, if there is no `dataset_column`, or if no example of a dataset remains.
        """
        if self._examples.datasets is None:
            raise FormatError("no column names the dataset", hint='name one: record(trainer, dataset_column="source")')
        whole, source = self.finish(), self._examples.datasets[self.recorder.so_far()[2]]
        parts = {name: whole.subset(source == name) for name in self._examples.dataset_names}
        return {name: replace(dyn, meta=replace(dyn.meta, member=name)) for name, dyn in parts.items()}

    def detach(self) -> None:
        """Restore the Trainer to its state before `record`; the recording is kept."""
        for name in self._originals:
            del vars(self.trainer)[name]
        vars(self.trainer).update(self._before)
        self.trainer.remove_callback(self)

    # --- wrappers around the Trainer's own methods --------------------------------------------------------------------

    def _train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        self._checkpoint = str(resume_from_checkpoint) if resume_from_checkpoint else None
        folder = self.trainer.args.output_dir
        if resume_from_checkpoint is True and os.path.isdir(folder):
            self._checkpoint = get_last_checkpoint(folder)
        return self._originals["train"](resume_from_checkpoint, *args, **kwargs)

    def _get_train_dataloader(self) -> Any:
        return number(self._originals["get_train_dataloader"](), self._examples)

    def _training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._rows = inputs.pop(KEY, None)
        if self._rows is None:
            raise FormatError("a batch contains no row numbers", hint="do not replace the loader's collate_fn")
        hook = model.register_forward_hook(self._forward)  # on the wrapped model: compiled, distributed
        try:
            loss = self._originals["training_step"](model, inputs, *args, **kwargs)
            if self._rows is not None:
                expected = f"a ({len(self._rows)}, classes) tensor in the model's output"
                hint = "name that part: record(trainer, logits=lambda output: ...)"
                raise FormatError("no logits were seen in a training step", expected=expected, hint=hint)
        finally:
            self._rows = None
            hook.remove()  # between steps the model may be copied or saved
        return loss

    def _forward(self, model: Any, inputs: Any, output: Any) -> None:
        """Forward hook: record the first forward pass of a training step that returns logits, as soon as it is done."""
        if self._rows is None:
            return
        logits = self._choose(output) if self._choose else _logits(output, len(self._rows))
        if logits is not None:
            rows, self._rows = self._rows, None
            self.recorder.update_at(rows, logits)

    # --- events of the Trainer ----------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start a new recording, or restore the one in the checkpoint."""
        if (planned := state.num_train_epochs) > MAX_EPOCHS:
            what = "more epochs are planned than a history can hold"
            raise RangeError(what, found=planned, expected=f"at most {MAX_EPOCHS}")
        self.recorder = self._new()
        self.resumed = self._checkpoint is not None
        if self._checkpoint is not None:
            path = Path(self._checkpoint) / FILE
            with located(path):
                self.recorder.restore(_load(path))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close or discard an epoch left open when the next one begins or training is over."""
        epoch = float(state.epoch or 0)
        if self.resumed:
            # saved between the last step of an epoch and its end, to which the Trainer does not return
            if self.recorder.begun and epoch.is_integer() and self.recorder.epochs < epoch:
                self.recorder.end_epoch()
                self._log()
        elif self.recorder.begun:
            logger.warning("training left epoch %d before its end; it is not recorded", self.recorder.epochs)
            self.recorder.discard()
        self.resumed = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the epoch, unless training stopped in the middle of it."""
        if float(state.epoch).is_integer():
            self.recorder.end_epoch()
            self._log()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the open epoch if training ends as soon as it is resumed."""
        if self.resumed:
            self.on_epoch_begin(args, state, control)

    def _log(self) -> None:
        """Log a summary of the epochs so far through the Trainer."""
        p, correct, kept = self.recorder.so_far()
        source, values = self._examples.datasets, _summary(p, correct, kept, "soi/")
        if source is not None:
            for name in self._examples.dataset_names:
                values |= _summary(p, correct, kept & (source == name), f"soi/{name}/")
        due = self.trainer.control.should_log
        self.trainer.log(values)
        self.trainer.control.should_log = due  # the Trainer has yet to log its own values for this epoch

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the recording to the checkpoint; all processes call this, one writes."""
        folder, recorded = Path(args.output_dir) / f"checkpoint-{state.global_step}", self.recorder.state()
        if args.should_save and folder.is_dir():
            with replacing(folder / FILE) as tmp:
                save_file(recorded, tmp)


def _summary(p: list[np.ndarray], correct: list[np.ndarray], chosen: np.ndarray, prefix: str) -> dict[str, float]:
    """Return what `record` logs for the examples `chosen` (N,) bool, from (N,) arrays of the epochs so far."""
    if not chosen.any():
        return {}
    right = np.array([epoch[chosen] for epoch in correct])
    values = {
        **soi_shares(categorize(right)),
        "confidence": float(np.mean([epoch[chosen].mean(dtype=np.float64) for epoch in p])),
        "accuracy": float(right[-1].mean()),
        "loss": float(-np.log(np.maximum(p[-1][chosen], TINY), dtype=np.float64).mean()),
        "newly_forgotten": int((right[-2:-1] & ~right[-1]).sum()),
    }
    return {prefix + name: value for name, value in values.items()}


def _load(path: Path) -> dict[str, np.ndarray]:
    """Return the state that `TrainerRecording.on_save` wrote."""
    if not path.is_file():
        what = "the checkpoint contains no recording, so its epochs are lost"
        hint = "train from the start, or resume from a checkpoint with a recording"
        raise FormatError(what, where=path.parent, expected=path.name, hint=hint)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        hint = "resume from an earlier checkpoint"
        raise FormatError("the recording cannot be read", where=path, found=error, hint=hint) from error


def _logits(output: Any, rows: int) -> Tensor | None:
    """Return the class scores in a model's output: its "logits", else its first floating-point (rows, C) tensor."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else [output]
    tensors = (part for part in parts if isinstance(part, Tensor))
    return next((t for t in tensors if t.ndim == 2 and len(t) == rows and t.is_floating_point()), None)


def _names(model: Any) -> tuple[str, ...]:
    """Return the class names in a model's config, unless they are the defaults of transformers."""
    known = getattr(getattr(model, "config", None), "id2label", None) or {}
    names = tuple(str(known[i]) for i in sorted(known))
    return () if names == tuple(f"LABEL_{i}" for i in range(len(names))) else names
