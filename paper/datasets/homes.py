"""Fourteen fictional homes: the rooms, floors, devices and cities that fill the slots of commands, in three languages.

Home k is the same home in every language (its row in `homes.csv` is a translation of that of the others), and no value
occurs in two homes. Splitting by home therefore keeps every room and device out of the other splits, across languages
too: a model trained on three languages sees none of the test rooms in any of them. The table was written for this
project; Persian values use the zero-width non-joiner where the written language does. The file has "~" instead, since
most editors do not show that character.
"""

from __future__ import annotations

import csv
from pathlib import Path


def _homes() -> dict[str, list[dict[str, str]]]:
    """Read the homes of every language: values by kind (area, floor, light, ..., city)."""
    homes: dict[str, list[dict[str, str]]] = {}
    text = Path(__file__).with_name("homes.csv").read_text(encoding="utf-8").replace("~", "\u200c")
    for home in csv.DictReader(text.splitlines()):
        homes.setdefault(home.pop("language"), []).append(home)
    return homes


HOMES = _homes()
N_HOMES = len(HOMES["en"])
COMMANDS = {
    "en": ("turn off the {light}", "open the {cover}", "play music on the {media_player}", "start the {switch}"),
    "fr": ("éteins {light}", "ouvre {cover}", "mets de la musique sur {media_player}", "allume {switch}"),
    "fa": (),
}
