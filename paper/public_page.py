"""What the page on the paper's own data says, in numbers of the recorded runs.

Each function returns a paragraph as Markdown and raises AssertionError when the recorded numbers no longer bear it.
`own` is the evidence of MRPC, airline tweets and RTE, `packaged` that of the other pages.
"""

from __future__ import annotations

import pandas as pd

from paper import comparison
from paper.claims import rules
from paper.claims.judge import Finding
from paper.claims.verdicts import CLAIMS, Evidence, task_cases
from paper.tables import listing


def judged(claim: str, own: Evidence, packaged: Evidence) -> dict[str, Finding]:
    """The findings of a claim by the same rule on both."""
    return {"packaged corpora": _judge(claim, packaged), "the paper's own data": _judge(claim, own)}


def line(claim: str, own: Evidence) -> str:
    """The verdict on the paper's own data in a line for the page of the claims."""
    finding = _judge(claim, own)
    parts = "".join(f"; {name}: {verdict}" for name, verdict in finding.parts.items())
    return f"On the paper's own data, by the same rule: **{finding.verdict}**{parts}."


def outcomes(found: dict[str, Finding]) -> pd.DataFrame:
    """How many cases of C3 (a task in a setting on a set) have which outcome: a row an outcome, a column the data."""
    counts = {name: task_cases(finding)["outcome"].value_counts() for name, finding in found.items()}
    return pd.DataFrame(counts).reindex(list(comparison.WORDS)).fillna(0).astype(int).rename(index=comparison.WORDS)


def describe_tasks(found: dict[str, Finding], own: Evidence) -> str:
    """C3 on both."""
    packaged, here = found.values()
    counts = outcomes(found)
    assert packaged.verdict == here.verdict == "inconclusive"
    assert (packaged.parts["mixed results"], here.parts["mixed results"]) == ("mixed", "not supported")
    assert here.parts["similar tasks"] == "not tested"
    assert counts.loc[["gain", "loss"]].to_numpy().tolist() == [[1, 0], [0, 0]]
    assert ((task_cases(here)["low"] > 0) | (task_cases(here)["high"] < 0)).sum() == 1
    gain = task_cases(packaged).query("outcome == 'gain'").iloc[0]
    assert gain["set"] == "ood"
    levels = comparison.levels(own.comparisons["task"])
    rte = levels.query("dataset == 'rte' and set == 'test' and setting == 'alone'").iloc[0]
    assert rte["low"] < 0.5 < rte["high"]
    all_of = [int(n) for n in counts.sum()]
    small = counts.T[comparison.WORDS["negligible"]].tolist()
    return (
        f"**C3 is {here.verdict} on both.** That results are mixed is *{here.parts['mixed results']}* on the paper's "
        f"own data: none of {all_of[1]} cases is a gain or a loss (one interval excludes zero, but not after the "
        f"correction over all cases), and in every setting the mean effect is within ±{rules.BOUND}. On the packaged "
        f"corpora it is *{packaged.parts['mixed results']}*, by a single gain among "
        f"{all_of[0]} cases: {gain['task']} out of distribution, trained as {gain['setting']} "
        f"({comparison.interval(gain, sign=True)}). The two agree that no case is a loss; {small[0]} and {small[1]} "
        f"cases are within ±{rules.BOUND}, all others are open. That similar tasks gain more is not tested here: the "
        f"pairs that the rule names do not exist in these data. RTE can show little, because alone its AUC is "
        f"{comparison.interval(rte)}, which includes chance."
    )


def describe_parts(own: Evidence, packaged: Evidence) -> str:
    """Diversity and quantity on both."""
    steps = [_steps(evidence) for evidence in (own, packaged)]
    falls, rises = (
        [int((step[part] * sign > 0).sum()) for step in steps] for part, sign in (("diversity", -1), ("quantity", 1))
    )
    here, other = map(len, steps)
    assert falls[0] == rises[0] == here
    assert min(falls[1], rises[1]) >= 0.75 * other
    return (
        f"Here the two agree. At equal budget the score is lower than alone on {falls[0]} of {here} sets of the "
        f"paper's own data and on {falls[1]} of {other} of the packaged corpora; with all examples it is higher than "
        f"at equal budget on {rises[0]} and {rises[1]} of them. Examples of other tasks do not replace a task's own."
    )


def describe_moves(found: dict[str, Finding], own: Evidence, packaged: Evidence) -> str:
    """C4 on both, and how far its most frequent move depends on the first epoch."""
    other, here = found.values()
    results = own.comparisons["task"]
    assert other.verdict == here.verdict == "supported"
    for finding in (other, here):
        largest = finding.table.sort_values("value", key=abs).iloc[-1]
        assert (largest["from"], largest["to"]) == ("ELE", "ACE")
    moved = [finding.table["dataset"].nunique() for finding in (other, here)]
    ways = comparison.moves_otherwise(results).set_index("dataset").loc[["sentiment", "rte"]]
    assert (ways["moves, train mode"] == 0).all()
    first, later = (ways[f"ELE to ACE, {way}"].astype(float) for way in ("evaluation mode", "without the first epoch"))
    assert (later < first / 4).all()
    shifts = comparison.map_shifts(results).query("dataset == 'sentiment' and measure == 'share of ACE'")
    share = shifts.set_index("contrast").to_dict("index")
    assert share["diversity"]["low"] < 0 < share["diversity"]["high"]
    assert share["gain"]["low"] > 0
    return (
        f"**C4 is {here.verdict} on both**: {moved[1]} of {len(results.members)} datasets have a move beyond chance "
        f"here, and {moved[0]} of {sum(len(r.members) for r in packaged.comparisons.values())} on the other pages. The "
        f"most frequent move is the same, from early learned (ELE) to always correct (ACE), by "
        f"{first['sentiment']:+.3f} of the examples for the airline tweets and {first['rte']:+.3f} for RTE. So is its "
        f"weakness. Without the first epoch it is {later['sentiment']:+.3f} and {later['rte']:+.3f}, and in train mode "
        f"neither has a move: together, more updates come before an example is first looked at. At equal budget the "
        f"tweets' share of ACE changes by {comparison.interval(share['diversity'], sign=True)}, with all examples "
        f"by {comparison.interval(share['gain'], sign=True)}."
    )


def describe_seeds(held: pd.DataFrame, averages: pd.DataFrame, known: int) -> str:
    """Whether the number of seeds predicted from `known` datasets holds on those of `held`.

    `held` and `averages` as `paper.repeat.held_out` and `averages` give them.
    """
    needed = held.pivot(index="score", columns="dataset", values="seeds")[list(dict.fromkeys(held["dataset"]))]
    predicted = held.groupby("score")["predicted"].first()
    assert (needed.loc["confidence"] == needed.min()).all()
    assert (needed.loc["forgetfulness"] == needed.max()).all()
    assert (needed.loc["confidence"] <= predicted["confidence"] + 1).all()
    assert ((needed.loc["category"] - predicted["category"]).abs() >= 3).all()
    below = held[held["value"] < held["lowest"]]
    assert sorted(zip(below["dataset"], below["score"], strict=True)) == [
        ("clinc150_small", "confidence"),
        ("clinc150_small", "correctness"),
    ]
    two = averages[(averages["k"] == 2) & averages["dataset"].isin(held["dataset"])]
    off = (two["measured"] - two["predicted"]).abs().groupby(two["score"]).max()
    assert max(off["category"], off["confidence"]) < 0.01 < off["forgetfulness"]
    listed = {
        str(score): listing([f"{seeds:.0f} ({dataset})" for dataset, seeds in row.dropna().items()])
        for score, row in needed.iterrows()
    }
    return (
        f"**The order of the scores carries over, the numbers do not.** Confidence needs the fewest runs on every "
        f"held-out corpus: {listed['confidence']}, where {predicted['confidence']:.0f} was predicted. Forgetfulness "
        f"needs the most: {listed['forgetfulness']}, where {predicted['forgetfulness']:.0f} were predicted. For the "
        f"category, {predicted['category']:.0f} were predicted and it needs {listed['category']}. The packaged "
        f"corpora differ too much among themselves for a closer prediction: {held['inside'].sum()} of the {len(held)} "
        f"held-out agreements lie between their lowest and their highest, and of {known} corpora and one more like "
        f"them, the last does so with a probability of {(known - 1) / (known + 1):.0%}. CLINC150, with the most "
        f"classes, is the hardest: the confidence and the correctness of its examples repeat less than on any packaged "
        f"corpus. The Spearman-Brown formula itself holds where it can be checked: averages of two runs agree as it "
        f"predicts, to within {off['category']:.3f} for the category and {off['confidence']:.3f} for confidence, less "
        f"well for forgetfulness (up to {off['forgetfulness']:.2f})."
    )


def check_limits(own: Evidence) -> None:
    """Raise AssertionError when what the page says of its limits no longer holds."""
    table = comparison.results_table(own.comparisons["task"])
    mrpc = table[table["dataset"] == "mrpc"].iloc[0]
    assert abs(float(mrpc["accuracy alone"]) - float(mrpc["bag of words, accuracy"])) < 0.02
    assert table.loc[table["set"] == "OOD", "dataset"].tolist() == ["sentiment"]


def _judge(claim: str, evidence: Evidence) -> Finding:
    return next(one.judge(evidence) for one in CLAIMS if one.id == claim)


def _steps(evidence: Evidence) -> pd.DataFrame:
    """The effect by the deciding score: a row per task and set, a column per contrast."""
    effects = comparison.effects(evidence.comparisons["task"])
    first = effects.groupby(["dataset", "set", "contrast"], sort=False)["value"].first()
    return first.unstack("contrast")
