"""Estimate what the profiles cost on a core and on a GPU, as a table for a page.

With a small model, a GPU mostly waits for the next kernel, so an update takes at least the time of its layers' kernel
launches. Both GPU rates are assumptions; `benchmarks/README.md` has measurements.
"""

from __future__ import annotations

import pandas as pd

from paper.tables import markdown
from soi_lib.runs.config import Profile
from soi_lib.runs.spec import (
    BERT_BASE,
    ENCODERS,
    Job,
    RunSpec,
    StageSpec,
    core_seconds,
    flop,
    staged,
    stages_of,
    tokens,
)

GPU_RATE = 150e12
"""Assumed FLOP per second of an H100, between a quarter and a third of what its bf16 matrix products reach."""
LAYER_SECONDS = 2.5e-3
"""Assumed minimum time per layer and update on a GPU: forward pass, backward pass and optimizer."""


def cost_table(*profiles: Profile) -> pd.DataFrame:
    """Return one row per profile and comparison: runs, stages, updates, FLOP, core-hours and GPU-hours."""
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
            jobs: list[Job] = [*runs, *stages]
            counted = pd.DataFrame([_counted(job) for job in jobs]).sum()
            rows.append(
                {"profile": profile.name, "comparison": comparison, "runs": len(runs), "stages": len(stages)}
                | counted.to_dict()
            )
    return pd.DataFrame(rows)


def _counted(job: Job) -> dict[str, float]:
    """Return the updates, FLOP and hours of one run or stage."""
    parameters, layers = ENCODERS.get((job.base if isinstance(job, StageSpec) else job).encoder, BERT_BASE)
    examples, trained, evaluated = tokens(job)
    updates, work = -(-examples // job.training.batch_size), flop(parameters, trained, evaluated)
    return {
        "updates": updates,
        "PFLOP": work / 1e15,
        "core-hours": core_seconds(job) / 3600,
        "GPU-hours": max(work / GPU_RATE, updates * layers * LAYER_SECONDS) / 3600,
    }


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown, with a total per profile."""
    lines = []
    for profile, rows in table.groupby("profile", sort=False):
        total = {"profile": f"**{profile}**", "comparison": "**all**"} | rows.sum(numeric_only=True).to_dict()
        for row in [*rows.to_dict("records"), total]:
            names, numbers = list(row.values())[:2], list(row.values())[2:]
            lines.append([*names, *(f"{n:,.0f}" for n in numbers[:3]), *(f"{n:,.1f}" for n in numbers[3:])])
    return markdown(list(table.columns), lines, right=len(table.columns) - 2)
