"""Token ids equal those of transformers; trimmed encoders give the same bits from the used rows only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from soi_lib.errors import EncoderError
from soi_lib.models.encoder import encoder_card, encoder_dir
from soi_lib.models.vocabulary import Tokens, load_trimmed, remap, tokenize

pytestmark = pytest.mark.usefixtures("wheels")

TEXTS = ["Turn on the lights", "", "می\u200cخواهم چراغ را روشن کنم", "L'été, à Nîmes — 19 °C", "word " * 300, "😀 𓀀 x"]
PAIRS = ["Switch the lamps on", "second", "", "a " * 400, "other " * 290, "b"]


@pytest.mark.parametrize("name", ["minilm", "e5"])
@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_same_ids_as_transformers(name: str, pairs: list[str] | None) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(encoder_dir(name))
    expected = reference(TEXTS, pairs, truncation="longest_first", max_length=128, return_token_type_ids=True)
    found = tokenize(name, TEXTS, pairs)
    assert (found.ids.dtype, found.offsets.dtype) == (np.int32, np.int64)
    assert [ids.tolist() for ids in np.split(found.ids, found.offsets[1:-1])] == expected["input_ids"]
    flat = np.concatenate(expected["token_type_ids"])
    if name == "minilm" and pairs is not None:
        assert found.segments is not None
        assert found.segments.dtype == np.uint8
        assert np.array_equal(found.segments, flat)
    else:
        assert found.segments is None
        assert not flat.any()
    assert found.truncated == (1 if pairs is None else 2)
    assert found.lengths.tolist() == [len(ids) for ids in expected["input_ids"]]


FIRST = ["Turn on the kitchen lights", "pause", "چراغ\u200cها را روشن کن", "Allume la lumière du salon"]
SECOND = ["lights", "What is the weather like in Paris tomorrow evening?", "x", "Éteins tout"]


def batch(tokens: Tokens, ids: np.ndarray, pad: int) -> dict[str, torch.Tensor]:
    mask = np.arange(tokens.lengths.max()) < tokens.lengths[:, None]
    out = {"input_ids": np.full(mask.shape, pad), "attention_mask": mask.astype(np.int64)}
    out["input_ids"][mask] = ids
    if tokens.segments is not None:
        out["token_type_ids"] = np.zeros(mask.shape, np.int64)
        out["token_type_ids"][mask] = tokens.segments
    return {name: torch.from_numpy(array) for name, array in out.items()}


def states(model: torch.nn.Module, inputs: dict[str, torch.Tensor], *, bf16: bool) -> torch.Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return model(**inputs).last_hidden_state


@pytest.mark.parametrize("name", ["minilm", "e5"])
def test_forward_is_bit_identical(name: str) -> None:
    """The full model as transformers loads it, and the trimmed one, in both precisions."""
    tokens = tokenize(name, FIRST, SECOND, prefix=encoder_card(name).prefix)
    full = AutoModel.from_pretrained(encoder_dir(name), add_pooling_layer=False).eval()
    pad = full.config.pad_token_id
    expected = [states(full, batch(tokens, tokens.ids, pad), bf16=bf16) for bf16 in (False, True)]
    rows = full.get_input_embeddings().num_embeddings

    loaded, id_map = load_trimmed(name, [tokens.ids, np.arange(5000, 8000)])
    assert len(id_map) == rows
    assert 3000 < loaded.get_input_embeddings().num_embeddings < 3100
    inputs = batch(tokens, remap(tokens.ids, id_map), loaded.config.pad_token_id)
    assert int(inputs["input_ids"].max()) < loaded.config.vocab_size == len(loaded.get_input_embeddings().weight)
    for bf16, bits in zip((False, True), expected, strict=True):
        assert torch.equal(states(loaded, inputs, bf16=bf16), bits)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}


def save(model: torch.nn.Module, folder: Path) -> Path:
    """Save a model and a tokenizer as users do."""
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((encoder_dir("minilm") / "tokenizer.json").read_bytes())
    return folder


SMALL = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32}
USERS = {
    "positions from the padding id on": lambda: XLMRobertaModel(XLMRobertaConfig(**SMALL, pad_token_id=1)),
    "names with a prefix": lambda: BertForMaskedLM(BertConfig(**SMALL)),
    "half precision": lambda: BertForMaskedLM(BertConfig(**SMALL)).bert.to(torch.bfloat16),
    "no segments": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=400, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    ),
}


@pytest.mark.parametrize("kind", USERS)
def test_encoders_of_users(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    folder = save(USERS[kind](), tmp_path / "own")
    full = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    pad = full.config.pad_token_id
    ids = np.array([[101, 300, 37, 102], [101, 250, 102, pad]])
    capfd.readouterr()
    model, id_map = load_trimmed(folder, ids)
    assert capfd.readouterr().err == "", "other libraries show progress bars or reports"
    assert model.config.vocab_size < 30
    assert id_map[pad] == model.config.pad_token_id
    keep = torch.from_numpy((ids != pad).astype(np.int64))
    expected = states(full, {"input_ids": torch.from_numpy(ids), "attention_mask": keep}, bf16=False)
    new = torch.from_numpy(remap(ids, id_map))
    assert torch.equal(states(model, {"input_ids": new, "attention_mask": keep}, bf16=False), expected)
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in model.parameters())
    if (index := model.get_input_embeddings().padding_idx) is not None:
        assert index == id_map[pad]
        model(input_ids=new).last_hidden_state.square().mean().backward()
        assert not model.get_input_embeddings().weight.grad[index].any(), "padding gets no gradient"


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    folder = save(USERS["names with a prefix"](), tmp_path / "own")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EncoderError, match="own: the encoder cannot be loaded"):
        load_trimmed(folder, np.array([3]))

    (folder / "model.safetensors").write_bytes(whole)
    weights = load_file(folder / "model.safetensors")
    without = {name: value.clone() for name, value in weights.items() if "attention.self.query" not in name}
    save_file(without, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"query\.bias"):
        load_trimmed(folder, np.array([3]))
