"""What the measurement of wrong labels found: its file read into tables and a sentence.

benchmarks/wrong_labels.py flips labels on purpose and writes how well each ranking finds them; nothing is measured
here.
The rule of ours that the others are held against is the one named in the file.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pandas as pd

from soi_lib.errors import FormatError

MEASURES = {"average_precision": "average precision", "recall": "recall among as many as were flipped"}
SHOWN = ("margin", "cleanlab find_label_issues", "cleanlab self confidence", "unlearned first")
"""Beside our rule in the table of single cells: area under the margin, cleanlab's two rankings, the category alone."""


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The report that benchmarks/wrong_labels.py wrote. Raises FormatError when it is not one."""
    try:
        with open(path, encoding="utf-8") as handle:
            report = json.load(handle)
        if not {"overall", "rows", "ours", "seeds", "command"} <= set(report):
            raise ValueError(f"keys {', '.join(sorted(report)) or 'none'}")
    except (OSError, ValueError, TypeError) as error:
        raise FormatError(
            "the measurement of wrong labels cannot be read",
            where=path,
            found=error,
            hint="benchmarks/wrong_labels.py writes it",
        ) from error
    return dict(report)


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
            shown[name] = _text(row[key])
            more = "" if row["method"] == report["ours"] else _text(_gap(row, report, key), "+")
            shown[f"{name}: {report['ours']} minus it"] = more
        rows.append(shown)
    return pd.DataFrame(rows)


def differences(report: dict[str, Any]) -> pd.DataFrame:
    """What our rule has more than each other method, as `plots.claims.interval_plot` reads it."""
    return pd.DataFrame(
        [
            {
                "case": row["method"],
                "measure": f"{name}:\n{report['ours']} minus it",
                **_interval(_gap(row, report, key)),
            }
            for row in report["overall"]
            if row["method"] != report["ours"]
            for key, name in MEASURES.items()
        ]
    )


def cells(report: dict[str, Any], measure: str = "average_precision") -> pd.DataFrame:
    """A row a corpus and rate, a column a method (our rule, and those in `SHOWN`): means of a measure over seeds."""
    table = pd.DataFrame(report["rows"])
    table["value"] = [cell["mean"] for cell in table[measure]]
    methods = [report["ours"], *(m for m in SHOWN if m in set(table["method"]) and m != report["ours"])]
    wide = table.pivot(index=["corpus", "rate"], columns="method", values="value")[methods].reset_index()
    wide["rate"] = [f"{rate:.0%}" for rate in wide["rate"]]
    return wide.sort_values("corpus", key=lambda c: c.map(report["corpora"].index), kind="stable").rename_axis(
        columns=None
    )


def describe(report: dict[str, Any]) -> str:
    """Whether our rule is at least as good as the best of the others, and by how much, by both measures."""
    ours = report["ours"]
    others = [row for row in report["overall"] if _foreign(row["method"])]
    sentences = []
    for key, name in MEASURES.items():
        best = max(others, key=lambda row: row[key]["mean"])
        own = next(row for row in report["overall"] if row["method"] == ours)
        gap = _gap(best, report, key)
        sentences.append(
            f"By {name}, the default rule *{ours}* reaches {own[key]['mean']:.3f} and the best method that other tools "
            f"offer, {best['method']}, {best[key]['mean']:.3f}: the default {_verdict(gap)} ({_text(gap, sign='+')})."
        )
    return " ".join(sentences)


def _foreign(method: str) -> bool:
    """Whether other tools offer it: the area under the margin, and what cleanlab ranks by."""
    return method == "margin" or method.startswith("cleanlab")


def _verdict(gap: dict[str, Any]) -> str:
    if gap["low"] is None:
        return "differs by one seed's worth of evidence"
    if gap["low"] > 0:
        return "is better"
    return "is worse" if gap["high"] < 0 else "cannot be told from it"


def _gap(row: dict[str, Any], report: dict[str, Any], key: str) -> dict[str, Any]:
    """What our rule has more than the method of `row`, as the report holds it."""
    gap: dict[str, Any] = row[f"{report['ours']} minus it, {key}"]
    return gap


def _interval(gap: dict[str, Any]) -> dict[str, Any]:
    return {"value": gap["mean"], "low": gap["low"], "high": gap["high"]}


def _text(value: dict[str, Any], sign: str = "") -> str:
    mean = f"{value['mean']:{sign}.3f}"
    return mean if value["low"] is None else f"{mean} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"
