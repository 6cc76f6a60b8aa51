"""The examples themselves, to look at: what the page "Looking at examples" shows beyond its pictures.

Special about it: texts are brought from the corpora when the book is rendered and are never committed. They go to
`_build/look` as small scripts, one a member, which the book's own `look.js` reads from a folder or a server alike;
where they are missing, as in a book rendered straight from a clone, the page shows its static pictures and says how
to get the rest. Texts are only ever shown as text, so markup in them stays what it is.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from soi_lib import atomic
from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI
from soi_lib.analysis.transitions import transition_matrix
from soi_lib.data.dataset import Split, id_order
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import CorpusError
from soi_lib.runs.config import Profile
from soi_lib.runs.results import Results
from soi_lib.runs.store import StoredRun

LOOK = Path("_build/look")  # where the scripts are made
PLACE = "book/_static/look"  # where the staged book has them
MOST_EXAMPLES = 1500  # a member; more would hide one another, and weigh over a megabyte
LONGEST = 500  # characters of a text; longer ones are cut, and say so


def write_look(root: Path, profile: Profile, runs: Sequence[StoredRun], *, quiet: bool = False) -> bool:
    """Bring `_build/look` up to date with `runs`, with the texts of their corpora; True when anything was written.

    Nothing is read but the stamp and what it covers while runs, library and plotly are the same. Raises CorpusError
    when a corpus is not the one that a run was trained on.
    """
    from tqdm.auto import tqdm

    from paper.build import library_hash

    inputs = [sorted(run.manifest["sha256"] for run in runs), profile.model_dump_json(), version("plotly")]
    stamp = hashlib.sha256(json.dumps([library_hash(), inputs]).encode()).hexdigest()
    folder, kept = root / LOOK, root / LOOK.with_suffix(".json")
    if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) == {"stamp": stamp, "files": _hashes(folder)}:
        return False
    every = [Results(c, profile, tuple(r for r in runs if r.comparison == c)) for c in profile.comparisons]
    every = [results for results in every if results.runs]
    written = {"index.js": _index(every, stamp[:12]), "plotly.min.js": _plotly()}
    members = [(results, member) for results in every for member in results.members if results.settings_with(member)]
    for results, member in tqdm(members, desc="texts to look at", unit="", disable=quiet, file=sys.stderr):
        name = f"{results.comparison}-{member}"
        written[f"{name}.js"] = f"soiLook.put({json.dumps(name)},{_json(examples(results, member))});\n"
    for file in sorted(folder.glob("*")):
        if file.name not in written:
            file.unlink()
    for name, body in written.items():
        atomic.write_text(folder / name, body)
    atomic.write_json(kept, {"stamp": stamp, "files": _hashes(folder)})
    return True


def look_files(root: Path) -> dict[str, Path]:
    """What `write_look` made, by the place that it has in the staged book."""
    return {f"{PLACE}/{file.name}": file for file in sorted((root / LOOK).glob("*.js"))}


def examples(results: Results, member: str) -> dict[str, Any]:
    """What the explorer shows of one member, as plain JSON values.

    text, pair (or None), gold: N each; runs: a dictionary a setting and seed with confidence and variability (N
    integers, thousandths), history (N*E characters, 1 = right at that epoch) and soi (N digits, codes of SOI).
    Of more than 1,500 examples those with the smallest hash of their id are kept; `of` says how many there were.
    """
    from soi_lib.report.tables import setting_name

    corpus = results.corpus(member)
    order = [(setting, seed) for setting in results.settings_with(member) for seed in results.seeds]
    found = [r for setting, seed in order for r in results.runs if (r.setting, r.seed) == (setting, seed)]
    dynamics = [run.dynamics(member) for run in found]
    ids = reduce(np.intersect1d, [d.ids for d in dynamics])
    kept = ids[np.sort(id_order(ids)[:MOST_EXAMPLES])]
    names = [f"{setting_name(run.setting, results.members)}, seed {run.seed}" for run in found]
    return {
        "member": member,
        "labels": list(corpus.labels),
        "of": len(ids),
        **_texts(corpus.splits["train"], kept, member),
        "runs": [{"name": name, **_track(d, kept)} for name, d in zip(names, dynamics, strict=True)],
        "first": 0,
        "second": next(i for i, run in enumerate(found) if run.setting == found[-1].setting),
    }


def _texts(split: Split, ids: np.ndarray, member: str) -> dict[str, Any]:
    """Texts and gold labels of `ids`, in their order."""
    place = {key: i for i, key in enumerate(split.ids)}
    if missing := [key for key in ids if key not in place]:
        raise CorpusError("an example of a run is not in its corpus", where=member, found=repr(missing[0]))
    rows = [place[key] for key in ids]
    pair = None if split.text_pair is None else [_cut(split.text_pair[i]) for i in rows]
    return {"text": [_cut(split.text[i]) for i in rows], "pair": pair, "gold": [int(split.label[i]) for i in rows]}


def _track(dynamics: TrainingDynamics, ids: np.ndarray) -> dict[str, Any]:
    """What one run did with `ids`, in their order."""
    table = data_map(dynamics).assign(row=np.arange(len(dynamics))).set_index("id").loc[ids]
    history = dynamics.correct[:, table["row"].to_numpy()].T
    return {
        "epochs": dynamics.epochs,
        "confidence": np.rint(table["confidence"].to_numpy() * 1000).astype(int).tolist(),
        "variability": np.rint(table["variability"].to_numpy() * 1000).astype(int).tolist(),
        "history": "".join("1" if right else "0" for right in history.ravel()),
        "soi": "".join(str(int(code)) for code in table["soi"]),
    }


def _index(every: Sequence[Results], stamp: str) -> str:
    """The script that says which members there are, and how categories look; `stamp` keeps old copies from use."""
    from soi_lib.plots.style import ORDER, SOI_COLORS

    value = {
        "order": [int(soi) for soi in ORDER],
        "labels": [soi.label for soi in SOI],
        "descriptions": [soi.description for soi in SOI],
        "colors": [SOI_COLORS[soi] for soi in SOI],
        "version": stamp,
        "comparisons": {r.comparison: {"members": list(r.members), "note": r.note} for r in every},
    }
    return f"window.soiLook={_json(value)};soiLook.data={{}};soiLook.put=(name,value)=>{{soiLook.data[name]=value;}};\n"


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _json(value: Any) -> str:
    """Compact JSON in UTF-8 (a lone surrogate, which UTF-8 cannot hold, becomes a question mark)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "replace").decode("utf-8").replace("<", "\\u003c")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


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
    from soi_lib.report.tables import setting_name

    multi = results.settings_with(member)[-1]
    seed = results.seeds[0]
    alone, together = (results.run(setting, seed).dynamics(member) for setting in ((member,), multi))
    sides = ("alone", setting_name(multi, results.members))
    note = f"{results.note}; seed {seed} is shown"
    maps = data_map_plot(dict(zip(sides, (alone, together), strict=True)), color="soi", title=member, note=note)
    counts = transition_matrix(alone, together)
    return [maps, flow_plot(counts, title=f"{member}: {sides[0]} to {sides[1]}", note=note, sides=sides)]
