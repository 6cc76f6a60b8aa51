"""One training in its own process, with our engine or the Hugging Face Trainer on the same inputs; for training.py.

Both sides get the same encoder weights, head, token ids, batch size, schedule, clipping and dropout. Each side also has
what its users get: ours uses a trimmed vocabulary, length buckets and recording in the training pass; the Trainer uses
the full vocabulary, dynamic padding, and a callback that predicts the training set after every epoch (in batches of 64,
more than its default of 8), or our `record(trainer)`. Loading, tokenising, a short warm-up training and the prediction
of the test set are not timed on either side.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

SHAPES = {"base128": (128, 128), "basemixed": (12, 128)}
"""Minimum and maximum text length of the corpora for bert-base with random weights."""
RECIPE = {"learning_rate": 1e-4, "warmup": 0.1, "clip": 1.0, "dropout": 0.1}


def make_pack(name: str, examples: int, folder: Path) -> Path:
    """Save all inputs of a training except the texts: token ids, labels, and the weights of the trimmed encoder."""
    from safetensors.torch import save_file

    from paper.datasets import load
    from soi_lib.models.encoder import encoder_card, encoder_dir
    from soi_lib.models.vocabulary import load_trimmed, tokenize

    corpus, encoder = {"english": ("tweets", "minilm"), "intents": ("en", "e5")}[name]
    target = folder / f"{name}-{examples}"
    if (target / "arrays.npz").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    home, given = encoder_dir(encoder), load(corpus)
    splits = {"train": given.splits["train"].take(examples), "test": given.splits["test"].take(500)}
    tokens = {k: tokenize(home, s.text, s.text_pair, prefix=encoder_card(encoder).prefix) for k, s in splits.items()}
    model, id_map = load_trimmed(home, [t.ids for t in tokens.values()])
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, target / "weights.safetensors")
    full = json.loads((home / "config.json").read_text())
    about = {
        "full": full["vocab_size"],
        "full_pad": full.get("pad_token_id") or 0,
        "config": model.config.to_dict(),
        "labels": list(given.labels),
    }
    (target / "about.json").write_text(json.dumps(about, default=str))
    arrays: dict[str, Any] = {"vocabulary": np.flatnonzero(id_map >= 0)}
    for k, split in splits.items():
        arrays |= {f"{k}_token": tokens[k].ids, f"{k}_offset": tokens[k].offsets, f"{k}_gold": split.label}
    with open(target / "arrays.npz", "wb") as handle:
        np.savez(handle, **arrays)
    return target


class Data:
    """The examples of a pack (or random ones for a bert-base shape), and the encoders for both sides."""

    def __init__(self, pack: str, examples: int) -> None:
        from transformers import BertConfig

        if pack in SHAPES:
            rng, (low, high) = np.random.default_rng(0), SHAPES[pack]
            self.config, self.labels, self.full = BertConfig(), ("no", "yes"), 30522
            self.vocabulary, self.pad, self.weights = np.arange(30522), 0, None
            self.splits = {}
            for name, n in (("train", examples), ("test", 64)):
                lengths = rng.integers(low, high + 1, n)
                offset = np.concatenate([[0], np.cumsum(lengths)])
                self.splits[name] = (rng.integers(1000, 30000, offset[-1]), offset, rng.integers(0, 2, n))
            return
        from safetensors.torch import load_file

        about = json.loads((Path(pack) / "about.json").read_text())
        arrays = np.load(Path(pack) / "arrays.npz", allow_pickle=False)
        self.config = BertConfig.from_dict(about["config"])
        self.labels, self.full, self.pad = tuple(about["labels"]), about["full"], about["full_pad"]
        self.vocabulary = arrays["vocabulary"]
        self.weights = {k: v.float() for k, v in load_file(Path(pack) / "weights.safetensors").items()}
        self.splits = {
            k: (arrays[f"{k}_token"], arrays[f"{k}_offset"], arrays[f"{k}_gold"].astype(np.int64))
            for k in ("train", "test")
        }

    def encoder(self, *, trimmed: bool) -> Any:
        """Return a new encoder with a trimmed or the full vocabulary (unused rows are random)."""
        import torch
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        shape = self.config.to_dict() | {"vocab_size": len(self.vocabulary) if trimmed else self.full}
        shape["pad_token_id"] = int(np.searchsorted(self.vocabulary, self.pad)) if trimmed else self.pad
        model = BertModel(BertConfig.from_dict(shape), add_pooling_layer=False)
        if self.weights is not None:
            key = "embeddings.word_embeddings.weight"
            weights = dict(self.weights)
            if not trimmed:
                rows = model.get_input_embeddings().weight.detach().clone()
                rows[torch.from_numpy(self.vocabulary)] = weights[key]
                weights[key] = rows
            model.load_state_dict(weights)
        return model

    def work(self, epochs: int) -> dict[str, float]:
        """Count the tokens and floating-point operations of a training, forward and backward, without padding."""
        lengths = np.diff(self.splits["train"][1])
        layers, hidden, inner = (
            getattr(self.config, k) for k in ("num_hidden_layers", "hidden_size", "intermediate_size")
        )
        linear = layers * (4 * hidden * hidden + 2 * hidden * inner)
        flops = 6.0 * linear * lengths.sum() + 12.0 * layers * hidden * (lengths.astype(float) ** 2).sum()
        return {"tokens": float(lengths.sum() * epochs), "flops": float(flops * epochs)}


def ours(data: Data, given: dict[str, Any], epochs: int, n: int | None = None) -> tuple[float, Any]:
    """Train with our engine; return the seconds without evaluation, and the result."""
    from soi_lib.models.vocabulary import remap
    from soi_lib.training.batching import Encoded
    from soi_lib.training.device import reproducibly
    from soi_lib.training.engine import TrainConfig, TrainMember, train

    id_map = np.full(data.full, -1, np.int64)
    id_map[data.vocabulary] = np.arange(len(data.vocabulary))
    splits = {}
    for name, (token, offset, gold) in data.splits.items():
        size = len(gold) if n is None else min(n, len(gold))
        ids = remap(token[: offset[size]], id_map)
        splits[name] = Encoded(ids, None, offset[: size + 1].astype(np.int64), gold[:size], np.zeros(size, np.int64))
    member = TrainMember("bench", data.labels, np.arange(len(splits["train"])), splits)
    config = TrainConfig(
        epochs=epochs,
        batch_size=given["batch"],
        seed=given["seed"],
        precision=given["precision"],
        record=given.get("record", "train"),
        **RECIPE,
    )
    encoder, device = data.encoder(trimmed=True), given["device"]
    with reproducibly(device) if device == "cuda" else nullcontext():  # as in real runs
        start = time.monotonic()
        result = train(encoder, [member], config, device=device)
        return time.monotonic() - start - result.seconds["evaluate"], result


def trainer(data: Data, given: dict[str, Any], epochs: int, n: int | None = None) -> tuple[float, float]:
    """Train with the Hugging Face Trainer and record every epoch; return seconds and test accuracy."""
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.nn.utils.rnn import pad_sequence
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from soi_lib.integrations.huggingface import record
    from soi_lib.models.multitask import Heads

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = data.encoder(trimmed=False)
            head = Heads(data.config.hidden_size, [data.labels], dropout=0.0, seed=given["seed"])
            self.dropout, self.linear = nn.Dropout(RECIPE["dropout"]), head.linear

        def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> dict[str, Any]:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            keep = attention_mask[..., None].to(states.dtype)
            logits = self.linear(self.dropout((states * keep).sum(1) / keep.sum(1)))
            return {"loss": functional.cross_entropy(logits, labels), "logits": logits}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=data.pad),
            "attention_mask": pad_sequence([torch.ones_like(one) for one in ids], batch_first=True),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    def rows_of(token: Any, offset: Any, gold: Any) -> list[dict[str, Any]]:
        texts = zip(offset[:-1], offset[1:], gold.tolist(), strict=True)
        return [{"input_ids": token[a:b].tolist(), "labels": label} for a, b, label in texts][:n]

    train_rows, test_rows = (rows_of(*data.splits[name]) for name in ("train", "test"))
    history: list[tuple[Any, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        made = Trainer(
            Classifier(),
            TrainingArguments(
                folder,
                per_device_train_batch_size=given["batch"],
                per_device_eval_batch_size=64,
                num_train_epochs=epochs,
                learning_rate=RECIPE["learning_rate"],
                warmup_steps=RECIPE["warmup"],
                max_grad_norm=RECIPE["clip"],
                bf16=given["precision"] == "bf16",
                use_cpu=given["device"] == "cpu",
                seed=given["seed"],
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            collate,
            train_rows,
        )

        class Predict(TrainerCallback):
            def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
                found = made.predict(train_rows)
                scores, gold = np.asarray(found.predictions, dtype=np.float32), np.asarray(found.label_ids)
                e = np.exp(scores - scores.max(1, keepdims=True))
                history.append((e[np.arange(len(gold)), gold] / e.sum(1), scores.argmax(1) == gold))

        recording = record(made) if given["recording"] == "ours" else made.add_callback(Predict())
        start = time.monotonic()
        made.train()
        if recording is not None:
            assert recording.finish().epochs == epochs
        else:
            assert len(history) == epochs
        if given["device"] == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
        found = made.predict(test_rows)
    return seconds, float((found.predictions.argmax(1) == found.label_ids).mean())


def matmul_rate(device: str, size: int) -> tuple[str, float]:
    """Return the precision that our engine uses, and the floating-point operations per second of a matmul in it.

    The rate is the median of ten products of `size` x `size` matrices. Processors without bf16 instructions emulate
    bf16, a hundred times slower, so the precision is fp32 there.
    """
    import torch

    from soi_lib.training.device import resolve_precision

    precision = resolve_precision("auto", torch.device(device).type)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    times = []
    for _ in range(13):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        times.append(time.perf_counter() - start)
    return precision, 2.0 * size**3 / float(np.median(times[3:]))


_start: Any = None  # all trainings of a call begin when this barrier opens


def prepare(start: Any, threads: int | None) -> None:
    """Set up a process that runs one training."""
    global _start
    import torch
    from transformers.utils import logging

    _start = start
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    if threads:
        torch.set_num_threads(threads)


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Train as requested, at the same time as the other processes of the call; return times, accuracy and work."""
    try:
        data = Data(given["pack"], given["examples"])
        do = {"ours": ours, "trainer": trainer}[given["method"]]
        do(data, given, 1, 2 * given["batch"])  # the first steps of a process are slow
        _start.wait()
    except BaseException:
        _start.abort()  # the others must not wait
        raise
    out: dict[str, Any] = {}
    if given["rate"]:
        out["precision"], out["rate"] = matmul_rate(given["device"], 8192 if given["device"] == "cuda" else 2048)
    start = time.monotonic()
    out["seconds"], found = do(data, given, given["epochs"])
    if given["method"] == "ours":
        predicted = found.predictions["bench"]["test"]
        found = float((predicted.predicted == predicted.gold).mean())
    return out | {"accuracy": found, "start": start, "end": start + out["seconds"], **data.work(given["epochs"])}
