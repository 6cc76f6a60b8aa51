"""What the first page says, in numbers of the recorded runs, and the check that they still bear it."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paper import comparison, repeat
from paper.claims.verdicts import Evidence, alone_and_together, open_evidence
from soi_lib.files import replacing
from soi_lib.plots import Moves, gain_curves
from soi_lib.runs.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LANGUAGES = {"en": "English", "fr": "French", "fa": "Persian"}


def abstract(evidence: Evidence) -> str:
    """Three sentences on what was found, with encoder, sizes, seeds and intervals, as Markdown."""
    results = evidence.comparisons["lingual"]
    gains, (moved, floor) = _gains(results), _moved(results)
    listed = ", ".join(
        f"{comparison.interval(row, sign=True)} in {LANGUAGES[row['dataset']]}"
        for row in gains["gain"].to_dict("records")
    )
    mean = {name: table["value"].mean() for name, table in gains.items()}
    groups = alone_and_together(results, "test")["fa"].groups
    assert groups is not None
    templates = len(np.unique(groups))
    epochs, examples = results.profile.training_of("lingual").epochs, results.run(("en",)).metrics["en"]["n"]
    sizes = f"multilingual-e5-small, {examples} commands a language, {epochs} epochs, {len(results.seeds)} seeds"
    repeated = repeat.needed(repeat.agreements(evidence)).set_index("score")
    seeds, agreement = repeated["seeds for 0.8, evaluation mode"], repeated["agreement, evaluation mode"]
    first = (
        f"A small multilingual encoder ({sizes}) recognises intents in new sentence templates better when trained "
        f"on three languages together than on one: macro-F1 rises by {listed} (95 % intervals; Persian has only "
        f"{templates} templates to test on); accuracy alone would leave English open."
    )
    second = (
        f"**The gain comes with the number of examples:** with as many in all as one language has, training on the "
        f"three lowers macro-F1 by {-mean['diversity']:.3f} on average (clearly for English and Persian, open for "
        f"French), and using all {3 * examples} examples then raises it by {mean['quantity']:.3f}. These runs cannot "
        f"say whether that is due to what the languages share or to three times as many updates."
    )
    third = (
        f"Much of the moving between categories is chance: {moved:.0%} of the training examples change category from "
        f"alone to together, and {floor:.0%} when only the seed changes. Two runs rank examples by confidence with a "
        f"correlation of {agreement['confidence']:.2f}, but agree on categories with a kappa of "
        f"{agreement['category']:.2f}; averages of about {seeds['category']:.0f} runs are predicted to reach 0.8."
    )
    last = "The comparisons of sources and tasks are still being recorded."
    return f"**Found so far.** {first} {second} {third} {last}"


def check(evidence: Evidence) -> None:
    """Raise AssertionError when the recorded numbers no longer bear the sentences of `abstract`."""
    results = evidence.comparisons["lingual"]
    gains = _gains(results)
    assert (gains["gain"]["low"] > 0).all(), gains["gain"]
    diversity = gains["diversity"].set_index("dataset")
    assert (diversity["value"] < 0).all(), diversity
    assert (diversity["high"] < 0).to_dict() == {"en": True, "fr": False, "fa": True}, diversity
    assert (gains["quantity"]["low"] > 0).all(), gains["quantity"]
    moved, floor = _moved(results)
    assert moved > floor > moved / 2, (moved, floor)


def picture(evidence: Evidence) -> Figure:
    """The score of every language alone, together at equal budget, and together, on new sentence templates."""
    table = comparison.levels(evidence.comparisons["lingual"])
    table = table[table["set"] == "test"].replace({"dataset": LANGUAGES})
    return gain_curves(table, "setting", measure="macro-F1 on new templates")


def write_picture(root: Path) -> None:
    """Write `picture` to book/images, for the README."""
    figure = picture(open_evidence(root / "data/recorded/standard"))
    with replacing(root / "book/images/languages.png") as tmp:
        figure.savefig(tmp, format="png", dpi=130)


def all_moves(evidence: Evidence) -> Moves:
    """The moves of all datasets of all comparisons as one, in numbers of examples; beyond chance in more than half."""
    known = [m for results in evidence.comparisons.values() for m in comparison.moves(results).values()]
    beyond = reduce(add, (m.table("beyond").astype(int) for m in known))
    return Moves(
        transition=reduce(add, (m.table("transition") * m.n for m in known)),
        floor=reduce(add, (m.table("floor") * m.n for m in known)),
        beyond=beyond > len(known) / 2,
        n=sum(m.n for m in known),
        seeds=min(m.seeds for m in known),
    )


def _gains(results: Results) -> dict[str, pd.DataFrame]:
    """The effects on the test sets by the deciding score, a table a contrast."""
    table = comparison.effects(results)
    table = table[(table["set"] == "test") & (table["score"] == comparison.SCORES["macro_f1"])]
    return {str(name): part for name, part in table.groupby("contrast", sort=False)}


def _moved(results: Results) -> tuple[float, float]:
    """Shares of examples that change category from alone to together, and between seeds; means over datasets."""
    known = comparison.moves(results).values()
    shares = [[1 - np.trace(m.table(name).to_numpy()) for name in ("transition", "floor")] for m in known]
    moved, floor = np.mean(shares, axis=0)
    return float(moved), float(floor)
