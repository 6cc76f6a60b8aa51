"""The interactive explorer of training examples: filterable data maps, texts, and the flow between two runs.

It is used by the book and by `soi report`. This module prepares its data as plain JSON; `explorer.js` in this folder
draws them with plotly. The explorer needs no server. Texts enter a page only as text, so markup in them is not
interpreted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soi_lib.analysis.datamap import data_map
from soi_lib.analysis.soi import SOI, history_string
from soi_lib.dynamics import TrainingDynamics, shared_rows
from soi_lib.plots.style import ORDER, SOI_COLORS

MOST_EXAMPLES = 1500  # per dataset; more would overlap and take more than a megabyte
LONGEST = 500  # characters of a text; longer texts are cut and end in "…"


@dataclass(frozen=True)
class Explorer:
    """An explorer: the `explorer_data` of each dataset by name, and a note for all captions."""

    datasets: Mapping[str, Mapping[str, Any]]
    note: str = ""


def explorer_data(
    runs: Mapping[str, TrainingDynamics], texts: Mapping[Any, Sequence[str]], *, first: str, second: str
) -> dict[str, Any]:
    """Return the explorer's data for one dataset as plain JSON values.

    Args:
        runs: the runs of the dataset by name; shows only ids that occur in all of them, at most 1,500.
        texts: one text, or the two texts of a pair, by id; an example without a text shows its id.
        first: name of the run that is shown first.
        second: name of the run to compare it with.

    Returns:
        text and pair (N strings each; pair is None without pairs), gold (N), labels, of (the number of ids before
        sampling), first and second (positions in runs), and runs: one dictionary each with name, epochs, confidence and
        variability (N integers, in thousandths), history (N*E characters, 1 if correct) and soi (N digits, SOI codes).
    """
    rows = [
        np.arange(len(run))[shared] for run, shared in zip(runs.values(), shared_rows([*runs.values()]), strict=True)
    ]
    of = len(rows[0])
    if of > MOST_EXAMPLES:
        kept = np.sort(np.random.default_rng(0).choice(of, MOST_EXAMPLES, replace=False))
        rows = [row[kept] for row in rows]
    one = next(iter(runs.values()))
    shown = [texts.get(key, (str(key),)) for key in one.ids[rows[0]].tolist()]
    pairs = any(len(parts) > 1 for parts in shown)
    return {
        "labels": list(one.meta.label_names or map(str, range(int(one.gold.max()) + 1))),
        "of": of,
        "text": [_cut(parts[0]) for parts in shown],
        "pair": [_cut(parts[1] if len(parts) > 1 else "") for parts in shown] if pairs else None,
        "gold": one.gold[rows[0]].tolist(),
        "runs": [{"name": name, **_track(run, row)} for (name, run), row in zip(runs.items(), rows, strict=True)],
        "first": list(runs).index(first),
        "second": list(runs).index(second),
    }


def explorer_files(explorers: Mapping[str, Explorer], version: str = "") -> dict[str, str]:
    """Return the style and the scripts of a page's explorers, by file name, in the order in which a page needs them.

    A page marks the place of an explorer with `<div class="soi-look" data-comparison="NAME"></div>`. It either embeds
    all of the files, or loads explorer.css, index.js and explorer.js; the latter loads the others from its folder on
    demand. `version` prevents the use of outdated cached copies.
    """
    from plotly.offline import get_plotlyjs

    index = {
        "order": [int(soi) for soi in ORDER],
        "labels": [soi.name for soi in SOI],
        "descriptions": [soi.description for soi in SOI],
        "colors": [SOI_COLORS[soi] for soi in SOI],
        "version": version,
        "comparisons": {name: {"members": list(e.datasets), "note": e.note} for name, e in explorers.items()},
    }
    start = f"window.soiLook={_script(index)};soiLook.data={{}};"
    start += "soiLook.put=(name,value)=>{soiLook.data[name]=value;};\n"
    data = {
        f"{name}-{member}": {"member": member, **v} for name, e in explorers.items() for member, v in e.datasets.items()
    }
    put = {f"{key}.js": f"soiLook.put({_script(key)},{_script(value)});\n" for key, value in data.items()}
    style, script = (Path(__file__).with_name(f"explorer.{end}").read_text(encoding="utf-8") for end in ("css", "js"))
    plotly = {"plotly.min.js": str(get_plotlyjs())}
    return {"explorer.css": style, "index.js": start, **put, **plotly, "explorer.js": script}


def _track(dynamics: TrainingDynamics, rows: np.ndarray) -> dict[str, Any]:
    """Return the data of one run for `rows`, in their order."""
    table = data_map(dynamics).assign(history=dynamics.history).iloc[rows]
    return {
        "epochs": dynamics.epochs,
        "confidence": np.rint(table["confidence"] * 1000).astype(int).tolist(),
        "variability": np.rint(table["variability"] * 1000).astype(int).tolist(),
        "history": "".join(history_string(history, dynamics.epochs, "1", "0") for history in table["history"]),
        "soi": "".join(map(str, table["soi"])),
    }


def _script(value: Any) -> str:
    """Return compact JSON that is safe inside a script (lone surrogates, invalid in UTF-8, become `?`)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "replace").decode("utf-8").replace("<", "\\u003c")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
