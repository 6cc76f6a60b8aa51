"""Did it reproduce here? Compare the numbers of this machine's quick runs with those of the recorded quick runs.

A number of one seed is compared with the 95 % prediction interval for one more seed, from the spread of the recorded
seeds. On the same kind of processor, runs of the same seed are identical bit for bit, which is a stronger check.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paper.claims.judge import ALL, SINGLE, Array
from paper.claims.verdicts import alone_and_together, codes
from paper.comparison import SCORES, SETS, SETTINGS
from paper.comparison import settings as settings_of
from paper.recorded import Results, by_comparison, finished, recorded_profile, recorded_runs, verify_recorded
from soi_lib.analysis.soi import SOI
from soi_lib.errors import SoiError
from soi_lib.runs.config import load_profile
from soi_lib.runs.store import RunStore, StoredRun

LEVEL = 0.95
LEAST_INSIDE = 0.90
"""Share of the numbers that must lie inside. By chance about `LEVEL` do; they vary because they are not independent."""


@dataclass(frozen=True)
class Reproduction:
    """The result of a comparison. `table` has one row per number; `problem` says why nothing could be compared."""

    table: pd.DataFrame
    same: int = 0
    """Runs that are identical bit for bit to their recorded twin (same key)."""
    twins: int = 0
    differing: tuple[str, ...] = ()
    """Runs that differ from their twin, by name and key."""
    reasons: tuple[str, ...] = ()
    """How this machine differs from those of the recorded runs."""
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.problem:
            return f"Not compared: {self.problem}."
        inside, n = int(self.table["inside"].sum()), len(self.table)
        verdict = "Reproduced" if inside >= LEAST_INSIDE * n else "Not reproduced"
        why = f" This machine differs: {'; '.join(self.reasons)}." if self.reasons and self.same < self.twins else ""
        return (
            f"{verdict}: {inside} of {n} numbers lie inside the 95 % prediction interval of the recorded runs (about "
            f"{round(LEVEL * n)} are expected; {round(LEAST_INSIDE * n)} are required), and {self.same} of "
            f"{self.twins} runs are identical bit for bit.{why}"
        )


def reproduction(profile: str, runs: Sequence[StoredRun], recorded: str | Path) -> Reproduction:
    """Compare the runs of this machine with those of the folder `recorded`; `problem` says what prevents it, if any."""
    empty = pd.DataFrame(columns=["comparison", "dataset", "setting", "number", "here", "low", "high", "inside"])
    if not runs:
        return Reproduction(empty, problem="this machine has made no runs; `make book` trains them")
    recorded = Path(recorded)
    try:
        verify_recorded(recorded)
        sizes = recorded_profile(recorded)
        known = recorded_runs(recorded)
    except SoiError as error:
        return Reproduction(empty, problem=str(error))
    if profile != sizes.name:
        return Reproduction(empty, problem=f"the recorded seeds use profile {sizes.name}, these runs use {profile}")
    if {_sizes(run) for run in runs} - {_sizes(run) for run in known}:
        return Reproduction(empty, problem=f"the recorded seeds were trained with other settings of profile {profile}")
    tables = []
    theirs = by_comparison(sizes, known)
    for name, ours in by_comparison(sizes, runs).items():
        if name in theirs and set(ours.settings) <= set(theirs[name].settings):
            tables.append(_held(_numbers(ours), _numbers(theirs[name])).assign(comparison=name))
    if not tables:
        return Reproduction(empty, problem="no setting of these runs is among the recorded ones")
    twins = {run.key: run for run in known}
    pairs = [(run, twins[run.key]) for run in runs if run.key in twins]
    differing = [run for run, twin in pairs if not _same_bits(run, twin)]
    return Reproduction(
        pd.concat(tables, ignore_index=True),
        same=len(pairs) - len(differing),
        twins=len(pairs),
        differing=tuple(f"{run.comparison} {run.setting} seed {run.seed} ({run.key})" for run in differing),
        reasons=_reasons(runs[0], known[0]),
    )


def _sizes(run: StoredRun) -> str:
    """Return the numbers of examples and the hyperparameters of a run, without the precision, as text."""
    about = run.manifest["identity"]
    training = {name: value for name, value in about["training"].items() if name != "precision"}
    return json.dumps([about.get("data"), training], sort_keys=True)


def own_runs(profile: str, runs: str) -> list[StoredRun]:
    """Return the runs of a profile in the store `runs`; none without a store. Raises StoreError if some are missing."""
    return finished(load_profile(profile), RunStore(runs)) if runs else []


def _numbers(results: Results) -> pd.DataFrame:
    """Return one row per number and seed: dataset, setting, kind, number (its name), seed, value, and smallest step."""
    rows: list[dict[str, Any]] = []
    sets = {split: alone_and_together(results, split) for split in SETS}
    for dataset in results.members:
        found: dict[tuple[str, str, str], tuple[Array, float]] = {}  # by setting, kind and number: values (S,), step
        for split in results.splits(dataset):
            one = sets[split][dataset]
            score, step = f"{SCORES[one.scores[0]]}, {SETS[split]}", 1 / len(one.gold)
            scored = {setting: one.values(setting).mean(axis=1) for setting in SETTINGS if setting in one.predicted}
            found |= {(SETTINGS[setting], "score", score): (values, step) for setting, values in scored.items()}
            found[SETTINGS[ALL], "gain", f"gain, {SETS[split]}"] = scored[ALL] - scored[SINGLE], step
        for trained, name in settings_of(results).items():
            if dataset in trained:
                categories = codes(results, dataset, trained, None)
                for soi in SOI:
                    shares = (categories == soi).mean(axis=1)
                    found[name, soi.name, f"share of {soi.name}"] = shares, 1 / categories.shape[1]
        rows += [
            {"dataset": dataset, "setting": setting, "kind": kind, "number": number, "step": step}
            | {"seed": seed, "value": float(value)}
            for (setting, kind, number), (values, step) in found.items()
            for seed, value in zip(results.seeds, values, strict=True)
        ]
    return pd.DataFrame(rows)


def _held(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Return each number of our first seed with the prediction interval for one more recorded seed."""
    from scipy.stats import t  # type: ignore[import-untyped]

    key = ["dataset", "setting", "kind", "number"]
    here = ours[ours["seed"] == ours["seed"].min()].set_index(key)["value"]
    by = theirs.groupby(key, sort=False)
    known = by.agg(recorded=("value", "mean"), spread=("value", "std"), n=("value", "size"), step=("step", "first"))
    table = known.join(here.rename("here"), how="inner").reset_index()
    spread = np.maximum(table.pop("spread"), table.pop("step"))  # never narrower than one example
    n = table.pop("n")
    reach = t.ppf((1 + LEVEL) / 2, n - 1) * spread * np.sqrt(1 + 1 / n)
    table = table.assign(low=table["recorded"] - reach, high=table["recorded"] + reach)
    return table.assign(inside=(table["here"] - table["recorded"]).abs() <= reach)


def _same_bits(run: StoredRun, twin: StoredRun) -> bool:
    """Return whether two runs of one key predicted and recorded the same; their files also hold times and commits."""
    for dataset in run.setting:
        if not run.predictions(dataset).equals(twin.predictions(dataset)):
            return False
        ours, theirs = run.dynamics(dataset), twin.dynamics(dataset)
        if not (np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.p_gold, theirs.p_gold)):
            return False
    return True


def _reasons(run: StoredRun, other: StoredRun) -> tuple[str, ...]:
    """List what differs between two machines: processor, device, precision, and the versions that compute."""
    ours, theirs = run.manifest, other.manifest
    pairs = {
        "processor": (ours["machine"].get("cpu"), theirs["machine"].get("cpu")),
        "device": (ours["machine"].get("device"), theirs["machine"].get("device")),
        "precision": (ours["precision"], theirs["precision"]),
        "torch": (ours.get("versions", {}).get("torch"), theirs.get("versions", {}).get("torch")),
        "engine": (ours["identity"].get("engine"), theirs["identity"].get("engine")),
    }
    return tuple(f"{name} {a} instead of {b}" for name, (a, b) in pairs.items() if a != b)


def as_json(found: Reproduction) -> dict[str, Any]:
    """Return the content of `_build/reproduced.json`."""
    return {
        "sentence": found.sentence,
        "numbers": len(found.table),
        "inside": int(found.table["inside"].sum()),
        "same_bits": found.same,
        "twins": found.twins,
        "other_bits": list(found.differing),
        "outside": found.table[~found.table["inside"].astype(bool)].round(4).to_dict("records"),
    }
