"""Tables that the notebooks show, each made by one call on the results of a comparison.

`member_table` gives the accuracy of the majority class and of a bag of words, so that an easy corpus is not mistaken
for a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from paper.recorded import Results
from soi_lib.analysis.soi import SOI
from soi_lib.analysis.transitions import Normalize, mean_transition
from soi_lib.data.dataset import Corpus, Split
from soi_lib.runs.results import setting_name

if TYPE_CHECKING:
    from jinja2 import Environment


def member_table(results: Results) -> pd.DataFrame:
    """Return one row per member: training and evaluation examples, classes, mean tokens, and baselines to beat."""
    rows = []
    for member in results.members:
        metrics = results.run((member,)).metrics[member]
        row: dict[str, Any] = {"member": member, "train": metrics["n"]}
        names = {split: "OOD" if split == "ood" else split for split in results.splits(member)}
        row |= {"test": metrics["test"]["n"], "OOD": metrics["ood"]["n"] if "ood" in metrics else 0}
        row |= {"classes": results.classes(member), "mean tokens": f"{metrics['tokens']['train']:.1f}"}
        for split, name in names.items():
            row[f"majority, {name}"] = metrics["majority"][split]["accuracy"]
            row[f"bag of words, {name}"] = metrics["bag_of_words"][split]["accuracy"]
        rows.append(row)
    return pd.DataFrame(rows).set_index("member").round(3)


def soi_table(results: Results, *, shares: bool = True) -> pd.DataFrame:
    """Return the share (or count) of each category, averaged over seeds: one row per member and setting."""
    rows = {}
    for member in results.members:
        for setting in results.settings_with(member):
            found = [results.run(setting, seed).metrics[member] for seed in results.seeds]
            counts = np.array([[m["soi"][soi.name] for soi in SOI] for m in found], dtype=float)
            values = counts / counts.sum(1, keepdims=True) if shares else counts
            rows[member, setting_name(setting, results.members)] = values.mean(0)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[soi.name for soi in SOI])
    table.index = pd.MultiIndex.from_tuples(table.index, names=["member", "setting"])
    return table.round(3)


def transition(results: Results, member: str, setting: Sequence[str], normalize: Normalize = None) -> pd.DataFrame:
    """Return the 6x6 transition matrix of `member` from alone to `setting`, averaged over seeds."""
    pairs = [
        (results.run((member,), seed).dynamics(member), results.run(setting, seed).dynamics(member))
        for seed in results.seeds
    ]
    return mean_transition(pairs, normalize)


def texts(corpus: Corpus) -> dict[str, tuple[str, str]]:
    """Return the text and label name of every training example by id; the texts of a pair are joined by a bar."""
    split: Split = corpus.splits["train"]
    joined = (
        split.text
        if split.text_pair is None
        else [f"{a}  |  {b}" for a, b in zip(split.text, split.text_pair, strict=True)]
    )
    names = [corpus.labels[i] for i in split.label]
    return dict(zip(split.ids.tolist(), zip(joined, names, strict=True), strict=True))


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]], right: int = 0) -> str:
    """Return a table as Markdown, its last `right` columns aligned to the right."""
    lines = [head, ["---"] * (len(head) - right) + ["---:"] * right, *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def words(split: Split) -> np.ndarray:
    """Return the number of words of every example (N,); the two texts of a pair are added up."""
    pair = split.text_pair or [""] * len(split)
    return np.array([len(a.split()) + len(b.split()) for a, b in zip(split.text, pair, strict=True)])


def listing(items: Sequence[str]) -> str:
    """Join words into a list for running text: `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def template_house(**filters: Callable[..., str]) -> Environment:
    """Return the environment of the templates in `paper`, whose text is Markdown; a missing value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    house = Environment(loader=folder, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    house.filters |= filters
    return house
