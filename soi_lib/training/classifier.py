"""A trained model saved as a self-contained folder, and its predictions on new texts.

Training reads only the token rows that its texts use, but the folder contains all of them: rows that training never
used are those of the pretrained encoder. If transformers has a class of the same shape (BERT with its pooler and one
set of labels), the folder is saved for that class and `AutoModelForSequenceClassification` can load it too. The encoder
of any other model is saved in `encoder/`, so that no such class loads half of a model and initialises the rest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from soi_lib.errors import EncoderError, FormatError, nearest
from soi_lib.files import building, write_json
from soi_lib.models.encoder import encoder_card, encoder_dir
from soi_lib.models.multitask import Heads, MultiTaskModel
from soi_lib.models.vocabulary import load_trimmed, quiet_transformers, tokenize
from soi_lib.training.batching import encode
from soi_lib.training.checkpoint import full_disk_as_os_error, read_tensors, save_tensors
from soi_lib.training.device import resolve_device, torch_device
from soi_lib.training.outcome import predict

if TYPE_CHECKING:
    import pandas as pd

ABOUT, HEADS, ENCODER = "soi.json", "heads.safetensors", "encoder"
_FORMAT = 1
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip


def save_classifier(
    folder: Path,
    weights: Mapping[str, Tensor],
    *,
    encoder: str | Path,
    vocabulary: np.ndarray,
    datasets: Mapping[str, tuple[str, ...]],
    pooling: str,
    max_length: int,
    pairs: Sequence[str] = (),
    run: str = "",
) -> Path:
    """Write a trained model as a folder, replacing an existing one.

    Args:
        weights: the trained weights by name, as in `TrainResult.weights`.
        encoder: name or folder of the encoder that was trained.
        vocabulary: the token of each row of the trained embedding, (K,) int64.
        datasets: the label names of every dataset, in the order of training.
        max_length: the maximum number of tokens per text; the rest is truncated.
        pairs: the datasets whose examples are pairs of texts.
        run: the key of the run that trained it.
    """
    source = encoder_dir(encoder)
    model = _untrained(source, datasets, pooling)
    network: Any = model.encoder
    rows = network.get_input_embeddings().weight
    name = next(name for name, parameter in model.named_parameters() if parameter is rows)
    whole = rows.detach().clone()
    whole[torch.from_numpy(vocabulary)] = weights[name].detach().cpu().float()
    model.load_state_dict({k: v.detach().cpu() for k, v in weights.items()} | {name: whole})
    labels = list(dict.fromkeys(datasets.values()))
    about = {
        "format": _FORMAT,
        "pooling": pooling,
        "max_length": max_length,
        "prefix": encoder_card(encoder).prefix,
        "run": run,
        "datasets": {dataset: list(names) for dataset, names in datasets.items()},
        "pairs": list(pairs),
        "transformers": network.config.model_type == "bert" and pooling == "pooler" and len(labels) == 1,
    }
    with building(folder, replace=True) as out, full_disk_as_os_error(), quiet_transformers():
        inner = out if about["transformers"] else out / ENCODER
        inner.mkdir(exist_ok=True)
        if about["transformers"]:
            _as_bert(model, labels[0]).save_pretrained(inner)
        else:
            network.save_pretrained(inner)
            save_tensors(out / HEADS, {k: v.contiguous() for k, v in model.heads.linear.state_dict().items()}, {})
        for file in _TOKENIZER:
            if (source / file).is_file():
                shutil.copyfile(source / file, inner / file)
        write_json(out / ABOUT, about)
    return folder


def _untrained(folder: Path, datasets: Mapping[str, tuple[str, ...]], pooling: str) -> MultiTaskModel:
    """Return the encoder in `folder` with new heads for `datasets`."""
    network, _ = load_trimmed(folder, None, pooler=pooling == "pooler")
    config: Any = network.config
    heads = Heads(config.hidden_size, list(datasets.values()), dropout=0.0, seed=0)
    return MultiTaskModel(network, heads, pooling=pooling)


def _as_bert(model: MultiTaskModel, labels: tuple[str, ...]) -> Any:
    """Return the model as an instance of transformers' own class."""
    from transformers import BertForSequenceClassification

    config: Any = model.encoder.config
    config.num_labels = len(labels)
    config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    made = BertForSequenceClassification(config)
    made.bert.load_state_dict(model.encoder.state_dict())
    made.classifier.load_state_dict(model.heads.linear.state_dict())
    return made


@dataclass(frozen=True)
class Classifier:
    """A trained model for prediction; see `load_classifier`.

    datasets: the label names of every dataset it was trained on; pairs: the datasets whose examples are pairs of texts.
    """

    model: MultiTaskModel
    folder: Path
    datasets: dict[str, tuple[str, ...]]
    pairs: tuple[str, ...]
    max_length: int
    prefix: str
    device: str

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, dataset: str | None = None
    ) -> pd.DataFrame:
        """Predict the labels of texts, or of pairs of texts.

        Args:
            pairs: the second texts of N pairs.
            dataset: the dataset whose labels to predict; may be omitted if there is only one.

        Returns:
            One row per text: label (the most probable one), p (its probability), and the probability of every label.

        Raises:
            FormatError: the dataset is not one of the model's, or `pairs` is missing or not expected.
            EncoderError: a value is not text, or `texts` and `pairs` differ in length.
        """
        import pandas as pd

        dataset = self._known(dataset)
        if pairs is None and dataset in self.pairs:
            what, hint = "the model was trained on pairs of texts", "give both: --text COLUMN --text-pair COLUMN"
            raise FormatError(what, where=self.folder, found="single texts", hint=hint)
        if pairs is not None and dataset not in self.pairs:
            what, hint = "the model was trained on single texts", "give one text: --text COLUMN"
            raise FormatError(what, where=self.folder, found="pairs", hint=hint)
        number = list(self.datasets).index(dataset)
        labels = self.datasets[dataset]
        columns = self.model.heads.columns[number]
        tokens = tokenize(self.folder, texts, pairs, max_length=self.max_length, prefix=self.prefix)
        size = int(self.model.encoder.config.vocab_size)  # type: ignore[union-attr, arg-type]
        data = encode(tokens, np.arange(size), np.zeros(len(texts), dtype=np.int64), member=number)
        padding = int(self.model.encoder.config.pad_token_id or 0)  # type: ignore[union-attr, arg-type]
        found = predict(self.model, data, columns, pad=padding, device=torch_device(self.device))
        p = found.probabilities
        best = p.argmax(axis=1)
        table = {"label": np.array(labels, dtype=object)[best], "p": p[np.arange(len(p)), best]}
        return pd.DataFrame(table | {name: p[:, i] for i, name in enumerate(labels)})

    def _known(self, dataset: str | None) -> str:
        if dataset is None and len(set(self.datasets.values())) == 1:
            return next(iter(self.datasets))
        if dataset not in self.datasets:
            if dataset:
                what, hint = "the model has no such dataset", nearest(dataset, self.datasets)
            else:
                what, first = "the model was trained on several datasets", next(iter(self.datasets))
                hint = f"name the dataset whose labels to predict: soi predict --dataset {first}"
            raise FormatError(what, where=self.folder, found=dataset, expected=" or ".join(self.datasets), hint=hint)
        return dataset


def load_classifier(folder: str | Path, *, device: str = "auto") -> Classifier:
    """Load a model saved by `soi train` or `soi second-stage`.

    Args:
        folder: the folder of the model, or a folder from `soi train` that contains a single model.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        EncoderError: the folder contains no such model, or the model is damaged.
    """
    folder = Path(folder)
    kept = sorted(path.parent for path in folder.glob(f"models/*/{ABOUT}"))
    if len(kept) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in kept[:6])
        raise EncoderError("there are several models", where=folder, found=names, hint="give one of these folders")
    folder = kept[0] if kept else folder
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        datasets = {name: tuple(labels) for name, labels in about["datasets"].items()}
        pooling, own, pairs = about["pooling"], not about["transformers"], tuple(about["pairs"])
        max_length, prefix = int(about["max_length"]), str(about["prefix"])
    except FileNotFoundError:
        beside = sorted(str(path.parent) for path in folder.parent.glob(f"*/{ABOUT}"))
        hint = f"give one of {', '.join(beside[:6])}" if beside else "give a folder that soi train wrote"
        raise EncoderError("there is no model here", where=folder, expected=ABOUT, hint=hint) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise EncoderError("cannot be read", where=folder / ABOUT, found=error, hint="train the model again") from error
    inner = folder / ENCODER if own else folder
    model = _untrained(inner, datasets, pooling).eval()
    if own:
        head, _ = read_tensors(folder / HEADS)
    else:
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            head = {name: file.get_tensor(f"classifier.{name}") for name in ("weight", "bias")}
    linear = model.heads.linear
    if (outputs := len(head["bias"])) != linear.out_features:
        what, expected = "the head has the wrong number of labels", f"{linear.out_features}, as {ABOUT} says"
        raise EncoderError(what, where=folder, found=outputs, expected=expected, hint="train the model again")
    linear.load_state_dict(head)
    device = resolve_device(device)
    return Classifier(model.to(torch_device(device)), inner, datasets, pairs, max_length, prefix, device)
