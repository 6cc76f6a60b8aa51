"""The examples themselves, to look at: what the page "Looking at examples" shows beyond its pictures.

Texts come from the corpora when the book is rendered and are never committed. They go to `_build/look`
beside the explorer's own files; where they are missing, as in a book rendered straight from a clone, the page shows
its static pictures and says how to get the rest.
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
from soi_lib.runs.config import Profile
from soi_lib.runs.store import StoredRun

LOOK = Path("_build/look")  # where the files are made
PLACE = "book/_static/look"  # where the staged book has them
SEEDS = 3  # enough to see how much moves by chance, and few enough for a page


def write_look(root: Path, profile: Profile, runs: Sequence[StoredRun], *, quiet: bool = False) -> bool:
    """Bring `_build/look` up to date with `runs`, with the texts of their corpora; True when anything was written.

    Nothing is read but the stamp and what it covers while runs, library and plotly are the same.
    """
    from tqdm.auto import tqdm

    from paper.execute import library_hash
    from soi_lib.plots import explorer

    inputs = [sorted(run.manifest["sha256"] for run in runs), profile.model_dump_json(), version("plotly")]
    stamp = hashlib.sha256(json.dumps([library_hash(), inputs]).encode()).hexdigest()
    folder, kept = root / LOOK, root / LOOK.with_suffix(".json")
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) == {"stamp": stamp, "files": _hashes(folder)}:
        return False
    explorers = {}
    for results in tqdm(by_comparison(profile, runs).values(), desc="texts", unit="", disable=quiet, file=sys.stderr):
        members = [member for member in results.members if results.settings_with(member)]
        explorers[results.comparison] = explorer.Explorer({m: examples(results, m) for m in members}, results.note)
    written = explorer.explorer_files(explorers, stamp[:12])
    for file in sorted(folder.glob("*")):
        if file.name not in written:
            file.unlink()
    for name, body in written.items():
        files.write_text(folder / name, body)
    files.write_json(kept, {"stamp": stamp, "files": _hashes(folder)})
    return True


def look_files(root: Path) -> dict[str, Path]:
    """What `write_look` made, by the place that it has in the staged book."""
    return {f"{PLACE}/{file.name}": file for file in sorted((root / LOOK).glob("*"))}


def examples(results: Results, member: str) -> dict[str, Any]:
    """What the explorer shows of one dataset: alone and all together, `SEEDS` of each, with the texts of its corpus."""
    from soi_lib.plots.explorer import explorer_data
    from soi_lib.runs.results import setting_name

    train = results.corpus(member).splits["train"]
    parts = [train.text] if train.text_pair is None else [train.text, train.text_pair]
    runs = {
        f"{setting_name(setting, results.members)}, seed {seed}": results.run(setting, seed).dynamics(member)
        for setting in ((member,), results.members)
        for seed in results.seeds[:SEEDS]
    }
    texts = dict(zip(train.ids, zip(*parts, strict=True), strict=True))
    names = list(runs)
    return explorer_data(runs, texts, first=names[0], second=names[len(names) // 2])


def _hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*"))}


@dataclass(frozen=True)
class Explorer:
    """The place of one comparison's explorer on the page; until a script fills it, it says how to get it."""

    comparison: str

    def _repr_html_(self) -> str:
        return (
            f'<div class="soi-look" data-comparison="{self.comparison}"><p style="max-width:44rem">'
            "<em>Pictures only.</em> The texts are not part of the repository. <code>make book PROFILE=recorded</code> "
            "brings them and renders this page with maps to explore: it trains nothing and takes some minutes.</p>"
            "</div>"
        )

    def __repr__(self) -> str:
        return f"[explorer of the comparison {self.comparison}]"


def pictures(results: Results, member: str) -> list[Any]:
    """The static twins of a member's explorer as it first stands: its data maps and the flow, the first seed."""
    from soi_lib.plots import data_map_plot, flow_plot
    from soi_lib.runs.results import setting_name

    multi = results.settings_with(member)[-1]
    seed = results.seeds[0]
    alone, together = (results.run(setting, seed).dynamics(member) for setting in ((member,), multi))
    sides = ("alone", setting_name(multi, results.members))
    note = f"{results.note}; seed {seed} is shown"
    maps = data_map_plot(dict(zip(sides, (alone, together), strict=True)), color="soi", title=member, note=note)
    counts = transition_matrix(alone, together)
    return [maps, flow_plot(counts, title=f"{member}: {sides[0]} to {sides[1]}", note=note, sides=sides)]
