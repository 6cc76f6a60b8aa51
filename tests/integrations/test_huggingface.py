"""Recording inside a real Trainer, compared with a spy that identifies examples by their tokens."""

import copy
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainers import Pad, Spy, arguments, texts, trainer_of
from transformers import Trainer

from soi_lib.analysis.soi import categorize, soi_shares
from soi_lib.errors import AlignmentError, DuplicateIdError, FormatError, RangeError
from soi_lib.integrations.huggingface import FILE, record
from soi_lib.recorder import DynamicsRecorder


def test_two_lines_and_the_same_bits_as_our_own_recorder(tmp_path):
    trainer = trainer_of(tmp_path)
    spy = Spy(trainer.model, trainer.train_dataset)

    rec = record(trainer, id_column="id")
    trainer.train()
    dyn = rec.finish()

    own = spy.recorder(trainer.train_dataset, steps=3).finish()
    assert dyn.ids.tolist() == trainer.train_dataset["id"][:] == own.ids.tolist()
    assert dyn.p_gold.tobytes() == own.p_gold.tobytes()
    assert np.array_equal(dyn.correct, own.correct)
    assert np.array_equal(dyn.gold, own.gold)
    assert (dyn.epochs, len(dyn), dyn.meta.seed, dyn.meta.record) == (2, 24, 3, "train")
    assert dyn.meta.label_names == ("negative", "positive")
    assert (rec.report.missing, rec.report.repeated) == ((), 0)
    unrecorded = trainer_of(tmp_path)
    unrecorded.train()
    for name, value in unrecorded.model.state_dict().items():  # recording does not change training
        assert torch.equal(value, trainer.model.state_dict()[name]), name


def test_accumulation_length_groups_workers_and_evaluation(tmp_path):
    options = {
        "gradient_accumulation_steps": 2, "train_sampling_strategy": "group_by_length", "eval_strategy": "epoch",
        "dataloader_num_workers": 1, "label_smoothing_factor": 0.1, "per_device_train_batch_size": 5,
        "remove_unused_columns": False, "bf16": True,
    }  # fmt: skip

    data, model = texts()
    trainer = Trainer(model, arguments(tmp_path, **options), Pad(), data, eval_dataset=data)
    spy = Spy(trainer.model, trainer.train_dataset)
    rec = record(trainer, "id", keep_logits=True, meta={"member": "films"})
    trainer.train()
    assert len(spy.batches) == 2 * 5
    assert rec.finish().fingerprint() == spy.recorder(trainer.train_dataset, steps=5).finish().fingerprint()
    assert rec.finish().meta.member == "films"


def test_trackers_show_every_epoch_of_every_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    data, model = texts()
    data = data.add_column("source", ["mail", "forum", "mail"] * 8)
    options = {"report_to": "tensorboard", "logging_strategy": "epoch", "num_train_epochs": 3, "learning_rate": 0.1}
    trainer = Trainer(model, arguments(tmp_path, **options), Pad(), data)
    rec = record(trainer, "id", dataset_column="source")
    trainer.train()
    whole, parts = rec.finish(), rec.by_dataset()
    assert {name: (dyn.meta.member, len(dyn)) for name, dyn in parts.items()} == {
        "forum": ("forum", 8), "mail": ("mail", 16),
    }  # fmt: skip
    assert parts["forum"].ids.tolist() == data["id"][1::3]
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    shown = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert len(shown["train/loss"]) == 3  # the Trainer's own
    assert any(whole.correct[0] & ~whole.correct[1]), "without forgetting the test shows nothing"
    for prefix, dyn in {"": whole, "forum/": parts["forum"], "mail/": parts["mail"]}.items():
        for e in range(3):
            expected = {
                **soi_shares(categorize(dyn.correct[: e + 1])),
                "confidence": dyn.p_gold[: e + 1].mean(0).mean(),
                "accuracy": dyn.correct[e].mean(),
                "loss": -np.log(dyn.p_gold[e]).mean(),
                "newly_forgotten": (dyn.correct[e - 1] & ~dyn.correct[e]).sum() if e else 0,
            }
            got = {name: shown[f"train/soi/{prefix}{name}"][e] for name in expected}
            assert got == pytest.approx(expected, abs=1e-6), (prefix, e)


class Items(torch.utils.data.Dataset):
    """A plain PyTorch dataset: no columns, tensors inside."""

    def __init__(self, rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i):
        return {k: torch.tensor(v) if k != "id" else v for k, v in self.rows[i].items()}


class Wrapped(torch.nn.Module):
    """A model of one's own: no config, another kind of output."""

    def __init__(self, model, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, input_ids, attention_mask, labels=None):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        if self.kind == "tuple":
            return out.loss, out.logits, out.logits[:, :1]
        name = "logits" if self.kind == "dict" else "scores"
        return {"loss": out.loss, "embedding": torch.ones(len(input_ids), 2), name: out.logits}


@pytest.mark.parametrize("kind", ["tuple", "dict", "chosen"])
def test_other_datasets_and_outputs(tmp_path, kind):
    data, model = texts(16)
    spy = Spy(model, data)
    trainer = Trainer(Wrapped(model, kind), arguments(tmp_path, num_train_epochs=1), Pad(), Items(data))
    choose = {"logits": lambda out: out["scores"]} if kind == "chosen" else {}
    rec = record(trainer, **choose) if kind == "dict" else record(trainer, "id", **choose)
    trainer.train()
    own, dyn = spy.recorder(data, steps=2).finish(), rec.finish()
    assert dyn.p_gold.tobytes() == own.p_gold.tobytes()
    assert dyn.ids.tolist() == (list(range(16)) if kind == "dict" else own.ids.tolist())


def test_a_custom_loss_and_a_lazy_transform(tmp_path):
    class Twice(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            labels = inputs.pop("labels")
            first, second = model(**inputs), model(**inputs)  # the first one is recorded
            first.logits.mul_(0.5)  # must not change what was recorded
            loss = torch.nn.functional.cross_entropy(first.logits + second.logits, labels)
            return (loss, first) if return_outputs else loss

    data, model = texts(16)
    lazy = data.with_transform(lambda rows: {k: rows[k] for k in ("input_ids", "attention_mask", "label")})
    spy = Spy(model, data)
    trainer = Twice(model, arguments(tmp_path, remove_unused_columns=False, num_train_epochs=1), Pad(), lazy)
    rec = record(trainer, "id", keep_logits=True)
    trainer.train()
    spy.batches = spy.batches[::2]
    assert rec.finish().fingerprint() == spy.recorder(data, steps=2).finish().fingerprint()
    assert rec.report.repeated == 0


def test_every_checkpoint_continues_to_the_same_bits(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1}
    options |= {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    whole = trainer_of(tmp_path, **options)
    rec = record(whole, "id", keep_logits=True)
    whole.train()  # 6 batches and 3 updates an epoch
    expected = rec.finish().fingerprint()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"checkpoint-{i}" for i in range(1, 7)]
    for step in range(1, 7):  # 3 and 6 were saved after the last step of an epoch, before its end
        assert (tmp_path / f"checkpoint-{step}" / FILE).is_file()
        trainer = trainer_of(tmp_path, **options | {"save_strategy": "no"})
        rec = record(trainer, "id", keep_logits=True)
        trainer.train(resume_from_checkpoint=True if step == 6 else str(tmp_path / f"checkpoint-{step}"))
        assert rec.finish().fingerprint() == expected, step
        assert (rec.report.missing, rec.report.repeated) == ((), 0)
        assert sum("soi/ACE" in logged for logged in trainer.state.log_history) == 2, step


def test_missing_repeated_and_unfinished_are_reported(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "soi_lib")
    trainer = trainer_of(tmp_path, n=20, dataloader_drop_last=True, max_steps=5)  # 2 of 2.5 batches; 2.5 epochs
    rec = record(trainer, "id")
    trainer.train()
    dyn = rec.finish()
    assert dyn.epochs == 2
    assert rec.report.unfinished == 8  # of the third epoch: reported, not part of the result
    assert 12 <= len(dyn) <= 16
    assert len(rec.report.missing) == 20 - len(dyn) == dyn.meta.extra["recorded_missing"]
    assert "examples missed an epoch" in caplog.text
    trainer.train()  # a new training is a new recording
    assert rec.finish().epochs == 2


def test_detaching_restores_the_trainer(tmp_path):
    trainer = trainer_of(tmp_path, num_train_epochs=1)
    before, callbacks = dict(vars(trainer)), list(trainer.callback_handler.callbacks)
    rec = record(trainer)
    with pytest.raises(FormatError, match=r"already being recorded"):
        record(trainer)
    trainer.train()
    copy.deepcopy(trainer.model)  # no hook of ours is left on it
    rec.detach()
    ours = ("train", "training_step", "get_train_dataloader")
    assert not set(ours) & set(vars(trainer))  # its class's own methods again
    assert trainer.data_collator is before["data_collator"]
    assert trainer.train_dataset is before["train_dataset"]
    assert trainer.callback_handler.callbacks == callbacks
    assert "soi" not in str(trainer.model._forward_hooks)
    trainer.train()
    assert rec.finish().epochs == 1


def test_mistakes_are_named(tmp_path):
    data, model = texts(16)

    def made(dataset, collator=None, **options) -> Trainer:
        return Trainer(model, arguments(tmp_path, num_train_epochs=1, **options), collator or Pad(), dataset)

    unlabelled = data.remove_columns("label")
    for dataset, arguments_of_record, kind, named in (
        (data, {"id_column": "idx"}, FormatError, "idx"),
        (unlabelled, {"id_column": "id"}, FormatError, "gold="),
        (data, {"ids": ["a"] * 16}, DuplicateIdError, "'a'"),
        ([(1, 2)] * 3, {}, FormatError, "tuple"),
    ):
        with pytest.raises(kind, match=named):
            record(made(dataset), **arguments_of_record)

    class Flipped(Pad):
        def __call__(self, features):
            batch = super().__call__(features)
            return batch | {"labels": 1 - batch["labels"]}

    trainer = made(data, Flipped())
    record(trainer, "id")
    with pytest.raises(FormatError, match="id '"):
        trainer.train()
    trainer = made(data)
    rec = record(trainer, "id", logits=lambda out: None)
    with pytest.raises(FormatError, match="logits="):
        trainer.train()
    with pytest.raises(FormatError, match="dataset_column="):
        rec.by_dataset()
    trainer = made(data, logging_nan_inf_filter=True)
    rec = record(trainer, "id")
    with torch.no_grad():
        trainer.model.classifier.bias[0] = float("nan")
    with pytest.raises(RangeError, match="epoch 0"):
        trainer.train()
    trainer = made(data)
    record(trainer)
    trainer.train_dataset = data.select(range(8))
    with pytest.raises(FormatError, match="8 rows"):
        trainer.train()


def test_checkpoints_without_a_usable_recording_are_named(tmp_path):
    options = {"save_strategy": "epoch", "num_train_epochs": 2}
    trainer = trainer_of(tmp_path, n=8, **options)
    record(trainer, "id")
    trainer.train()
    first = tmp_path / "checkpoint-1"

    def resumed(message: str, kind: type[Exception], ids="id") -> None:
        trainer = trainer_of(tmp_path, n=8, **options)
        record(trainer, ids)
        with pytest.raises(kind, match=message):
            trainer.train(resume_from_checkpoint=str(first))

    resumed(FILE, AlignmentError, None)
    (first / FILE).write_bytes((first / FILE).read_bytes()[:-5])
    resumed(FILE, FormatError)
    (first / FILE).unlink()
    resumed("checkpoint-1", FormatError)


WORKER = """
import sys, numpy as np, torch
sys.path.insert(0, sys.argv[1])
from accelerate import debug_launcher
from trainers import Spy, trainer_of
from safetensors.numpy import save_file
from soi_lib.integrations.huggingface import record
folder = sys.argv[2]
options = dict(per_device_train_batch_size=4, gradient_accumulation_steps=2, save_strategy="steps", save_steps=3)

def one():
    trainer = trainer_of(folder + "/run", n=22, **options)
    spy = Spy(trainer.model, trainer.train_dataset)
    rec = record(trainer, "id", keep_logits=True)
    trainer.train()
    dyn, report = rec.finish(), rec.report
    out = {"p": dyn.p_gold, "logits": dyn.logits, "correct": dyn.correct, "n": np.array([report.kept, report.repeated])}
    for i, (rows, logits) in enumerate(spy.batches):
        out |= {f"rows/{i}": np.array(rows), f"seen/{i}": logits}
    again = trainer_of(folder + "/run", n=22, **options | {"save_strategy": "no"})
    resumed = record(again, "id", keep_logits=True)
    again.train(resume_from_checkpoint=folder + "/run/checkpoint-3")
    assert resumed.finish().fingerprint() == dyn.fingerprint()
    assert (resumed.report.kept, resumed.report.repeated) == (report.kept, report.repeated)
    out["ids"] = np.frombuffer(" ".join(dyn.ids).encode(), np.uint8)
    rank = trainer.args.process_index
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, f"{folder}/out{rank}.safetensors")

debug_launcher(one, num_processes=2)
"""
"""A program that forks two processes, so that both share the time of its imports."""


def test_two_processes(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [load_file(tmp_path / f"out{rank}.safetensors") for rank in range(2)]
    data, _ = texts(22)
    own = DynamicsRecorder(data["id"][:], data["label"][:], keep_logits=True)
    steps = len([k for k in ranks[0] if k.startswith("rows/")])
    assert steps == 2 * 3  # 22 examples, 2 processes, batches of 4: 3 batches per epoch, the last one padded by 2
    for i in range(steps):
        rows, logits = (np.concatenate([rank[f"{what}/{i}"] for rank in ranks]) for what in ("rows", "seen"))
        own.update([data["id"][int(r)] for r in rows], torch.from_numpy(logits))
        if i % 3 == 2:
            own.end_epoch()
    dyn = own.finish()
    for got in ranks:
        assert bytes(got["ids"]).decode().split(" ") == dyn.ids.tolist() == data["id"][:]
        assert got["p"].tobytes() == dyn.p_gold.tobytes()
        assert got["logits"].tobytes() == dyn.logits.tobytes()
        assert np.array_equal(got["correct"], dyn.correct)
        assert got["n"].tolist() == [22, own.report.repeated] == [22, 4]
