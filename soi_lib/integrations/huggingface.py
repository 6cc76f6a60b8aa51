"""Training dynamics from an unmodified Hugging Face Trainer, in two lines.

    from soi_lib.integrations.huggingface import record
    rec = record(trainer, id_column="id")    # before trainer.train()
    dyn = rec.finish()                       # after it

The Trainer, its data set, its collator and its model stay as they are, and so do the weights that
it computes, bit for bit. Row numbers travel with the batches beside the user's collator (see `trainer_data`), the
training step takes them out again, and a forward hook sees the logits of the training forward pass (dropout on,
before the update). What is recorded is saved inside each of the Trainer's checkpoints and comes back with
`resume_from_checkpoint`; under several processes all of them get the same dynamics. At the end of every epoch a summary
goes through `Trainer.log`, so every tracker that the Trainer reports to shows it.

Lightning needs no callback of ours: call `rec.update(ids, logits)` at the end of `training_step` and `rec.end_epoch()`
in `on_train_epoch_end`, with a `DynamicsRecorder`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from soi_lib.analysis.label_issues import TINY
from soi_lib.analysis.soi import categorize, soi_shares
from soi_lib.dynamics import MAX_EPOCHS, TrainingDynamics
from soi_lib.errors import AlignmentError, FormatError, RangeError
from soi_lib.files import replacing
from soi_lib.integrations.trainer_data import KEY, Examples, examples_of, number
from soi_lib.recorder import DynamicsRecorder, RecordingReport

logger = logging.getLogger("soi_lib")

FILE = "soi_recorder.safetensors"
"""What a checkpoint folder holds of the recording."""


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
    """Record what every training example does while `trainer` trains; returns what gives the dynamics afterwards.

    `id_column` names the ids in the training set, or `ids` (N,) gives them; without either, rows are numbered from 0.
    `gold` (N,) are class numbers; without it they are the training set's "labels", "label" or "label_ids". `logits`
    takes the scores (B, C) out of a model's output; without it they are its "logits", or the first (B, C) tensor in
    it. `keep_logits` and `meta` are those of DynamicsRecorder, whose rules for repeated and missing examples hold.
    A new `train()` starts a new recording unless it resumes from a checkpoint. An epoch that training leaves before
    its end is not recorded.

    After every epoch `trainer.log` gets, under "soi/", the share of each category as if training had ended there
    ("soi/UNE"), "confidence" (mean of p_gold over examples and epochs so far), and of this epoch alone "accuracy",
    "loss" (mean cross-entropy) and "newly_forgotten" (how many examples were right in the epoch before and are wrong
    in this one). `dataset_column` names the column of the training set that says which dataset a row is from: the same
    values are then also logged for each ("soi/NAME/accuracy"), and `by_dataset()` gives the dynamics of each.
    Raises FormatError, DuplicateIdError and RangeError, here or in training.
    """
    if isinstance(getattr(trainer.training_step, "__self__", None), TrainerRecording):
        raise FormatError("this Trainer is recorded already", hint="use the first recording, or detach() it")
    labels = list(trainer.label_names or ["labels"])
    examples = examples_of(trainer.train_dataset, id_column, ids, gold, labels, dataset_column)
    return TrainerRecording(trainer, examples, labels, logits, keep_logits, meta)


class TrainerRecording(TrainerCallback):
    """A recording attached to a Trainer by `record`: `finish()` after training, `report` at any time, `detach()`."""

    def __init__(
        self,
        trainer: Any,
        examples: Examples,
        labels: list[str],
        logits: Callable[[Any], Tensor] | None,
        keep_logits: bool,
        meta: dict[str, Any] | None,
    ) -> None:
        self.trainer, self._examples, self._labels = trainer, examples, labels
        self._choose, self._keep_logits = logits, keep_logits
        self._meta = {"seed": trainer.args.seed, "record": "train", **(meta or {})}
        self.recorder = self._fresh()
        self._checkpoint: str | None = None  # that the running train() resumes from
        self.resumed = False  # until the first epoch after it
        self._rows: Tensor | None = None  # of the step that is running, until its logits have come
        self._originals = {name: getattr(trainer, name) for name in ("train", "training_step", "get_train_dataloader")}
        self._before = {name: vars(trainer)[name] for name in self._originals if name in vars(trainer)}
        trainer.train, trainer.training_step = self._train, self._training_step
        trainer.get_train_dataloader = self._get_train_dataloader
        trainer.add_callback(self)

    def _fresh(self) -> DynamicsRecorder:
        examples = self._examples
        return DynamicsRecorder(examples.ids, examples.gold, keep_logits=self._keep_logits, meta=self._meta)

    @property
    def report(self) -> RecordingReport:
        """Epochs, examples kept, ids that missed an epoch, repeated presentations."""
        return self.recorder.report

    def finish(self) -> TrainingDynamics:
        """The dynamics of every example that was there in every epoch; in every process, if there are several.

        Raises FormatError if no epoch was trained to its end or no example remains.
        """
        names = self._examples.names or _names(self.trainer.model)
        if len(names) == self.recorder.n_classes:
            self.recorder.meta.setdefault("label_names", list(names))
        return self.recorder.finish()

    def by_dataset(self) -> dict[str, TrainingDynamics]:
        """The dynamics of `finish()` for each dataset that `dataset_column` names; its name is `meta.member`.

        Raises FormatError as `finish` does, if there is no `dataset_column`, or if nothing remains of a dataset.
        """
        if self._examples.datasets is None:
            raise FormatError("no column names the dataset", hint='say which: record(trainer, dataset_column="source")')
        whole, source = self.finish(), self._examples.datasets[self.recorder.so_far()[2]]
        parts = {name: whole.subset(source == name) for name in self._examples.dataset_names}
        return {name: replace(dyn, meta=replace(dyn.meta, member=name)) for name, dyn in parts.items()}

    def detach(self) -> None:
        """Leave the Trainer as it was before `record`; what was recorded stays."""
        for name in self._originals:
            del vars(self.trainer)[name]
        vars(self.trainer).update(self._before)
        self.trainer.remove_callback(self)

    # --- what stands in for the Trainer's own methods, and calls them -------------------------------------------------

    def _train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        self._checkpoint = str(resume_from_checkpoint) if resume_from_checkpoint else None
        folder = self.trainer.args.output_dir
        if resume_from_checkpoint is True and os.path.isdir(folder):
            self._checkpoint = get_last_checkpoint(folder)
        return self._originals["train"](resume_from_checkpoint, *args, **kwargs)

    def _get_train_dataloader(self) -> Any:
        return number(self._originals["get_train_dataloader"](), self._examples, self._labels)

    def _training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._rows = inputs.pop(KEY, None)
        if self._rows is None:
            raise FormatError("a batch carries no row numbers", hint="leave the loader's collate_fn as it is")
        hook = model.register_forward_hook(self._forward)  # on the model as it is wrapped: compiled, distributed
        try:
            loss = self._originals["training_step"](model, inputs, *args, **kwargs)
            if self._rows is not None:
                raise FormatError(
                    "no logits were seen in a training step",
                    expected=f"a ({len(self._rows)}, classes) tensor in the model's output",
                    hint="say which part it is: record(trainer, logits=lambda output: ...)",
                )
        finally:
            self._rows = None
            hook.remove()  # between steps the model may be copied or saved
        return loss

    def _forward(self, model: Any, inputs: Any, output: Any) -> None:
        """The hook: the first forward pass of a training step that gives logits is recorded, as soon as it is done."""
        if self._rows is None:
            return
        logits = self._choose(output) if self._choose else _logits(output, len(self._rows))
        if logits is not None:
            rows, self._rows = self._rows, None
            self.recorder.update_at(rows, logits)

    # --- events of the Trainer ----------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training begins, anew or from a checkpoint."""
        if state.num_train_epochs > MAX_EPOCHS:
            found, expected = state.num_train_epochs, f"at most {MAX_EPOCHS}"
            raise RangeError("more epochs are planned than a history holds", found=found, expected=expected)
        self.recorder = self._fresh()
        self.resumed = self._checkpoint is not None
        if self._checkpoint is not None:
            self.recorder.restore(_load(Path(self._checkpoint) / FILE, self.recorder.fingerprint))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An epoch begins, or all of training is over."""
        epoch = float(state.epoch or 0)
        if self.resumed:
            # saved after the last step of an epoch and before its end, which the Trainer does not come back to
            if self.recorder.begun and epoch.is_integer() and self.recorder.epochs < epoch:
                self.recorder.end_epoch()
                self._log()
        elif self.recorder.begun:
            logger.warning("epoch %d was left before its end and is not recorded", self.recorder.epochs)
            self.recorder.discard()
        self.resumed = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An epoch ends, or training stops in the middle of it."""
        if float(state.epoch).is_integer():
            self.recorder.end_epoch()
            self._log()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training is over, perhaps as soon as it was resumed."""
        if self.resumed:
            self.on_epoch_begin(args, state, control)

    def _log(self) -> None:
        """Send a summary of the epochs so far to the Trainer's log."""
        p, correct, kept = self.recorder.so_far()
        source, values = self._examples.datasets, _summary(p, correct, kept, "soi/")
        if source is not None:
            for name in self._examples.dataset_names:
                values |= _summary(p, correct, kept & (source == name), f"soi/{name}/")
        due = self.trainer.control.should_log
        self.trainer.log(values)
        self.trainer.control.should_log = due  # the Trainer's own values of this epoch are still to come

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer saved a checkpoint; all processes come here, one writes."""
        folder, recorded = Path(args.output_dir) / f"checkpoint-{state.global_step}", self.recorder.state()
        if args.should_save and folder.is_dir():
            with replacing(folder / FILE) as tmp:
                save_file(recorded, tmp, metadata={"mark": str(self.recorder.fingerprint)})


def _summary(p: list[np.ndarray], correct: list[np.ndarray], chosen: np.ndarray, prefix: str) -> dict[str, float]:
    """What `record` logs of the examples `chosen` (N,) bool after an epoch, from (N,) arrays of the epochs so far."""
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


def _load(path: Path, mark: int) -> dict[str, np.ndarray]:
    """The state that `TrainerRecording.save` left, if it is one of the same examples."""
    if not path.is_file():
        raise FormatError(
            "the checkpoint holds no recording, so its epochs are lost",
            where=path.parent,
            expected=path.name,
            hint="train from the start, or resume from a checkpoint that was recorded",
        )
    try:
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("mark") != str(mark):
                raise AlignmentError(
                    "the recording is one of other examples or options",
                    where=path,
                    hint="resume with the training set, ids and keep_logits of the first run",
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise FormatError(
            "the recording cannot be read", where=path, found=error, hint="resume from an earlier checkpoint"
        ) from error


def _logits(output: Any, rows: int) -> Tensor | None:
    """The class scores in a model's output: its "logits", else the first (rows, C) tensor of numbers in it."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else [output]
    tensors = (part for part in parts if isinstance(part, Tensor))
    return next((t for t in tensors if t.ndim == 2 and len(t) == rows and t.is_floating_point()), None)


def _names(model: Any) -> tuple[str, ...]:
    """Class names out of a model's config, unless they are the ones that transformers makes up."""
    known = getattr(getattr(model, "config", None), "id2label", None) or {}
    names = tuple(str(known[i]) for i in sorted(known))
    return () if names == tuple(f"LABEL_{i}" for i in range(len(names))) else names
