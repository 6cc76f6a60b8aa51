"""The authors' earlier results (2022), and the same counts from a run of ours on the same data.

The figures are those that their notebooks print; `data/predecessor.csv` holds them as facts. Their runs on sentiment
and entailment together were resumed from a checkpoint and hold zeros for the early epochs, so they are marked.
"""

from __future__ import annotations

import os
from typing import Any

import pandas as pd

from paper.recorded import Results
from soi_lib.analysis.soi import forgetting_events
from soi_lib.dynamics import TrainingDynamics

RESUMED = "sentiment+entailment"


def counts(dynamics: TrainingDynamics) -> dict[str, Any]:
    """The columns of the earlier results, from dynamics: examples flagged, never learned, by number of events.

    Flagged are those that were forgotten at least once or never learned; the last column counts how many of them were
    right in the last epoch.
    """
    events = forgetting_events(dynamics.history, dynamics.epochs)
    never = dynamics.history == 0
    flagged = never | (events > 0)
    return {
        "n_train": len(dynamics),
        "flagged": int(flagged.sum()),
        "never learned": int(never.sum()),
        **{f"{k} event{'s' if k > 1 else ''}": int((events == k).sum()) for k in range(1, 5)},
        "5 or more": int((events >= 5).sum()),
        "right at last": int(dynamics.correct[-1, flagged].sum()),
    }


def earlier(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The earlier results from their file: a row per setting and task, columns as `counts` and the test accuracy."""
    table = pd.read_csv(path)
    names = ["n_train", "flagged", "never learned", "1 event", "2 events", "3 events", "4 events", "5 or more"]
    table.columns = pd.Index(["setting", "task", *names, "right at last", "test accuracy"])
    return table


def beside(results: Results, path: str | os.PathLike[str], task: str = "paraphrase") -> pd.DataFrame:
    """The earlier results of `task` in the file `path`, and those of our runs; the flagged also as a share.

    Columns: who, setting, then as `counts`, share flagged, test accuracy.
    """
    known = earlier(path)
    records: Any = known[known["task"] == task].drop(columns="task").to_dict("records")
    rows: list[dict[str, Any]] = [
        {"who": "earlier code" + (", resumed" if row["setting"] == RESUMED else ""), **row} for row in records
    ]
    for member in results.members:
        run = results.run((member,))
        rows.append(
            {"who": f"ours, seed {run.seed}", "setting": "single", **counts(run.dynamics(member))}
            | {"test accuracy": run.metrics[member]["test"]["accuracy"]}
        )
    table = pd.DataFrame(rows)
    table.insert(len(table.columns) - 1, "share flagged", (table["flagged"] / table["n_train"]).round(3))
    return table


def describe(table: pd.DataFrame) -> str:
    """Our share of flagged examples beside that of the earlier single-task run, and the accuracies."""
    theirs: Any = table[(table["who"] == "earlier code") & (table["setting"] == "single")].iloc[0]
    ours: Any = table[table["who"].str.startswith("ours")].iloc[0]
    return (
        f"On the same {int(ours['n_train']):,} examples, {ours['share flagged']:.1%} are forgotten at least once or "
        f"never learned by MiniLM and {theirs['share flagged']:.1%} by their BERT. Never learned are "
        f"{int(ours['never learned'])} here and {int(theirs['never learned'])} there; test accuracy is "
        f"{ours['test accuracy']:.3f} here and {theirs['test accuracy']:.3f} there. One run each allows no interval."
    )
