"""Small generated datasets and an encoder in the form of the authors': columns, splits, labels, flaws.

The words of a text come from a list of its label and a common list, so that there is something to learn. As in real
data, every OOD split contains one training text and one empty text, those of intents also an unknown intent.
"""

import random
from pathlib import Path
from typing import Any

import pandas as pd

SIZES = {"train": 40, "validation": 8, "test": 16, "OOD": 20}
COMMON = ["the", "a", "of", "and", "with", "from", "into", "over", "under", "near", "this", "that", "some", "any"]
MEMBERS: dict[str, tuple[tuple[str, ...], str, list[Any]]] = {  # columns of text, column of labels, their values
    "entailment": (("premise", "hypothesis"), "label", ["entails", "neutral"]),
    "paraphrase": (("sentence1", "sentence2"), "label", [0, 1]),
    "sentiment": (("text",), "airline_sentiment", ["negative", "positive"]),
    "twitter": (("text",), "sentiment", [0, 4]),
    "yelp": (("text",), "label", [0, 1]),
    "imdb": (("text",), "label", [0, 1]),
    "en": (("utt",), "intent", ["alarm", "music", "weather", "oos"]),
    "fr": (("utt",), "intent", ["alarm", "music", "weather", "oos"]),
    "fa": (("utt",), "intent", ["alarm_set", "play_music", "weather_query"]),
}


def words(member: str, value: Any) -> list[str]:
    """Return words that only texts with this label contain."""
    return [f"{member}{value}{letter}".replace("_", "") for letter in "abcdefgh"]


def tables(member: str) -> dict[str, pd.DataFrame]:
    sides, label, values = MEMBERS[member]
    out: dict[str, pd.DataFrame] = {}
    for split, n in SIZES.items():
        draw = random.Random(f"{member} {split}")
        rows = []
        for i in range(n):
            value = values[i % len(values)]
            row: dict[str, Any] = {
                side: " ".join(draw.choices(COMMON, k=4) + draw.choices(words(member, value), k=3)) + f" {split} {i}"
                for side in sides
            }
            rows.append(row | {label: value} | ({"idx": i} if member == "paraphrase" else {}))
        if split == "OOD":
            rows[-1] |= {side: out["train"][side][0] for side in sides}
            rows[-2][sides[-1]] = ""
            if label == "intent":
                rows[-3][label] = "never seen"
        out[split] = pd.DataFrame(rows)
    return out


def as_parquet(member: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in tables(member).items():
        table.to_parquet(folder / f"{split}.parquet", index=False)
    return folder


def tiny_bert(folder: Path, *, layers: int = 1) -> Path:
    """Save a random BERT for pretraining under the parameter names of the first BERTs.

    These have the prefix `bert.`, `gamma` and `beta` in layer norms, and heads that an encoder does not have.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForPreTraining, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [w for m, (_, _, values) in MEMBERS.items() for v in values for w in words(m, v)]
    places = [split.lower() for split in SIZES] + [str(d) for d in range(10)] + [f"##{d}" for d in range(10)]
    vocabulary = {w: i for i, w in enumerate([*special, *COMMON, *pieces, *places])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.2}
    config = BertConfig(vocab_size=len(vocabulary), num_hidden_layers=layers, **sizes)
    BertForPreTraining(config).save_pretrained(folder)
    weights = {}
    for name, value in load_file(folder / "model.safetensors").items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        weights[old] = value + 0.1 * torch.randn(value.shape) if "Norm" in old else value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder
