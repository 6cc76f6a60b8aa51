"""What a profile costs on a core and on a GPU, from its sizes alone: no corpus is read and nothing is measured here.

Training costs 6 floating-point operations a token and parameter (Kaplan et al. 2020: 2 forward, 4 backward), an
evaluation 2; embeddings are looked up and cost none. A small model keeps a GPU waiting for the next kernel, so an
update there takes at least its layers' launches. The rates below are what turns this into hours: that of a core was
read off recorded runs, those of a GPU are assumptions until `benchmarks/gpu.sh` has been run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soi_lib.runs.config import Profile
from soi_lib.runs.second_stage import StageSpec, staged, stages_of
from soi_lib.runs.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

CORE_RATE = 110e9
"""FLOP a second of one core with bf16, whole runs of the profile `quick` counted, evaluation and start included."""
GPU_RATE = 150e12
"""FLOP a second of an H100: assumed, between a third and a quarter of what its bf16 matrix products reach."""
LAYER_SECONDS = 2.5e-3
"""The least time of a layer in one update on a GPU, forward, backward and optimizer: assumed."""

ENCODERS = {"minilm": (10_650_000, 6), "e5": (21_300_000, 12)}
"""Parameters without embeddings, and layers; every other encoder is counted as BERT-base."""
BERT_BASE = (85_100_000, 12)
OOD = 2_000
"""Rows of an OOD set where a profile takes every one: as many as the largest that ships with the library has."""

MEMBERS = {
    "entailment": (46, 23_097), "paraphrase": (17, 3_668), "sentiment": (30, 8_078),
    "tweets": (22, None), "amazon": (23, None), "movie": (27, None), "en": (12, 7_600), "fr": (14, 11_500),
    "fa": (13, 11_514), "twitter": (22, 40_000), "yelp": (115, 40_000), "imdb": (127, 40_000),
}  # fmt: skip
"""Mean tokens of an example (recorded for the members that ship with the library, guessed for the others, cut at 128),
and the largest training split that the authors' data or ours have; None where it is larger than any profile asks."""


def cost_table(*profiles: Profile) -> pd.DataFrame:
    """A row per profile and comparison: runs, stages, updates, FLOP, and the hours of a core and of a GPU."""
    import pandas as pd

    rows = []
    for profile in profiles:
        for comparison, part in profile.comparisons.items():
            training = profile.training_of(comparison)
            runs = [
                RunSpec(comparison, setting, seed, part.encoder, profile.data_of(comparison), training, (), 0)
                for setting in part.member_sets()
                for seed in profile.seeds_of(comparison)
            ]
            stages = [s for r in runs if profile.stages and staged(profile, r) for s in stages_of(r, profile.stages)]
            counted = [*map(_counted, runs), *map(_counted, stages)]
            rows.append(
                {
                    "profile": profile.name,
                    "comparison": comparison,
                    "runs": len(runs),
                    "stages": len(stages),
                    "updates": sum(updates for updates, _, _ in counted),
                    "PFLOP": sum(flop for _, flop, _ in counted) / 1e15,
                    "core-hours": sum(flop for _, flop, _ in counted) / CORE_RATE / 3600,
                    "GPU-hours": sum(seconds for _, _, seconds in counted) / 3600,
                }
            )
    return pd.DataFrame(rows)


def _counted(spec: RunSpec | StageSpec) -> tuple[int, float, float]:
    """Updates, FLOP, and seconds on a GPU of one run or stage."""
    base = spec.base if isinstance(spec, StageSpec) else spec
    parameters, layers = ENCODERS.get(base.encoder, BERT_BASE)
    examples = tokens = evaluated = 0.0
    training = base.training
    for member in base.setting:
        length, most = MEMBERS.get(member, (128, None))
        n = float(min(base.data.train, most or base.data.train))
        if isinstance(spec, StageSpec):
            share = spec.examples / (base.examples / base.training.epochs * spec.training.epochs)
            n = min(n * share, spec.limit or n)
        examples += n * spec.training.epochs
        tokens += n * spec.training.epochs * length
        if base.budget == "equal":
            n /= len(base.setting)
        evaluated += (base.data.evaluate + (base.data.ood or OOD) + base.data.validation * training.epochs) * length
    updates = int(-(-examples // spec.training.batch_size))
    flop = parameters * (6 * tokens + 2 * evaluated)
    return updates, flop, max(flop / GPU_RATE, updates * layers * LAYER_SECONDS)


def as_markdown(table: pd.DataFrame) -> str:
    """The table for a page, with a sum per profile."""
    names = ["profile", "comparison", "runs", "stages", "updates", "PFLOP", "core-hours", "GPU-hours"]
    lines = ["| " + " | ".join(names) + " |", "|---|---|" + "---:|" * 6]
    for profile, rows in table.groupby("profile", sort=False):
        total = rows.sum(numeric_only=True)
        cells = [[str(profile), str(r["comparison"]), *r[names[2:]]] for _, r in rows.iterrows()]
        for first, second, *numbers in [*cells, [f"**{profile}**", "**all**", *(total[n] for n in names[2:])]]:
            runs, stages, updates, flop, core, gpu = numbers
            shown = [f"{runs:.0f}", f"{stages:.0f}", f"{updates:,.0f}", f"{flop:,.1f}", f"{core:,.1f}", f"{gpu:,.1f}"]
            lines.append("| " + " | ".join([first, second, *shown]) + " |")
    return "\n".join(lines)
