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
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from soi_lib import packages

Values = Mapping[str, Sequence[Any]]  # values of a slot by list name: (text, meaning) pairs or plain texts
OPEN, CLOSE = "\x01", "\x02"  # mark our own slot values, so that a language can make them agree


@dataclass(frozen=True)
class Template:
    """One template of one intent: its text, its place in the file, and the context and slots of its block."""

    intent: str
    block: int
    number: int
    text: str
    domains: tuple[str, ...]
    slots: tuple[tuple[str, str], ...]
    combination: str
    expression: Any = field(repr=False, compare=False)

    @property
    def place(self) -> str:
        """A short, stable name: `block-number` within the intent."""
        return f"{self.block:02d}-{self.number:02d}"


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
            for n, text in enumerate(block["sentences"]):
                expression = self._parse(text)
                combination = str(block.get("metadata", {}).get("slot_combination", b))
                out.append(Template(intent, b, n, text, domains, slots, combination, expression))
        return out

    def _rule(self, name: str) -> Any:
        return self._parse(self.rules[name])

    def values(self, name: str) -> Sequence[tuple[Any, Any]]:
        """Return the values of a list in the file as (expression or text, meaning); empty for a wildcard."""
        if name not in self._lists:
            body = self.source["lists"].get(name, {})
            if "values" in body:
                pairs = [(v, v) if isinstance(v, str) else (v["in"], v.get("out", v["in"])) for v in body["values"]]
                self._lists[name] = [(self._parse(text), meaning) for text, meaning in pairs]
            elif "range" in body:
                r = body["range"]
                numbers = range(int(r["from"]), int(r["to"]) + 1, int(r.get("step", 1)))
                self._lists[name] = [(str(n), n * r.get("multiplier", 1)) for n in numbers]
            else:
                self._lists[name] = []
        return self._lists[name]

    def walk(
        self, template: Template, rng: random.Random, own: Values, fixed: Mapping[str, str] | None = None
    ) -> tuple[str, dict[str, str]] | None:
        """Return one sentence of the template and the values in its slots; None if a slot has no possible value.

        fixed: required meanings by slot name.
        own: values that replace those of the file; strings among them are marked with OPEN and CLOSE.
        """
        slots: dict[str, str] = {}
        text = self._walk(template.expression, rng, own, slots, fixed or {})
        return None if text is None else (" ".join(text.split()), slots)

    def _walk(
        self, node: Any, rng: random.Random, own: Values, slots: dict[str, str], fixed: Mapping[str, str]
    ) -> str | None:
        kind = self._kind
        if isinstance(node, kind.TextChunk):
            return str(node.original_text)
        if isinstance(node, kind.RuleReference):
            return self._walk(self._rule(node.rule_name), rng, own, slots, fixed)
        if isinstance(node, kind.ListReference):
            return self._slot(node, rng, own, slots, fixed)
        if isinstance(node, kind.Alternative):
            return self._walk(node.items[rng.randrange(len(node.items))], rng, own, slots, fixed)
        items, between = node.items, ""
        if isinstance(node, kind.Permutation):
            items, between = list(items), " "
            rng.shuffle(items)
        parts = []
        for item in items:
            plain_text = type(item) is kind.TextChunk  # most are: save the call
            part = item.original_text if plain_text else self._walk(item, rng, own, slots, fixed)
            if part is None:
                return None
            parts.append(part)
        return between.join(parts)

    def _slot(
        self, node: Any, rng: random.Random, own: Values, slots: dict[str, str], fixed: Mapping[str, str]
    ) -> str | None:
        mine = own.get(node.list_name)
        values: Sequence[tuple[Any, Any]]
        if mine is None:
            values = self.values(node.list_name)
        else:
            values = [(v, v) if isinstance(v, (str, int)) else v for v in mine]
        if node.slot_name in fixed:
            values = [(text, meaning) for text, meaning in values if str(meaning) == fixed[node.slot_name]]
        if not values:
            return None
        value, meaning = values[rng.randrange(len(values))]
        slots[node.slot_name] = str(meaning)
        if not isinstance(value, (str, int)):
            return self._walk(value, rng, own, slots, fixed)
        return f"{OPEN}{value}{CLOSE}" if mine is not None and isinstance(value, str) else str(value)


def plain(text: str) -> str:
    """Return the sentence without the marks around our values."""
    return " ".join(re.sub(f"[{OPEN}{CLOSE}]", "", text).split())
