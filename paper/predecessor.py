"""The authors' earlier results (2022), compared with the same counts from our run on the same data.

`data/predecessor.csv` holds the numbers that their notebooks print. Their runs on sentiment and entailment together
were resumed from a checkpoint and contain zeros for the early epochs, so they are marked.
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
    """Return the columns of the earlier results, from dynamics: examples flagged, never learned, by number of events.

    Flagged examples were forgotten at least once or never learned; the last column counts how many of them were right
    in the last epoch.
    """
    events = forgetting_events(dynamics.history, dynamics.epochs)
    never = dynamics.history == 0
    flagged = never | (events > 0)
    counted = {"n_train": len(dynamics), "flagged": int(flagged.sum()), "never learned": int(never.sum())}
    counted |= {name: int((events == k).sum()) for k, name in ((1, "1 event"), (2, "2 events"))}
    last = int(dynamics.correct[-1, flagged].sum())
    return counted | {"3 or more": int((events >= 3).sum()), "right at last": last}


def earlier(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the earlier results: one row per setting and task, with the columns of `counts` and the test accuracy."""
    table = pd.read_csv(path)
    many = ["events_3", "events_4", "events_5"]
    table.insert(list(table.columns).index("events_3"), "3 or more", table[many].sum(axis=1))
    table = table.drop(columns=many)
    names = ["n_train", "flagged", "never learned", "1 event", "2 events", "3 or more"]
    return table.set_axis(["setting", "task", *names, "right at last", "test accuracy"], axis=1)


def beside(results: Results, path: str | os.PathLike[str], task: str = "paraphrase") -> pd.DataFrame:
    """Return the earlier results of `task` in the file `path`, followed by those of our runs.

    Columns: who, setting, those of `counts`, share flagged, test accuracy.
    """
    known = earlier(path).query("task == @task").drop(columns="task")
    who = known["setting"].map(lambda setting: "earlier code" + (", resumed" if setting == RESUMED else ""))
    rows: list[Any] = known.assign(who=who).to_dict("records")
    for member in results.members:
        run = results.run((member,))
        rows.append(
            {"who": f"ours, seed {run.seed}", "setting": "single", **counts(run.dynamics(member))}
            | {"test accuracy": run.metrics[member]["test"]["accuracy"]}
        )
    table = pd.DataFrame(rows, columns=["who", *known.columns])
    table.insert(len(table.columns) - 1, "share flagged", (table["flagged"] / table["n_train"]).round(3))
    return table
