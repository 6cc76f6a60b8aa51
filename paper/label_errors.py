"""Tables and sentences from the report of the benchmark on wrong labels.

`benchmarks/wrong_labels.py` flips labels on purpose and records how well each ranking finds them; nothing is measured
here. The report names our rule, with which the other methods are compared.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from soi_lib.analysis.label_issues import RULES
from soi_lib.analysis.statistics import mean_effect

MEASURES = {"average_precision": "average precision", "recall": "recall at the number of flipped labels"}
SHOWN = ("margin", "cleanlab find_label_issues", "cleanlab self confidence", "unlearned first")
"""Shown with our rule in the table of single cells: area under the margin, cleanlab's two rankings, category alone."""


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the report written by benchmarks/wrong_labels.py, without rules that the library no longer has."""
    report = dict(json.loads(Path(path).read_text(encoding="utf-8")))
    for part in ("overall", "rows"):
        report[part] = [row for row in report[part] if row["method"] in RULES or row["method"].startswith("cleanlab")]
    return report


def note(report: dict[str, Any]) -> str:
    """Return the note for a table: corpora, examples, epochs, rates, seeds."""
    rates = ", ".join(f"{rate:.0%}" for rate in report["rates"])
    return (
        f"{', '.join(report['corpora'])}; {report['examples']} examples each, {report['epochs']} epochs; "
        f"{rates} of the labels flipped; {len(report['seeds'])} seeds"
    )


def overall(report: dict[str, Any]) -> pd.DataFrame:
    """Return one row per method, best first: both measures and our rule's lead over it, as means over all cells.

    Columns: method, then for each measure the value and the difference, as text with 95 % intervals over seeds.
    """
    rows = []
    for row in report["overall"]:
        shown = {"method": row["method"]}
        for key, name in MEASURES.items():
            ours = row["method"] == report["ours"]
            shown[name] = _text(row[key])
            shown[f"{name}: {report['ours']} minus this one"] = "" if ours else _text(_gap(row, report, key), "+")
        rows.append(shown)
    return pd.DataFrame(rows)


def differences(report: dict[str, Any]) -> pd.DataFrame:
    """Return our rule's lead over each other method, in the form that `interval_plot` reads."""
    rows = []
    for row in report["overall"]:
        for key, name in MEASURES.items() if row["method"] != report["ours"] else ():
            gap = _gap(row, report, key)
            rows.append(
                {"case": row["method"], "measure": f"{name}:\n{report['ours']} minus this one"}
                | {"value": gap["mean"], "low": gap["low"], "high": gap["high"]}
            )
    return pd.DataFrame(rows)


def cells(report: dict[str, Any]) -> pd.DataFrame:
    """Return mean average precision: one row per corpus and rate, one column per method (our rule and `SHOWN`)."""
    table = pd.DataFrame(report["rows"])
    table["value"] = [cell["mean"] for cell in table["average_precision"]]
    methods = [report["ours"], *(m for m in SHOWN if m in set(table["method"]) and m != report["ours"])]
    wide = table.pivot(index=["corpus", "rate"], columns="method", values="value")[methods].reset_index()
    wide["rate"] = [f"{rate:.0%}" for rate in wide["rate"]]
    return wide.sort_values("corpus", key=lambda c: c.map(report["corpora"].index), kind="stable").rename_axis(
        columns=None
    )


def describe(report: dict[str, Any]) -> str:
    """Say how our rule compares with the best method that other tools offer, by both measures."""
    rows = {row["method"]: row for row in report["overall"]}
    others = [row for name, row in rows.items() if name == "margin" or name.startswith("cleanlab")]
    sentences = []
    for key, name in MEASURES.items():
        best = max(others, key=lambda row: row[key]["mean"])
        own, gap = rows[report["ours"]][key]["mean"], _gap(best, report, key)
        verdict = "is better" if gap["low"] > 0 else "is worse" if gap["high"] < 0 else "cannot be told apart from it"
        sentences.append(
            f"By {name}, the default rule *{report['ours']}* reaches {own:.3f} and the best method that other tools "
            f"offer, {best['method']}, {best[key]['mean']:.3f}: the default {verdict} ({_text(gap, sign='+')})."
        )
    return " ".join(sentences)


def on_one(report: dict[str, Any], corpus: str, other: str) -> str:
    """Say how far our rule leads `other` on one corpus in average precision, with a 95 % interval over seeds."""
    rows = pd.DataFrame(report["rows"]).query("corpus == @corpus").set_index("method")["average_precision"]
    ours, theirs = (np.mean([cell["seeds"] for cell in rows.loc[name]], axis=0) for name in (report["ours"], other))
    gap = mean_effect((ours - theirs)[:, None]).interval()
    text = _text({"mean": gap.value, "low": gap.low, "high": gap.high}, sign="+")
    return f"On {corpus} alone, the default leads {other} by {text} in average precision."


def _gap(row: dict[str, Any], report: dict[str, Any], key: str) -> dict[str, Any]:
    """Return our rule's lead over the method of `row`, as stored in the report."""
    return dict(row[f"{report['ours']} minus it, {key}"])


def _text(value: dict[str, Any], sign: str = "") -> str:
    return f"{value['mean']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"
