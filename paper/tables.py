"""The tables that the notebooks show, each one call on the results of a comparison.

A table says what it averages: over seeds where there are several, with the smallest and the largest beside the mean.
Every accuracy stands beside the majority class and the bag of words, so that no easy corpus passes for a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from paper.recorded import Results
from soi_lib.analysis.soi import SOI
from soi_lib.analysis.transitions import Normalize, mean_transition
from soi_lib.data.dataset import Corpus, Split
from soi_lib.runs.results import setting_name


def member_table(results: Results) -> pd.DataFrame:
    """A row a member: examples to train and to evaluate on, classes, mean tokens, and what must be beaten."""
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
    """A row a member and setting, a column a category: the share (or the count) of examples, mean over seeds."""
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
    """The 6x6 transition of `member` from alone to `setting`, averaged over seeds."""
    pairs = [
        (results.run((member,), seed).dynamics(member), results.run(setting, seed).dynamics(member))
        for seed in results.seeds
    ]
    return mean_transition(pairs, normalize)


def texts(corpus: Corpus) -> dict[str, tuple[str, str]]:
    """Text and label name of every training example, by id; the sides of a pair joined by a bar."""
    split: Split = corpus.splits["train"]
    joined = (
        split.text
        if split.text_pair is None
        else [f"{a}  |  {b}" for a, b in zip(split.text, split.text_pair, strict=True)]
    )
    names = [corpus.labels[i] for i in split.label]
    return dict(zip(split.ids.tolist(), zip(joined, names, strict=True), strict=True))


def listing(items: Sequence[str]) -> str:
    """Words as a list in running text: `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
