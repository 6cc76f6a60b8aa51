"""The runs of one comparison, ready for tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from soi_lib.analysis.statistics import contributions, mean_effect
from soi_lib.data.dataset import Corpus
from soi_lib.errors import StoreError, nearest
from soi_lib.runs.config import Profile, Setting
from soi_lib.runs.store import StoredRun


class Evaluated(NamedTuple):
    """Examples of one split by id: ids (N,), gold labels (N,), predictions and p(gold) (S, N), one row per seed."""

    ids: np.ndarray
    gold: np.ndarray
    predicted: np.ndarray
    p_gold: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """The probability of class 1 (S, N), for two classes."""
        return np.where(self.gold == 1, self.p_gold, 1 - self.p_gold)


@dataclass(frozen=True)
class Results:
    """The runs of one comparison of one profile, by setting and seed."""

    comparison: str
    profile: Profile
    runs: tuple[StoredRun, ...]

    @cached_property
    def members(self) -> tuple[str, ...]:
        """The comparison's members, in the order of the profile."""
        return self.profile.comparisons[self.comparison].members  # type: ignore[index]

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """The settings that have runs: singles, pairs, all at equal budget, all."""
        have = {run.setting for run in self.runs}
        known = self.profile.comparisons[self.comparison].member_sets()  # type: ignore[index]
        return tuple(s for s in known if s in have)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that have runs, ascending."""
        return tuple(sorted({run.seed for run in self.runs}))

    def run(self, setting: Sequence[str], seed: int | None = None) -> StoredRun:
        """Return the run of a setting and seed (by default the first seed). Raises StoreError if there is none.

        Plain names mean the full budget; see `soi_lib.runs.config.Setting`.
        """
        setting = Setting(setting)
        seed = self.seeds[0] if seed is None else seed
        for run in self.runs:
            if run.setting == setting and run.seed == seed:
                return run
        found, hint = f"{setting} seed {seed}", nearest(str(setting), map(str, self.settings))
        raise StoreError("no run of this setting and seed", found=found, hint=hint)

    def settings_with(self, member: str) -> list[Setting]:
        """Return the settings that train `member`, alone first."""
        return [s for s in self.settings if member in s]

    def splits(self, member: str) -> list[str]:
        """Return the sets that `member` is evaluated on: test, and ood if its corpus has one."""
        metrics = self.run(self.settings_with(member)[0]).metrics[member]
        return [split for split in ("test", "ood") if split in metrics]

    def classes(self, member: str) -> int:
        """Return the number of classes of `member` that its runs recorded; the corpus is not needed."""
        return self.run(self.settings_with(member)[0]).dynamics(member).meta.classes

    def evaluated(self, member: str, setting: Sequence[str], split: str) -> Evaluated:
        """Return the final predictions of a setting's runs on a member's `split`; files are read once.

        All seeds were evaluated on the same rows in the same order, so ids and labels are read from the first one.
        """
        key = (member, Setting(setting))
        if key not in self._evaluated:
            first, *others = (self.run(setting, seed) for seed in self.seeds)
            frame = first.predictions(member)
            frames = [frame, *(run.predictions(member, ["predicted", "p_gold"]) for run in others)]
            order = np.argsort(frame["id"].to_numpy(), kind="stable")
            sets, ids, gold = (frame[name].to_numpy()[order] for name in ("split", "id", "gold"))
            tables = [np.stack([f[name].to_numpy()[order] for f in frames]) for name in ("predicted", "p_gold")]
            self._evaluated[key] = {
                name: Evaluated(ids[rows], gold[rows], *(table.compress(rows, axis=1) for table in tables))
                for name in np.unique(sets)
                for rows in [sets == name]
            }
        return self._evaluated[key][split]

    @cached_property
    def _evaluated(self) -> dict[tuple[str, Setting], dict[str, Evaluated]]:
        return {}

    def corpus(self, member: str) -> Corpus:
        """Return the corpus that `member` was trained on, by its fingerprint; it is read once. Raises CorpusError."""
        from soi_lib.data.cache import load

        if member not in self._corpora:
            run = self.run(self.settings_with(member)[0])
            self._corpora[member] = load(member, run.manifest["identity"]["fingerprints"][f"corpus/{member}"])
        return self._corpora[member]

    @cached_property
    def _corpora(self) -> dict[str, Corpus]:
        return {}

    @property
    def note(self) -> str:
        """The note under a table: profile, seeds, device."""
        seeds = len(self.seeds)
        devices = ", ".join(sorted({str(r.manifest["machine"]["device"]) for r in self.runs}))
        precision = ", ".join(sorted({r.manifest["precision"] for r in self.runs}))
        return f"Profile {self.profile.name}, {seeds} seed{'s' if seeds > 1 else ''}, device {devices} ({precision})"


def setting_name(setting: Sequence[str], members: tuple[str, ...] = ()) -> str:
    """Return a readable name: `alone`, `all three`, `all three at equal budget`, or the members joined by +."""
    if len(setting) == 1:
        return "alone"
    if len(setting) == len(members) > 2:
        name = "all three" if len(members) == 3 else "all"
        return name + (" at equal budget" if Setting(setting).budget == "equal" else "")
    return str(Setting(setting))


def score_table(results: Results) -> pd.DataFrame:
    """Return one row per member, setting and split (test, ood), with accuracy, macro-F1, loss and baselines.

    Scores are means over seeds; the 95 % interval of the accuracy is over examples and seeds (`Effect.reach`).
    """
    rows: list[dict[str, Any]] = []
    for member in results.members:
        for setting in results.settings_with(member):
            found = [results.run(setting, seed).metrics[member] for seed in results.seeds]
            for split in results.splits(member):
                evaluated = results.evaluated(member, setting, split)
                interval = mean_effect(contributions("accuracy", evaluated.gold, evaluated.predicted)).interval()
                rows.append(
                    {
                        "member": member,
                        "setting": setting_name(setting, results.members),
                        "split": split,
                        "n": found[0][split]["n"],
                        "accuracy": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                        "macro_f1": np.mean([m[split]["macro_f1"] for m in found]),
                        "loss": np.mean([m[split]["loss"] for m in found]),
                        "majority": found[0]["majority"][split]["accuracy"],
                        "bag_of_words": found[0]["bag_of_words"][split]["accuracy"],
                    }
                )
    return pd.DataFrame(rows).round(3)
