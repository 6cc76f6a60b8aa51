"""A real small classifier, real tweets, and a spy that knows examples by their tokens: shared with worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import BertForSequenceClassification, Trainer, TrainingArguments
from transformers.data.data_collator import DataCollatorWithPadding

from paper.datasets import load
from soi_lib.models.encoder import encoder_dir
from soi_lib.models.vocabulary import load_trimmed, remap, special_ids, tokenize, used_tokens
from soi_lib.recorder import DynamicsRecorder

datasets.disable_progress_bars()


def tweets(n: int = 24) -> tuple[datasets.Dataset, torch.nn.Module]:
    """n tokenised tweets with ids and labels, and the first two layers of MiniLM over just their tokens."""
    torch.manual_seed(0)
    folder, split = encoder_dir("minilm"), load("tweets").splits["train"].take(n)
    tokens = tokenize(folder, split.text, None)
    used = used_tokens(tokens.ids, special=special_ids(folder))
    encoder, id_map = load_trimmed(folder, used)
    encoder.encoder.layer = encoder.encoder.layer[:2]
    encoder.config.num_hidden_layers, encoder.config.num_labels = 2, 2
    model = BertForSequenceClassification(encoder.config)
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    rows = {
        "id": list(split.ids),
        "input_ids": [remap(tokens.row(i), id_map).tolist() for i in range(n)],
        "label": split.label.tolist(),
    }
    rows["attention_mask"] = [[1] * len(r) for r in rows["input_ids"]]
    assert len({tuple(r) for r in rows["input_ids"]}) == n
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "input_ids": datasets.List(datasets.Value("int64")),
            "label": datasets.ClassLabel(names=list(load("tweets").labels)),
            "attention_mask": datasets.List(datasets.Value("int64")),
        }
    )
    return datasets.Dataset.from_dict(rows, features=features), model


class Pad:
    """Pads as the tokenizer's collator does, without a tokenizer; refuses what a model does not take."""

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
    data, model = tweets(n)
    return Trainer(model, arguments(folder, **options), Pad(), data)


class Spy:
    """Sees every training forward pass of a model and knows the example by its tokens, not by any id."""

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
        """Our own recorder, given what was seen, with an epoch every `steps` batches."""
        rec = DynamicsRecorder(data["id"][:], data["label"][:], keep_logits=True)
        for i, (rows, logits) in enumerate(self.batches):
            rec.update([data["id"][r] for r in rows], torch.from_numpy(logits))
            if (i + 1) % steps == 0:
                rec.end_epoch()
        return rec


__all__ = ["DataCollatorWithPadding", "Pad", "Spy", "arguments", "trainer_of", "tweets"]
