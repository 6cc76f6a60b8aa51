"""The origin of the runs of a page: commit, device and time of every run and of every recorded folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from paper.recorded import CHECKSUMS, Results, recorded_runs, verify_recorded
from soi_lib.plots import show_table
from soi_lib.plots.style import Shown


def run_table(found: Mapping[str, Results]) -> pd.DataFrame:
    """Return one row per run: key, comparison, setting, seed, started (UTC), machine, commit, precision, minutes."""
    return pd.DataFrame(
        {"key": run.key, "comparison": name, "setting": str(setting), "seed": seed}
        | _origin(run.manifest)
        | {"minutes": round(run.manifest["seconds"]["total"] / 60, 1)}
        for name, results in found.items()
        for setting in results.settings
        for seed in results.seeds
        for run in [results.run(setting, seed)]
    )


def runs_behind(found: Mapping[str, Results]) -> Shown:
    """Return the runs behind a page as a folded block: their number and commits, with `run_table` inside.

    A notebook shows it once; the lines below its figures and tables link to it (see `paper.page`).
    """
    table = run_table(found)
    commits = sorted(set(table["commit"]))
    summary = (
        f"{len(table)} run{'s' if len(table) > 1 else ''}, commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    )
    folders = dict.fromkeys(run.folder.parent for results in found.values() for run in results.runs)
    place = " or ".join(f"data/recorded/{f.name}" if f.parent.name == "recorded" else f.name for f in folders)
    caption = (
        f"Each run is a folder in {place}, named by its key: metrics.json holds its scores, predictions/ its "
        f"predictions, and dynamics/ every epoch. Times are UTC."
    )
    same = [name for name in ("commit", "device", "precision") if table[name].nunique() == 1]
    if same and len(table) > 1:  # a narrower table
        caption += f" All have {', '.join(f'{name} {table[name].iloc[0]}' for name in same)}."
    inside = show_table(table.drop(columns=same if len(table) > 1 else []), caption, digits=1)
    markup = f'<details class="soi-runs"><summary>{summary}</summary><div id="runs">{inside.markup}</div></details>'
    return Shown(markup, f"[{summary}]", show_table(table).csv)


def folder_table(recorded: str | Path) -> pd.DataFrame:
    """Return one row per recorded folder and comparison: runs, seeds, first and last start (UTC), hours, origin.

    Every file is first checked against the checksums of its folder. Raises StoreError naming a damaged file.
    """
    rows = []
    for folder in sorted(path.parent for path in Path(recorded).glob(f"*/{CHECKSUMS}")):
        checked = verify_recorded(folder)
        about = [run.manifest for run in recorded_runs(folder)]
        known = [{**one["identity"], "seconds": one["seconds"]["total"], **_origin(one)} for one in about]
        for name, runs in pd.DataFrame(known).groupby("comparison", sort=False):
            rows.append(
                {"folder": folder.name, "comparison": name, "runs": len(runs), "seeds": runs["seed"].nunique()}
                | {"first": runs["started"].min(), "last": runs["started"].max()}
                | {"hours": round(runs["seconds"].sum() / 3600, 1)}
                | {k: ", ".join(sorted(runs[k].unique())) for k in ("commit", "device", "precision")}
                | {"files checked": checked}
            )
    return pd.DataFrame(rows)


def _origin(about: Mapping[str, Any]) -> dict[str, Any]:
    machine = about.get("machine") or {}
    device = machine.get("cpu") if machine.get("device") == "cpu" else machine.get("device")
    return {
        "started": str(about.get("started", ""))[:16].replace("T", " "),
        "commit": str(about.get("commit", ""))[:7],
        "device": device or "–",
        "precision": about.get("precision", "–"),
    }
