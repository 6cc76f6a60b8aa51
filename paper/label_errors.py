"""What the measurement of wrong labels found: its file read into tables and a sentence.

benchmarks/wrong_labels.py flips labels on purpose and writes how well each ranking finds them; nothing is measured
here.
The rule of ours that the others are held against is the one named in the file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

MEASURES = {"average_precision": "average precision", "recall": "recall among as many as were flipped"}
SHOWN = ("margin", "cleanlab find_label_issues", "cleanlab self confidence", "unlearned first")
"""Beside our rule in the table of single cells: area under the margin, cleanlab's two rankings, the category alone."""


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The report that benchmarks/wrong_labels.py wrote."""
    return dict(json.loads(Path(path).read_text(encoding="utf-8")))


def note(report: dict[str, Any]) -> str:
    """What to say under a table: corpora, examples, rates, seeds."""
    rates = ", ".join(f"{rate:.0%}" for rate in report["rates"])
    return (
        f"{', '.join(report['corpora'])}; {report['examples']} examples each, {report['epochs']} epochs; "
        f"{rates} of the labels flipped; {len(report['seeds'])} seeds"
    )


def overall(report: dict[str, Any]) -> pd.DataFrame:
    """A row a method, the best first: both measures, and what our rule has more than it, means over all cells.

    Columns: method, then for each measure the value and the difference, as text with 95 % intervals over seeds.
    """
    rows = []
    for row in report["overall"]:
        shown = {"method": row["method"]}
        for key, name in MEASURES.items():
            ours = row["method"] == report["ours"]
            shown[name] = _text(row[key])
            shown[f"{name}: {report['ours']} minus it"] = "" if ours else _text(_gap(row, report, key), "+")
        rows.append(shown)
    return pd.DataFrame(rows)


def differences(report: dict[str, Any]) -> pd.DataFrame:
    """What our rule has more than each other method, as `interval_plot` reads it."""
    rows = []
    for row in report["overall"]:
        for key, name in MEASURES.items() if row["method"] != report["ours"] else ():
            gap = _gap(row, report, key)
            rows.append(
                {"case": row["method"], "measure": f"{name}:\n{report['ours']} minus it"}
                | {"value": gap["mean"], "low": gap["low"], "high": gap["high"]}
            )
    return pd.DataFrame(rows)


def cells(report: dict[str, Any]) -> pd.DataFrame:
    """A row a corpus and rate, a column a method (our rule, and those in `SHOWN`): average precision, over seeds."""
    table = pd.DataFrame(report["rows"])
    table["value"] = [cell["mean"] for cell in table["average_precision"]]
    methods = [report["ours"], *(m for m in SHOWN if m in set(table["method"]) and m != report["ours"])]
    wide = table.pivot(index=["corpus", "rate"], columns="method", values="value")[methods].reset_index()
    wide["rate"] = [f"{rate:.0%}" for rate in wide["rate"]]
    return wide.sort_values("corpus", key=lambda c: c.map(report["corpora"].index), kind="stable").rename_axis(
        columns=None
    )


def describe(report: dict[str, Any]) -> str:
    """Whether our rule is at least as good as the best that other tools offer, and by how much, by both measures."""
    rows = {row["method"]: row for row in report["overall"]}
    others = [row for name, row in rows.items() if name == "margin" or name.startswith("cleanlab")]
    sentences = []
    for key, name in MEASURES.items():
        best = max(others, key=lambda row: row[key]["mean"])
        own, gap = rows[report["ours"]][key]["mean"], _gap(best, report, key)
        verdict = "is better" if gap["low"] > 0 else "is worse" if gap["high"] < 0 else "cannot be told from it"
        sentences.append(
            f"By {name}, the default rule *{report['ours']}* reaches {own:.3f} and the best method that other tools "
            f"offer, {best['method']}, {best[key]['mean']:.3f}: the default {verdict} ({_text(gap, sign='+')})."
        )
    return " ".join(sentences)


def _gap(row: dict[str, Any], report: dict[str, Any], key: str) -> dict[str, Any]:
    """What our rule has more than the method of `row`, as the report holds it."""
    return dict(row[f"{report['ours']} minus it, {key}"])


def _text(value: dict[str, Any], sign: str = "") -> str:
    return f"{value['mean']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"
