"""Intents of spoken commands in English, French and Persian: the eighteen that all three share.

Sentence templates are held out, not only sentences: a quarter of an intent's templates is for test, another quarter for
out-of-distribution, and the rest for training. The out-of-distribution sentences also use homes (rooms, devices,
numbers, cities) that no other split mentions. Validation has the templates and homes of training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from paper.datasets.building import card, deduplicate, make
from paper.datasets.french import agree
from paper.datasets.homes import COMMANDS, HOMES, N_HOMES
from paper.datasets.templates import OPEN, Grammar, Template, Values, plain
from soi_lib.data.dataset import Corpus, Split, hashed, normalise

if TYPE_CHECKING:
    import pandas as pd

LANGUAGES = {"en": "English", "fr": "French", "fa": "Persian"}
LABELS = (
    "CancelAllTimers", "CancelTimer", "ClimateGetTemperature", "GetCurrentDate", "GetCurrentTime", "GetWeather",
    "LightSet", "MediaNext", "MediaPause", "MediaUnpause", "Nevermind", "PauseTimer", "StartTimer", "TimerStatus",
    "TurnOff", "TurnOn", "UnpauseTimer", "VacuumCleanArea",
)  # fmt: skip
OOD_HOMES = 3
PER_INTENT = {"train": 20, "validation": 10, "test": 40, "ood": 40}
WALKS = 60  # walks per template and home before it counts as exhausted
# Blocks about scenes, scripts, buttons, locks and valves are left out: their commands are a bare name, or their
# intent follows a convention (unlocking is TurnOff) that no reader could guess.
DOMAINS = ("light", "switch", "fan", "media_player", "cover", "weather")
_TWICE = re.compile(r"\b(lamps?|lights?|chandelier|spotlight|lantern|strip) (lamps?|lights?|lighting)\b")
_DETERMINER = re.compile(rf"(?:\b(?:the|my|our|le|la|les) |\bl' ?)(?={OPEN})")


def homes_of(split: str) -> list[int]:
    """Return the homes that a split mentions, the same in every language: those for training, or those for OOD."""
    order = sorted(range(N_HOMES), key=lambda k: hashed(str(k), "lingual/homes"))
    return sorted(order[-OOD_HOMES:] if split == "ood" else order[:-OOD_HOMES])


def fillings(language: str, home: int, domains: tuple[str, ...]) -> Values:
    """Return the values that can fill the slots of a template in one home; timer durations belong to homes too."""
    values = HOMES[language][home]
    names = [values[d] for d in ("light", "switch", "media_player", "cover") if d in domains]
    numbers = [n for n in range(1, 101) if n % N_HOMES == home]
    hours = [n for n in range(1, 43) if n % N_HOMES == home]
    return {
        "area": [values["area"]],
        "floor": [values["floor"]],
        "name": [values["city"]] if "weather" in domains else names,
        "timer_name": [bare(values["timer"])],
        "timer_command": [c.format(**values) for c in COMMANDS[language]],
        "timer_hours": hours,
        "timer_minutes": numbers,
        "timer_seconds": numbers,
        "brightness": list(range(5, 101, 5)),
    }


def bare(value: str) -> str:
    """Return a French value without its article."""
    return re.sub(r"^(?:le |la |les |l')", "", value)


def shape(template: Template) -> str:
    """Return a template's shape: templates that differ only in the kind of place named by a slot have the same one."""
    text = re.sub(r"\{(area|floor|name)\}", "{place}", template.text)
    return re.sub(r"\{timer_name(:name)?\}", "{timer_name}", " ".join(text.split()))


def roles(shapes: Iterable[str], salt: str) -> dict[str, str]:
    """Assign train, test or ood to each shape of an intent: a quarter, at least one, to test; then as many to ood.

    Training has priority: a single shape goes to train, one of two to test, and only with three or more one to ood.
    """
    ordered = sorted(set(shapes), key=lambda s: hashed(s, salt))
    held = max(1, round(len(ordered) / 4))
    names = ["train"] * len(ordered)
    if len(ordered) > 1:
        names[1 : 1 + held] = ["test"] * held
    if len(ordered) > 2:
        names[1 + held : 1 + 2 * held] = ["ood"] * held
    return dict(zip(ordered, names, strict=True))


def sentences(grammar: Grammar, template: Template, home: int, n: int) -> list[str]:
    """Return up to n distinct sentences of a template in one home."""
    rng = random.Random(f"{grammar.language}/{template.intent}/{template.place}/{home}")
    own = fillings(grammar.language, home, template.domains)
    found = dict[str, str]()
    for _ in range(WALKS + 3 * n):
        walked = grammar.walk(template, rng, own)
        if walked is None:
            break
        text = _DETERMINER.sub("", walked[0]) if "weather" in template.domains else walked[0]
        text = agree(text) if grammar.language == "fr" else plain(text)
        if text and not _TWICE.search(normalise(text)):
            found.setdefault(normalise(text), text)
        if len(found) == n:
            break
    return list(found.values())


def collect(language: str) -> pd.DataFrame:
    """Return many more sentences than needed, with columns id text label group split template form.

    form: the sentence with numbers and the values of its home blanked out.
    """
    import pandas as pd

    grammar = Grammar(language)
    # rules named `..._dirty` match misheard words
    grammar.rules = {name: re.sub(r"\|<\w+_dirty>", "", body) for name, body in grammar.rules.items()}
    rows = []
    for label, intent in enumerate(LABELS):
        templates = [t for t in grammar.templates(intent) if not t.domains or any(d in DOMAINS for d in t.domains)]
        split_of = roles(map(shape, templates), f"lingual/{language}/{intent}")
        for template in templates:
            split = split_of[shape(template)]
            n_templates = list(split_of.values()).count(split)
            quota = 5 * PER_INTENT[split] // (n_templates * len(homes_of(split))) + 5
            name = f"{intent}/{hashed(shape(template), intent)[:6]}"
            for home in homes_of(split):
                for k, text in enumerate(sentences(grammar, template, home, quota)):
                    ident = f"{language}/{intent}/{template.place}/{home:02d}/{k:03d}"
                    group = f"{language}:{normalise(text) if split == 'train' else name}"
                    rows.append((ident, text, label, group, split, name, form(language, text, home)))
    return pd.DataFrame(rows, columns=["id", "text", "label", "group", "split", "template", "form"])


def form(language: str, text: str, home: int) -> str:
    """Return the sentence with numbers and the values of its home blanked out."""
    values = sorted(map(bare, HOMES[language][home].values()), key=len, reverse=True)
    blank = "|".join(re.escape(normalise(value)) for value in values)
    return re.sub(r"\d+", "_", re.sub(blank, "_", normalise(text)))


def choose(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """Choose n rows per class, as evenly over its templates as possible: one of each in turn, in hash order."""
    frame = frame.assign(order=frame["id"].map(lambda i: hashed(i, "choose"))).sort_values("order")
    frame = frame.assign(turn=frame.groupby("template").cumcount()).sort_values(["turn", "order"])
    return frame.groupby("label").head(n).drop(columns=["order", "turn"])


def build(language: str) -> Corpus:
    """Build one language of the lingual comparison; the module's docstring describes its splits."""
    frame = collect(language)
    both = frame["label"].groupby(frame["text"].map(normalise)).transform("nunique") > 1
    frame = frame[~both]
    # A held-out template may produce the same form as another template: such sentences are not new.
    trained, tested = (set(frame["form"][frame["split"] == s]) for s in ("train", "test"))
    stale = (frame["split"] != "train") & frame["form"].isin(trained)
    stale |= (frame["split"] == "ood") & frame["form"].isin(tested)
    frame, counts = deduplicate(frame[~stale])
    counts = {"of two intents": int(both.sum()), "held out, but of a known form": int(stale.sum())} | counts
    parts = {split: choose(frame[frame["split"] == split], PER_INTENT[split]) for split in ("test", "ood")}
    pool = frame[frame["split"] == "train"]
    size = pool.groupby("label")["id"].transform("size")
    order = pool["id"].map(lambda i: hashed(i, "validation")).groupby(pool["label"]).rank()
    seen = order > size // 5  # a fifth of an intent's sentences is for validation, none if there are fewer than five
    parts |= {s: choose(pool[seen == (s == "train")], PER_INTENT[s]) for s in ("train", "validation")}
    splits = {split: Split.from_frame(part) for split, part in parts.items()}
    kinds = frame.groupby("split")["template"].nunique()
    held = {s: set(frame["label"][frame["split"] == s]) for s in ("test", "ood")}
    lacking = {s: ", ".join(i for c, i in enumerate(LABELS) if c not in there) for s, there in held.items()}
    about = card(
        "intents",
        counts,
        language=language,
        language_name=LANGUAGES[language],
        **{split: kinds[split] for split in ("train", "test", "ood")},
        **{f"not_in_{split}": names or "none" for split, names in lacking.items()},
        trained=" They are trained on, and predicting them there counts as an error." if any(lacking.values()) else "",
    )
    return make(language, "lingual", LABELS, splits, about)
