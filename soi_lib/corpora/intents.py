"""Intents of spoken commands in English, French and Persian: eight classes, the same in each language.

Two kinds of newness are kept apart. The test split has the templates of training but other homes (rooms, devices and
numbers that training never mentions). The out-of-distribution split has templates, and homes, that training never
used. The same homes are in the same split in every language.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from soi_lib.corpora.base import Card, Corpus, Split, make, normalise
from soi_lib.corpora.french import agree
from soi_lib.corpora.homes import COMMANDS, HOMES, N_HOMES
from soi_lib.corpora.splits import deduplicate, hashed
from soi_lib.corpora.templates import Grammar, Template, Values, plain

if TYPE_CHECKING:
    import pandas as pd

LANGUAGES = ("en", "fr", "fa")
LABELS = (
    "CancelTimer", "LightSet", "MediaNext", "MediaPause", "MediaUnpause", "StartTimer", "TurnOff", "TurnOn",
)  # fmt: skip
HOMES_PER_SPLIT = {"train": 7, "validation": 1, "test": 3, "ood": 3}
PER_INTENT = {"train": 300, "validation": 50, "test": 125, "ood": 100}
ENOUGH = 60
WALKS = 60  # walks a template, home and split asks for before it counts as exhausted
# Blocks about scenes, scripts, buttons, locks and valves are left out: their commands are a bare name, or their
# intent follows a convention (unlocking is TurnOff) that no reader could guess.
DOMAINS = ("light", "switch", "fan", "media_player", "cover")
_TWICE = re.compile(r"\b(lamps?|lights?|chandelier|spotlight|lantern|strip) (lamps?|lights?|lighting)\b")


def homes_of() -> dict[str, list[int]]:
    """The homes of each split, the same for every language."""
    order = sorted(range(N_HOMES), key=lambda k: hashed(str(k), "lingual/homes"))
    out, start = {}, 0
    for split, n in HOMES_PER_SPLIT.items():
        out[split] = sorted(order[start : start + n])
        start += n
    return out


def fillings(language: str, home: int, domains: tuple[str, ...]) -> Values:
    """What may stand in the slots of a template in one home; numbers of timers belong to homes too."""
    values = HOMES[language][home]
    names = [values[d] for d in ("light", "switch", "media_player", "cover") if d in domains]
    numbers = [n for n in range(1, 101) if n % N_HOMES == home]
    hours = [n for n in range(1, 43) if n % N_HOMES == home]
    return {
        "area": [values["area"]],
        "floor": [values["floor"]],
        "name": names,
        "timer_name": [_bare(values["timer"])],
        "timer_command": [c.format(**values) for c in COMMANDS[language]],
        "timer_hours": hours,
        "timer_minutes": numbers,
        "timer_seconds": numbers,
        "brightness": list(range(5, 101, 5)),
    }


def _bare(value: str) -> str:
    return re.sub(r"^(?:le |la |les |l')", "", value)


def wanted(template: Template) -> bool:
    """Whether sentences of this template are about a domain that the homes have."""
    return not template.domains or any(d in DOMAINS for d in template.domains)


def shape(template: Template) -> str:
    """Templates that differ only in what kind of place their slot names count as one."""
    text = re.sub(r"\{(area|floor|name)\}", "{place}", template.text)
    return re.sub(r"\{timer_name(:name)?\}", "{timer_name}", " ".join(text.split()))


def held_out(shapes: Iterable[str], capacity: Callable[[str], int], salt: str) -> set[str]:
    """The shapes of an intent that nobody trains on: about a quarter, at least one, at most half.

    capacity: how many sentences a shape can form in the homes that are held out too. Shapes with slots come first,
    and more than a quarter are taken when a quarter cannot form `ENOUGH` sentences.
    """
    ordered = sorted(shapes, key=lambda s: ("{" not in s, hashed(s, salt)))
    least, most = max(1, round(len(ordered) / 4)), max(1, len(ordered) // 2)
    out: set[str] = set()
    formed = 0
    for name in ordered[:most]:
        if len(out) >= least and formed >= ENOUGH:
            break
        out.add(name)
        formed += capacity(name) if formed < ENOUGH else 0
    return out


def sentences(grammar: Grammar, template: Template, home: int, n: int, salt: str) -> list[str]:
    """Up to n distinct sentences of a template in one home, in the order in which the walks find them."""
    rng = random.Random(f"{salt}/{template.intent}/{template.place}/{home}")
    own = fillings(grammar.language, home, template.domains)
    found: dict[str, str] = {}
    for _ in range(WALKS + 2 * n):
        walked = grammar.walk(template, rng, own)
        if walked is None:
            break
        text = agree(walked[0]) if grammar.language == "fr" else plain(walked[0])
        if text and not _TWICE.search(text):
            found.setdefault(normalise(text), text)
        if len(found) == n:
            break
    return list(found.values())


def collect(language: str) -> pd.DataFrame:
    """Many more sentences than needed: id text label group home split template, with no text under two intents."""
    import pandas as pd

    grammar = Grammar(language)
    grammar.rules = {name: _without_dirt(name, body) for name, body in grammar.rules.items()}
    homes, rows = homes_of(), []
    for label, intent in enumerate(LABELS):
        templates = [t for t in grammar.templates(intent) if wanted(t)]
        by_shape: dict[str, list[Template]] = defaultdict(list)
        for t in templates:
            by_shape[shape(t)].append(t)
        salt = f"lingual/{language}"

        def capacity(name: str, by_shape: dict[str, list[Template]] = by_shape, salt: str = salt) -> int:
            texts = (sentences(grammar, t, h, ENOUGH, salt) for t in by_shape[name] for h in homes["ood"])
            return len({x for found in texts for x in found})

        out = held_out(by_shape, capacity, f"{salt}/{intent}")
        for split, ids in homes.items():
            kept = {s: ts for s, ts in sorted(by_shape.items()) if (s in out) == (split == "ood")}
            quota = max(4, 3 * PER_INTENT[split] // (len(kept) * len(ids)) + 2)
            for ts in kept.values():
                for template in ts:
                    for home in ids:
                        for k, text in enumerate(sentences(grammar, template, home, quota, salt)):
                            ident = f"{language}/{intent}/{template.place}/{home:02d}/{k:03d}"
                            rows.append((ident, text, label, f"{language}:home-{home:02d}", split, template.place))
    return pd.DataFrame(rows, columns=["id", "text", "label", "group", "split", "template"])


def _without_dirt(name: str, body: str) -> str:
    """A rule without its alternatives of misheard words (rules named `..._dirty`)."""
    return re.sub(r"\|<\w+_dirty>", "", body)


def abstract(language: str, text: str, group: str) -> str:
    """The sentence with the values of its home, and numbers, blanked out."""
    values = sorted((_bare(v) for v in HOMES[language][int(group[-2:])].values()), key=len, reverse=True)
    blank = re.sub("|".join(re.escape(normalise(v)) for v in values), "_", normalise(text))
    return re.sub(r"\d+", "_", blank)


def choose(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """n rows, as evenly over templates as they allow: round after round one row of each, in hash order."""
    order = frame["id"].map(lambda i: hashed(i, "choose"))
    frame = frame.assign(order=order).sort_values("order")
    frame = frame.assign(turn=frame.groupby("template").cumcount()).sort_values(["turn", "order"])
    return frame.head(n).drop(columns=["order", "turn"])


def build(language: str) -> Corpus:
    """One language of the lingual comparison; see the module's docstring for its splits."""
    import pandas as pd

    frame = collect(language)
    homeless = frame["text"].map(normalise)
    # A sentence without any slot ("cancel the timer") comes out of every home: it belongs to the one that hashes first.
    frame = frame.assign(key=homeless).sort_values("id")
    first = frame.groupby("key")["group"].transform(lambda g: min(sorted(set(g)), key=lambda x: hashed(x, g.name)))
    frame = frame[frame["group"] == first]
    frame, counts = deduplicate(frame.drop(columns="key"))
    # An out-of-distribution sentence must not be one that a trained template forms with other values.
    form = [abstract(language, t, g) for t, g in zip(frame["text"], frame["group"], strict=True)]
    outside = frame["split"] == "ood"
    frame = frame.assign(form=form)
    known = frame["form"].isin(set(frame.loc[~outside, "form"]))
    counts["trained_form"] = int((outside & known).sum())
    frame = frame[~(outside & known)]
    splits: dict[str, Split] = {}
    for split, n in PER_INTENT.items():
        part = frame[frame["split"] == split]
        chosen = pd.concat([choose(part[part["label"] == c], n) for c in range(len(LABELS))])
        splits[split] = Split.from_frame(chosen)
    return make(language, "lingual", LABELS, splits, card(language, frame, counts))


def card(language: str, frame: pd.DataFrame, counts: dict[str, int]) -> Card:
    """The card of one language."""
    name = {"en": "English", "fr": "French", "fa": "Persian"}[language]
    held: dict[str, Any] = {
        intent: frame.loc[(frame["label"] == c) & (frame["split"] == "ood"), "template"].nunique()
        for c, intent in enumerate(LABELS)
    }
    without = [intent for intent, n in held.items() if not n]
    return Card(
        title=f"Intents of commands in {name}",
        question="Which of eight intents does the command express?",
        origin=f"home-assistant-intents 2026.10.27, data/{language}.json: sentence templates by volunteers; rooms,"
        " floors and devices are ours",
        licence="Apache-2.0 (the package's metadata); the slot values are part of this project (MIT)",
        language=language,
        construction="random walks through the templates of eight intents that all three languages have; fourteen"
        " made-up homes fill the slots; sentences that two intents share are dropped",
        group_by="the home: its rooms, devices and numbers stand in one split only, the same in every language",
        ood="templates, and homes, never trained on: about a quarter of each intent's templates",
        caveats=[
            "Sentences are generated: their variety is that of the templates, and some are stilted.",
            "Held-out templates by intent: " + ", ".join(f"{i} {n}" for i, n in held.items()) + ".",
            "Without held-out template: " + (", ".join(without) if without else "none") + ".",
            "Templates about scenes, scripts, buttons, locks and valves are left out.",
        ],
        counts=counts,
    )
