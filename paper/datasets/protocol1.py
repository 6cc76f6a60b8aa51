"""The corpora as they were for the recorded runs of protocol 1; goes when those runs go.

Tasks and sources differ from the present ones in their out-of-distribution sets only. The languages had eight intents,
test sentences of the templates of training in other homes, and new templates or new wordings out-of-distribution.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from paper.datasets.building import deduplicate, make
from paper.datasets.french import agree
from paper.datasets.homes import HOMES, N_HOMES
from paper.datasets.intents import LANGUAGES, bare, fillings, shape
from paper.datasets.registry import BUILD
from paper.datasets.templates import Grammar, Template, plain
from soi_lib.data.dataset import Card, Corpus, Split, normalise
from soi_lib.data.splits import hashed

if TYPE_CHECKING:
    import pandas as pd

LABELS = (
    "CancelTimer", "LightSet", "MediaNext", "MediaPause", "MediaUnpause", "StartTimer", "TurnOff", "TurnOn",
)  # fmt: skip
HOMES_PER_SPLIT = {"train": 7, "validation": 1, "test": 3, "ood": 3}
PER_INTENT = {"train": 300, "validation": 50, "test": 125, "ood": 100}
ENOUGH = 60
WALKS = 60  # walks a template, home and split asks for before it counts as exhausted
OLD_OOD = {
    "entailment": "contracts/", "paraphrase": "news/", "sentiment": "movie/",
    "tweets": "nyt/", "amazon": "nyt/", "movie": "nyt/",
}  # fmt: skip
DOMAINS = ("light", "switch", "fan", "media_player", "cover")
# Wordings kept for the out-of-distribution split: no other split has them with the intent.
WORDINGS = {
    "en": {
        "CancelTimer": r"^stop\b",
        "LightSet": r"^(increase|decrease)\b|\b(max|maximum|highest|min|minimum|lowest)\b",
        "MediaNext": r"\bskip\b",
        "MediaPause": r"^stop\b",
        "MediaUnpause": r"\bresume\b",
        "StartTimer": r"^create\b",
        "TurnOff": r"^(deactivate|close|shut|lower)\b",
        "TurnOn": r"^(activate|illuminate|light up|open|raise|lift)\b",
    },
    "fr": {
        "CancelTimer": r"^(annuler?|stopper?)\b",
        "LightSet": r"^(augmenter?|monter?|diminuer?|baisser?)\b",
        "MediaNext": r"^passer?\b",
        "MediaPause": r"^(couper?|stopper?|arrêter?)\b",
        "MediaUnpause": r"^(relancer?|remets|remettre)\b",
        "StartTimer": r"^(démarrer?|lancer?)\b",
        "TurnOff": r"^(désactiver?|couper?|fermer?|baisser?|descends|descendre)\b",
        "TurnOn": r"^(éclairer?|illuminer?|activer?|ouvrir|ouvre|monter?)\b",
    },
    "fa": {
        "CancelTimer": r"کنسل|حذف",
        "LightSet": r"قرار بده",
        "MediaNext": r"قسمت",
        "MediaPause": r"مکث",
        "MediaUnpause": r"از سر بگیر",
        "StartTimer": r"راه بنداز|شروع کن",
        "TurnOff": r"ببند|بستن",
        "TurnOn": r"باز کن",
    },
}
_TWICE = re.compile(r"\b(lamps?|lights?|chandelier|spotlight|lantern|strip) (lamps?|lights?|lighting)\b")


def homes_of() -> dict[str, list[int]]:
    """The homes of each split, the same for every language."""
    order = sorted(range(N_HOMES), key=lambda k: hashed(str(k), "lingual/homes"))
    out, start = {}, 0
    for split, n in HOMES_PER_SPLIT.items():
        out[split] = sorted(order[start : start + n])
        start += n
    return out


def wanted(template: Template) -> bool:
    """Whether sentences of this template are about a domain that the homes have."""
    return not template.domains or any(d in DOMAINS for d in template.domains)


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


def sentences(grammar: Grammar, template: Template, home: int, n: int, wording: str, has_wording: bool) -> list[str]:
    """Up to n distinct sentences of a template in one home, all with the wording or all without it."""
    rng = random.Random(f"{grammar.language}/{template.intent}/{template.place}/{home}/{has_wording}")
    own = fillings(grammar.language, home, template.domains)
    pattern, found = re.compile(wording), dict[str, str]()
    for _ in range(WALKS + 3 * n):
        walked = grammar.walk(template, rng, own)
        if walked is None:
            break
        text = agree(walked[0]) if grammar.language == "fr" else plain(walked[0])
        key = normalise(text)
        if key and bool(pattern.search(key)) == has_wording and not _TWICE.search(key):
            found.setdefault(key, text)
        if len(found) == n:
            break
    return list(found.values())


def collect(language: str) -> pd.DataFrame:
    """More sentences than needed: id text label group split kind template.

    kind: `known` for what training may look like, `template` and `wording` for what it never does.
    """
    import pandas as pd

    grammar = Grammar(language)
    grammar.rules = {name: _without_dirt(body) for name, body in grammar.rules.items()}
    homes, rows = homes_of(), []
    for label, intent in enumerate(LABELS):
        wording = WORDINGS[language][intent]
        by_shape: dict[str, list[Template]] = defaultdict(list)
        for t in grammar.templates(intent):
            if wanted(t):
                by_shape[shape(t)].append(t)

        def draw(shapes: Iterable[str], ids: list[int], n: int, has: bool, by: Any = by_shape, w: str = wording) -> Any:
            for template in (t for s in sorted(shapes) for t in by[s]):
                for home in ids:
                    for k, text in enumerate(sentences(grammar, template, home, n, w, has)):
                        yield template.place, home, k, text

        def capacity(name: str, draw: Any = draw) -> int:
            return len({text for *_, text in draw([name], homes["ood"], ENOUGH, False)})

        out = held_out(by_shape, capacity, f"lingual/{language}/{intent}")
        wanted_kinds = [(split, "known", set(by_shape) - out) for split in ("train", "validation", "test")]
        wanted_kinds += [("ood", "template", out), ("ood", "wording", set(by_shape))]
        for split, kind, shapes in wanted_kinds:
            n_templates = sum(len(by_shape[s]) for s in shapes)
            quota = 3 * PER_INTENT[split] // (n_templates * len(homes[split])) + 4
            for place, home, k, text in draw(shapes, homes[split], quota, kind == "wording"):
                ident = f"{language}/{intent}/{place}/{home:02d}/{kind[0]}{k:03d}"
                rows.append((ident, text, label, f"{language}:home-{home:02d}", split, kind, place))
    return pd.DataFrame(rows, columns=["id", "text", "label", "group", "split", "kind", "template"])


def _without_dirt(body: str) -> str:
    """A rule without its alternatives of misheard words (rules named `..._dirty`)."""
    return re.sub(r"\|<\w+_dirty>", "", body)


def abstract(language: str, text: str, group: str) -> str:
    """The sentence with the values of its home, and numbers, blanked out."""
    values = sorted((bare(v) for v in HOMES[language][int(group[-2:])].values()), key=len, reverse=True)
    blank = re.sub("|".join(re.escape(normalise(v)) for v in values), "_", normalise(text))
    return re.sub(r"\d+", "_", blank)


def choose(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """n rows, as evenly over kinds and then over templates as they allow: one of each in turn, in hash order."""
    frame = frame.assign(order=frame["id"].map(lambda i: hashed(i, "choose"))).sort_values("order")
    frame = frame.assign(turn=frame.groupby(["kind", "template"]).cumcount()).sort_values(["turn", "order"])
    frame = frame.assign(turn=frame.groupby("kind").cumcount()).sort_values(["turn", "order"])
    return frame.head(n).drop(columns=["order", "turn"])


def one_home(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with every text in one home only: a text without slots comes out of all, and one keeps it."""
    import pandas as pd

    key = frame["text"].map(normalise)
    rank = [hashed(group, text) for group, text in zip(frame["group"], key, strict=True)]
    return frame[pd.Series(rank, index=frame.index).groupby(key).transform("min") == rank]


def _language(language: str) -> Corpus:
    import pandas as pd

    frame, counts = deduplicate(one_home(collect(language)))
    # A held-out template may form, with other values, what a trained one forms: such sentences are not new.
    form = pd.Series(
        [abstract(language, t, g) for t, g in zip(frame["text"], frame["group"], strict=True)], index=frame.index
    )
    stale = (frame["split"] == "ood") & form.isin(set(form[frame["split"] != "ood"]))
    counts["out-of-distribution, but of a trained form"] = int(stale.sum())
    frame = frame[~stale]
    parts = {
        split: pd.concat([choose(frame[(frame["split"] == split) & (frame["label"] == c)], n) for c in range(8)])
        for split, n in PER_INTENT.items()
    }
    splits = {split: Split.from_frame(part) for split, part in parts.items()}
    return make(language, "lingual", LABELS, splits, _card(language))


def _card(language: str) -> Card:
    return Card(f"Intents, protocol 1: {language}", "", "", "", language, "", "", "")


def build(name: str) -> Corpus:
    """The corpus `name` of protocol 1."""
    if name in LANGUAGES:
        return _language(name)
    now = BUILD[name]()
    if name not in OLD_OOD:
        return now
    ood = now.splits["ood"]
    ood = ood.rows(np.flatnonzero([i.startswith(OLD_OOD[name]) for i in ood.ids])).take(2000)
    return make(name, now.comparison, now.labels, now.splits | {"ood": ood}, now.card, now.extra_ood)
