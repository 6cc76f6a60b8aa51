"""A tiny classifier, generated texts, and a spy that identifies examples by their tokens, for workers too."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from soi_lib.recorder import DynamicsRecorder

datasets.disable_progress_bars()


def texts(n: int = 24) -> tuple[datasets.Dataset, torch.nn.Module]:
    """Return n tokenized texts, all different, with ids and labels, and a tiny random BERT."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=200, max_position_embeddings=64, **shape))
    rows = {
        "id": [f"t{i}" for i in range(n)],
        "input_ids": [[1, 2 + i, *draw.integers(40, 200, draw.integers(3, 20)).tolist()] for i in range(n)],
        "label": draw.integers(0, 2, n).tolist(),
    }
    rows["attention_mask"] = [[1] * len(r) for r in rows["input_ids"]]
    data = datasets.Dataset.from_dict(rows)
    return data.cast_column("label", datasets.ClassLabel(names=["negative", "positive"])), model


class Pad:
    """Pad as the tokenizer's collator does, without a tokenizer; fail on columns that a model does not take."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(f["input_ids"]) for f in features)
        out = {
            k: torch.tensor([list(f[k]) + [0] * (width - len(f[k])) for f in features])
            for k in ("input_ids", "attention_mask")
        }
        assert set(features[0]) <= {"input_ids", "attention_mask", "label", "id"}
        return out | {"labels": torch.tensor([int(f["label"]) for f in features])}


def arguments(folder: Path | str, **options: Any) -> TrainingArguments:
    torch.set_num_threads(1)
    plain: dict[str, Any] = {
        "per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 1e-3, "seed": 3, "use_cpu": True,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_strategy": "no", "optim": "sgd",
    }  # fmt: skip
    return TrainingArguments(str(folder), **(plain | options))


def trainer_of(folder: Path | str, n: int = 24, **options: Any) -> Trainer:
    data, model = texts(n)
    return Trainer(model, arguments(folder, **options), Pad(), data)


class Spy:
    """Keep the logits of every training forward pass; examples are identified by their tokens, not by ids."""

    def __init__(self, model: torch.nn.Module, data: datasets.Dataset) -> None:
        self.place = {tuple(r): i for i, r in enumerate(data["input_ids"])}
        self.batches: list[tuple[list[int], np.ndarray]] = []
        model.register_forward_hook(self.look, with_kwargs=True)

    def look(self, model: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if model.training:
            rows = [
                self.place[tuple(r[m.bool()].tolist())]
                for r, m in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True)
            ]
            logits = output["logits"] if isinstance(output, dict) else output[1]
            self.batches.append((rows, logits.detach().float().numpy().copy()))

    def recorder(self, data: datasets.Dataset, steps: int) -> DynamicsRecorder:
        """Feed our own recorder with what was seen, `steps` batches per epoch."""
        rec = DynamicsRecorder(data["id"][:], data["label"][:], keep_logits=True)
        for i, (rows, logits) in enumerate(self.batches):
            rec.update([data["id"][r] for r in rows], torch.from_numpy(logits))
            if (i + 1) % steps == 0:
                rec.end_epoch()
        return rec
