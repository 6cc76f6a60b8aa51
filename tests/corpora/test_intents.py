from __future__ import annotations

import re

import pytest

from paper.datasets import load
from paper.datasets.french import agree
from paper.datasets.homes import CITIES, FIELDS, HOMES, N_HOMES
from paper.datasets.intents import LABELS, LANGUAGES, form, homes_of, roles, shape
from paper.datasets.templates import CLOSE, OPEN, Grammar
from soi_lib.data.baselines import baselines
from soi_lib.data.dataset import normalise

pytestmark = pytest.mark.usefixtures("wheels")


def home(ident: str) -> int:
    return int(ident.split("/")[3])


def shapes(language: str) -> dict[tuple[str, str], str]:
    """The shape of each template of a language by intent and place."""
    grammar = Grammar(language)
    return {(intent, t.place): shape(t) for intent in LABELS for t in grammar.templates(intent)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_homes_are_whole_and_parallel(language):
    assert len(HOMES[language]) == len(CITIES[language]) == N_HOMES == 14
    values = [home[f] for home in HOMES[language] for f in FIELDS if f != "timer"] + CITIES[language]
    assert len(set(values)) == len(values)


def test_persian_uses_the_joiner_and_no_arabic_letters():
    text = "".join(v for home in HOMES["fa"] for v in home.values()) + "".join(CITIES["fa"])
    assert "\u200c" in text
    assert not set("يك") & set(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_templates_are_in_one_split_and_in_no_training_sentence(language):
    corpus, of = load(language), shapes(language)
    found = {
        name: {(i.split("/")[1], of[i.split("/")[1], i.split("/")[2]]) for i in split.ids}
        for name, split in corpus.splits.items()
    }
    trained = found["train"] | found["validation"]
    assert not trained & found["test"]
    assert not (trained | found["test"]) & found["ood"]
    forms = {
        name: {form(language, t, home(i)) for t, i in zip(split.text, split.ids, strict=True)}
        for name, split in corpus.splits.items()
    }
    assert not forms["train"] & forms["test"]
    assert not (forms["train"] | forms["test"]) & forms["ood"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_rooms_of_out_of_distribution_homes_are_mentioned_nowhere_else(language):
    foreign = [HOMES[language][h]["area"] for h in homes_of("ood")]
    words = {re.sub(r"^(le |la |les |l')", "", f).casefold() for f in foreign}
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, sorted(words))) + r")(?!\w)")
    corpus = load(language)
    assert sum(bool(pattern.search(normalise(t))) for t in corpus.splits["ood"].text) > 20
    for name, split in corpus.splits.items():
        assert {home(i) for i in split.ids} <= set(homes_of(name))
        if name != "ood":
            assert not [t for t in split.text if pattern.search(normalise(t))]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_names_the_intents_without_a_held_out_template(language):
    corpus = load(language)
    without = {
        name: [intent for c, intent in enumerate(LABELS) if c not in corpus.splits[name].label]
        for name in ("test", "ood")
    }
    said = [", ".join(names) or "none" for names in without.values()]
    assert f"in test {said[0]}; out-of-distribution {said[1]}." in " ".join(corpus.card.caveats)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_bag_of_words_comes_near_the_top(language):
    for scores in baselines(load(language).labels, load(language).splits)["bag_of_words"].values():
        assert scores["accuracy"] < 0.95


def test_roles_put_training_first_and_keep_a_quarter_each():
    counts = [[list(roles(map(str, range(n)), "salt").values()).count(s) for s in ("train", "test", "ood")]
              for n in (1, 2, 3, 8, 40)]  # fmt: skip
    assert counts == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [4, 2, 2], [20, 10, 10]]


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
