"""Where the runs of a page came from: commit, device, time, for every run and for all stages together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from paper.recorded import Results


def run_table(found: Mapping[str, Results]) -> pd.DataFrame:
    """A row a run: key, comparison, setting, seed, started (UTC), minutes, commit, device, precision, threads."""
    rows = []
    for name, results in found.items():
        for setting in results.settings:
            for seed in results.seeds:
                run = results.run(setting, seed)
                about = run.manifest
                rows.append(
                    {"key": run.key, "comparison": name, "setting": "+".join(setting), "seed": seed}
                    | _origin(about)
                    | {"minutes": round(about["seconds"]["total"] / 60, 1)}
                )
    return pd.DataFrame(rows)


def stage_table(found: Mapping[str, Results]) -> pd.DataFrame:
    """A row per comparison, commit and device of its stages: how many, how many were trained, and the minutes.

    A stage that is the same training as another one, or whose subset was too small, was not trained.
    """
    rows = [
        {"comparison": name, **_origin(stage.about), **_trained(stage.about)}
        for name, results in found.items()
        for stage in results.stages
    ]
    if not rows:
        return pd.DataFrame(columns=["comparison", "stages", "trained", "minutes"])
    keys = ["comparison", "commit", "device", "precision", "threads"]
    table = pd.DataFrame(rows).groupby(keys, sort=False, dropna=False)
    out = table.agg(stages=("trained", "size"), trained=("trained", "sum"), minutes=("minutes", "sum")).reset_index()
    return out.round(1)


def told(runs: pd.DataFrame, stages: pd.DataFrame, checked: int) -> str:
    """How long all of `run_table` and `stage_table` took, and how many files `results.verify_recorded` checked."""
    hours = float(runs["minutes"].sum() + stages["minutes"].sum()) / 60
    commits = sorted(set(runs["commit"]) | set(stages.get("commit", ())))
    return (
        f"{checked} recorded files were checked against their sha256 before this page was made. {len(runs)} runs and "
        f"{int(stages['stages'].sum())} stages took {hours:.1f} hours in all, counted one by one (several ran side by "
        f"side), at {len(commits)} commit{'s' if len(commits) > 1 else ''} of this project."
    )


def _origin(about: Mapping[str, Any]) -> dict[str, Any]:
    machine = about.get("machine") or {}
    device = machine.get("cpu") if machine.get("device") == "cpu" else machine.get("device")
    return {
        "started": str(about.get("started", ""))[:16].replace("T", " "),
        "commit": str(about.get("commit", ""))[:7],
        "device": device or "–",
        "precision": about.get("precision", "–"),
        "threads": machine.get("threads", 0),
    }


def _trained(about: Mapping[str, Any]) -> dict[str, Any]:
    trained = about["stage"]["tested"] and "same_as" not in about["stage"]
    return {"trained": bool(trained), "minutes": about["seconds"]["total"] / 60 if trained else 0.0}
