"""The interactive part of the page "Looking at examples": the examples and their texts.

Texts are read from the corpora when the book is rendered and are never committed. They are written to `_build/look`
with the explorer's files; if they are missing, as in a book rendered straight from a clone, the page shows static
pictures and explains how to get the rest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from paper.recorded import Results, by_comparison
from soi_lib import files
from soi_lib.analysis.transitions import transition_matrix
from soi_lib.plots import data_map_plot, explorer, flow_plot
from soi_lib.runs.config import Profile
from soi_lib.runs.results import setting_name
from soi_lib.runs.store import StoredRun

LOOK = Path("_build/look")  # where the files are made
PLACE = "book/_static/look"  # where the staged book has them
SEEDS = 3  # enough to show how much moves by chance, and few enough for a page


def write_look(root: Path, profile: Profile, runs: Sequence[StoredRun], *, quiet: bool = False) -> None:
    """Make `_build/look` from `runs` and the texts of their corpora, unless it is up to date."""
    from tqdm.auto import tqdm  # in a notebook, importing it warns about missing widgets

    from paper.execute import library_hash, make_once

    inputs = [sorted(run.manifest["sha256"] for run in runs), profile.model_dump_json(), version("plotly")]
    stamp = hashlib.sha256(json.dumps([library_hash(), inputs]).encode()).hexdigest()

    def make() -> None:
        explorers = {}
        found = by_comparison(profile, runs).values()
        for results in tqdm(found, desc="texts", unit="", disable=quiet, file=sys.stderr):
            data = {m: examples(results, m) for m in results.members if results.settings_with(m)}
            explorers[results.comparison] = explorer.Explorer(data, results.note)
        with files.building(root / LOOK, replace=True) as out:
            for name, body in explorer.explorer_files(explorers, stamp[:12]).items():
                files.write_text(out / name, body)

    make_once(root / LOOK, stamp, make)


def examples(results: Results, member: str) -> dict[str, Any]:
    """Return the explorer's data for one dataset: `SEEDS` runs alone and together, with the texts of its corpus."""
    train = results.corpus(member).splits["train"]
    parts = [train.text] if train.text_pair is None else [train.text, train.text_pair]
    runs = {
        f"{setting_name(setting, results.members)}, seed {seed}": results.run(setting, seed).dynamics(member)
        for setting in ((member,), results.members)
        for seed in results.seeds[:SEEDS]
    }
    texts = dict(zip(train.ids, zip(*parts, strict=True), strict=True))
    names = list(runs)
    return explorer.explorer_data(runs, texts, first=names[0], second=names[len(names) // 2])


@dataclass(frozen=True)
class Explorer:
    """Placeholder for one comparison's explorer; until a script fills it, it explains how to get the explorer."""

    comparison: str

    def _repr_html_(self) -> str:
        return (
            f'<div class="soi-look" data-comparison="{self.comparison}"><p style="max-width:44rem">'
            "<em>Pictures only.</em> The texts are not part of the repository. <code>make book PROFILE=recorded</code> "
            "downloads them and renders this page with interactive maps; it trains nothing and takes a few minutes.</p>"
            "</div>"
        )

    def __repr__(self) -> str:
        return f"[explorer of the comparison {self.comparison}]"


def pictures(results: Results, member: str) -> list[Any]:
    """Return static versions of a member's explorer in its initial state: data maps and flow of the first seed."""
    multi = results.settings_with(member)[-1]
    seed = results.seeds[0]
    alone, together = (results.run(setting, seed).dynamics(member) for setting in ((member,), multi))
    sides = ("alone", setting_name(multi, results.members))
    note = f"{results.note}; seed {seed} is shown"
    maps = data_map_plot(dict(zip(sides, (alone, together), strict=True)), color="soi", title=member, note=note)
    counts = transition_matrix(alone, together)
    return [maps, flow_plot(counts, title=f"{member}: {sides[0]} to {sides[1]}", note=note, sides=sides)]
