"""Commands from sentence templates: a random walk through each template instead of an enumeration.

A template such as `turn on [the] {area} (light|lights)` stands for thousands of sentences. The parser's own sampler
enumerates all combinations and stops at the first N, so its sentences look alike. Here each walk picks one branch at
every alternative, all with equal probability, and keeps the values that it put into the slots: two walks of one intent
with equal values mean the same.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from soi_lib import packages

Values = Mapping[str, Sequence[Any]]  # values of a slot by list name: (text, meaning) pairs or plain texts
OPEN, CLOSE = "\x01", "\x02"  # mark our own slot values, so that a language can make them agree


@dataclass(frozen=True)
class Template:
    """One template of one intent: its text, parsed, and the context and slots of its block in the file.

    place is a short, stable name: `block-number` within the intent.
    """

    intent: str
    place: str
    text: str
    domains: tuple[str, ...]
    slots: tuple[tuple[str, str], ...]
    combination: str
    expression: Any


class Grammar:
    """The templates of one language, and random walks through them."""

    def __init__(self, language: str) -> None:
        from hassil import expression
        from hassil.parse_expression import parse_sentence

        self._kind = expression
        self.language = language
        path = f"home_assistant_intents/data/{language}.json"
        self.source = json.loads(packages.member("home-assistant-intents", path))
        self._parse: Callable[[str], Any] = cache(lambda text: parse_sentence(text).expression)
        self.rules: dict[str, str] = dict(self.source["expansion_rules"])
        self._lists: dict[str, Sequence[tuple[Any, Any]]] = {}

    def templates(self, intent: str) -> list[Template]:
        """Return all templates of an intent (named without the leading Hass), in file order."""
        out = []
        for b, block in enumerate(self.source["intents"][f"Hass{intent}"]["data"]):
            context = block.get("requires_context", {})
            domain = context.get("domain", ())
            domains = (domain,) if isinstance(domain, str) else tuple(domain)
            slots = tuple(sorted((k, str(v)) for k, v in block.get("slots", {}).items()))
            combination = str(block.get("metadata", {}).get("slot_combination", b))
            for n, text in enumerate(block["sentences"]):
                place, expression = f"{b:02d}-{n:02d}", self._parse(text)
                out.append(Template(intent, place, text, domains, slots, combination, expression))
        return out

    def values(self, name: str) -> Sequence[tuple[Any, Any]]:
        """Return the values of a list in the file as (expression or text, meaning); empty for a wildcard."""
        if name not in self._lists:
            body = self.source["lists"].get(name, {})
            if "range" in body:
                r = body["range"]
                numbers = range(int(r["from"]), int(r["to"]) + 1, int(r.get("step", 1)))
                self._lists[name] = [(str(n), n * r.get("multiplier", 1)) for n in numbers]
            else:
                pairs = [
                    (v, v) if isinstance(v, str) else (v["in"], v.get("out", v["in"])) for v in body.get("values", ())
                ]
                self._lists[name] = [(self._parse(text), meaning) for text, meaning in pairs]
        return self._lists[name]

    def walk(
        self, template: Template, rng: random.Random, own: Values, fixed: Mapping[str, str] | None = None
    ) -> tuple[str, dict[str, str]] | None:
        """Return one sentence of the template and the values in its slots; None if a slot has no possible value.

        fixed: required meanings by slot name.
        own: values that replace those of the file; strings among them are marked with OPEN and CLOSE.
        """
        kind = self._kind
        slots: dict[str, str] = {}

        def write(node: Any) -> str | None:
            if isinstance(node, kind.TextChunk):
                return str(node.original_text)
            if isinstance(node, kind.RuleReference):
                return write(self._parse(self.rules[node.rule_name]))
            if isinstance(node, kind.ListReference):
                return fill(node.slot_name, node.list_name)
            if isinstance(node, kind.Alternative):
                return write(rng.choice(node.items))
            items, between = node.items, ""
            if isinstance(node, kind.Permutation):
                items, between = list(items), " "
                rng.shuffle(items)
            parts = []
            for item in items:
                part = item.original_text if type(item) is kind.TextChunk else write(item)  # most are: save the call
                if part is None:
                    return None
                parts.append(part)
            return between.join(parts)

        def fill(slot: str, name: str) -> str | None:
            mine = own.get(name)
            values = self.values(name) if mine is None else [(v, v) if isinstance(v, (str, int)) else v for v in mine]
            if fixed and slot in fixed:
                values = [(text, meaning) for text, meaning in values if str(meaning) == fixed[slot]]
            if not values:
                return None
            value, meaning = rng.choice(values)
            slots[slot] = str(meaning)
            if not isinstance(value, (str, int)):
                return write(value)
            return f"{OPEN}{value}{CLOSE}" if mine is not None and isinstance(value, str) else str(value)

        text = write(template.expression)
        return None if text is None else (" ".join(text.split()), slots)


def plain(text: str) -> str:
    """Return the sentence without the marks around our values."""
    return " ".join(re.sub(f"[{OPEN}{CLOSE}]", "", text).split())
