"""A saved model gives the predictions of its training, for every architecture that the documentation names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from soi_lib.errors import EncoderError, FormatError
from soi_lib.models.encoder import encoder_dir
from soi_lib.models.vocabulary import load_trimmed, tokenize
from soi_lib.training.batching import encode
from soi_lib.training.classifier import load_classifier, save_classifier
from soi_lib.training.engine import TrainConfig, TrainMember, train
from soi_lib.training.outcome import TrainResult

TEXTS = ["the lights are on", "what a sad and very long film that never wanted to end", "fine", "not good at all, no"]
DATASETS = {"films": ("bad", "good"), "rooms": ("dark", "light")}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
ARCHITECTURES = {
    "Bert": SIZES,
    "Roberta": SIZES | {"pad_token_id": 1},
    "XLMRoberta": SIZES | {"pad_token_id": 1},
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "Electra": SIZES | {"embedding_size": 16},
    "DebertaV2": SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "ModernBert": SIZES | {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102},
}  # fmt: skip


def tiny(kind: str, folder: Path) -> Path:
    """An encoder with random weights and the vocabulary of MiniLM."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=30_522, **ARCHITECTURES[kind])
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((encoder_dir("minilm") / name).read_bytes())
    return folder


def trained(encoder: Path, folder: Path, pooling: str) -> TrainResult:
    """Train and evaluate on the same texts, and save the model in `folder`."""
    torch.set_num_threads(1)
    tokens = tokenize(encoder, TEXTS)
    network, id_map = load_trimmed(encoder, [tokens.ids])
    gold = np.array([0, 1, 0, 1])
    members = []
    for i, (name, labels) in enumerate(DATASETS.items()):
        data = encode(tokens, id_map, gold, member=i)
        members.append(TrainMember(name, labels, np.arange(4), {"train": data, "test": data}))
    config = TrainConfig(epochs=3, batch_size=2, learning_rate=1e-2, pooling=pooling, precision="fp32")
    result = train(network, members, config, device="cpu")
    save_classifier(
        folder,
        result.weights,
        encoder=encoder,
        vocabulary=np.flatnonzero(id_map >= 0),
        datasets=DATASETS,
        pooling=pooling,
        max_length=64,
    )
    return result


@pytest.mark.usefixtures("wheels")
@pytest.mark.parametrize(("kind", "pooling"), [("Bert", "cls"), *((kind, "mean") for kind in ARCHITECTURES)])
def test_the_saved_model_predicts_what_the_training_predicted(kind: str, pooling: str, tmp_path: Path) -> None:
    result = trained(tiny(kind, tmp_path / "encoder"), tmp_path / "model", pooling)
    model = load_classifier(tmp_path / "model", device="cpu")
    for name, labels in DATASETS.items():
        found = model.predict(TEXTS, dataset=name)
        expected = result.predictions[name]["test"].probabilities
        np.testing.assert_allclose(found[list(labels)].to_numpy(), expected, atol=1e-5)
        assert list(found["label"]) == [labels[i] for i in expected.argmax(1)]
        alone = [model.predict([text], dataset=name)["p"][0] for text in TEXTS]
        np.testing.assert_allclose(alone, found["p"], atol=1e-5)
    with pytest.raises(FormatError, match="no such dataset"):
        model.predict(TEXTS, dataset="film")
    with pytest.raises(EncoderError, match="no model here"):
        load_classifier(tmp_path / "encoder")
