from __future__ import annotations

import re

import pytest

from soi_lib.corpora import load
from soi_lib.corpora.base import normalise
from soi_lib.corpora.french import agree
from soi_lib.corpora.homes import FIELDS, HOMES, N_HOMES
from soi_lib.corpora.intents import LABELS, LANGUAGES, PER_INTENT, WORDINGS, held_out, homes_of, shape
from soi_lib.corpora.templates import CLOSE, OPEN, Grammar

pytestmark = pytest.mark.usefixtures("wheels")


def home(ident: str) -> int:
    return int(ident.split("/")[3])


def template(ident: str) -> tuple[str, str]:
    _, intent, place, *_ = ident.split("/")
    return intent, place


def test_the_label_order_is_the_same_in_every_language():
    assert {load(language).labels for language in LANGUAGES} == {LABELS}


@pytest.mark.parametrize("language", LANGUAGES)
def test_homes_are_whole_and_parallel(language):
    assert len(HOMES[language]) == N_HOMES == 14
    values = [home[f] for home in HOMES[language] for f in FIELDS if f != "timer"]
    assert len(set(values)) == len(values)


def test_persian_uses_the_joiner_and_no_arabic_letters():
    text = "".join(v for home in HOMES["fa"] for v in home.values())
    assert "\u200c" in text
    assert not set("يك") & set(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_homes_are_in_the_same_split_in_every_language(language):
    corpus, where = load(language), homes_of()
    for name, split in corpus.splits.items():
        assert {home(i) for i in split.ids} == set(where[name])


@pytest.mark.parametrize("language", LANGUAGES)
def test_rooms_of_other_splits_are_never_mentioned(language):
    where = homes_of()
    for name, split in load(language).splits.items():
        foreign = [HOMES[language][h]["media_player"] for s, hs in where.items() if s != name for h in hs]
        words = {re.sub(r"^(le |la |les |l')", "", f).casefold() for f in foreign}
        pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, sorted(words))) + r")(?!\w)")
        mine = {HOMES[language][h]["media_player"].casefold() for h in where[name]}
        for text in split.text:
            hit = pattern.search(normalise(text))
            assert hit is None or any(hit[1] in m for m in mine), text  # `speaker` of `bluetooth speaker`


@pytest.mark.parametrize("language", LANGUAGES)
def test_out_of_distribution_is_a_new_template_or_a_new_wording(language):
    corpus = load(language)
    known = {template(i) for s in ("train", "validation", "test") for i in corpus.splits[s].ids}
    kinds = {"t": 0, "w": 0}
    for ident, text, label in zip(*(getattr(corpus.splits["ood"], f) for f in ("ids", "text", "label")), strict=True):
        kind = ident.split("/")[-1][0]
        kinds[kind] += 1
        has = re.search(WORDINGS[language][LABELS[label]], normalise(text)) is not None
        assert has == (kind == "w"), text
        assert kind == "w" or template(ident) not in known, ident
    assert min(kinds.values()) > 0.3 * len(corpus.splits["ood"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_never_has_the_held_out_wordings(language):
    corpus = load(language)
    for name in ("train", "validation", "test"):
        for text, label in zip(corpus.splits[name].text, corpus.splits[name].label, strict=True):
            assert not re.search(WORDINGS[language][LABELS[label]], normalise(text)), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_intent_is_trained_and_tested(language):
    corpus = load(language)
    for name, wanted in PER_INTENT.items():
        counts = [int((corpus.splits[name].label == c).sum()) for c in range(len(LABELS))]
        assert min(counts) >= 0.6 * wanted, counts
        assert max(counts) <= wanted


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_counts_the_templates_held_out(language):
    corpus = load(language)
    caveats = " ".join(corpus.card.caveats)
    for c, intent in enumerate(LABELS):
        ids = corpus.splits["ood"].ids[corpus.splits["ood"].label == c]
        new = {template(i) for i in ids if i.split("/")[-1][0] == "t"}
        assert f"{intent} {len(new)}" in caveats


def test_held_out_shapes_leave_some_for_training():
    shapes = [f"do {k} {{x}}" for k in range(8)] + ["do it"]
    many = held_out(shapes, lambda _: 1000, "salt")
    few = held_out(shapes, lambda _: 1, "salt")
    assert len(many) == 2
    assert len(few) == 4
    assert many < few
    assert "do it" not in few


def test_templates_that_differ_in_their_slot_have_one_shape():
    grammar = Grammar("fr")
    shapes = [shape(t) for t in grammar.templates("TurnOff")]
    assert len(set(shapes)) < len(shapes)


@pytest.mark.parametrize(
    ("walked", "written"),
    [
        (f"allume la lumière du {OPEN}la cuisine{CLOSE}", "allume la lumière de la cuisine"),
        (f"éteins les {OPEN}le salon{CLOSE}", "éteins le salon"),
        (f"règle l'{OPEN}la chambre{CLOSE} à 5 %", "règle la chambre à 5 %"),
        (f"mets pause au l'{OPEN}l'atelier{CLOSE}", "mets pause à l'atelier"),
        (f"éteins la lampe des {OPEN}le couloir{CLOSE}", "éteins la lampe du couloir"),
        (f"allume l'ampoule la {OPEN}la cave{CLOSE}", "allume l'ampoule de la cave"),
        ("éteins tout les lumière", "éteins toutes les lumières"),
        ("annule ma minuteur", "annule mon minuteur"),
        ("annule l' minuterie", "annule la minuterie"),
        ("mets la film suivante", "mets le film suivant"),
        ("stoppe l'les brasseurs d'air", "stoppe les brasseurs d'air"),
        ("arrête la lecture du la vidéo", "arrête la lecture de la vidéo"),
    ],
)
def test_french_agrees(walked, written):
    assert agree(walked) == written
