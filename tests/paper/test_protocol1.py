"""The claims of protocol 1 on runs of known truth: each once as it is and once as it is not; goes with protocol 1."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from made_runs import MEMBERS, World, make

from paper import sensitivity, stage_reading
from paper.claims import claims
from paper.claims.gains_claim import SIMILARITY
from soi_lib.analysis.soi import categorize

RECIPE, OTHER = "UNE+FRGE", "FRGE"
TASKS = ("a", "b", "c", "d")


def judge(found, *only: str, **more) -> dict[str, claims.Verdict]:
    return {v.claim.id: v for v in claims.evaluate(found, **more, only=only)}


@pytest.mark.parametrize(("shuffled", "verdict"), [((), "supported"), (MEMBERS["source"], "not supported")])
def test_six_behaviours_repeat_or_do_not(tmp_path, shuffled, verdict) -> None:
    assert judge(make(tmp_path, World(shuffled=shuffled, n=400)), "C1")["C1"].verdict == verdict


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({"tweets": 0.08, "amazon": 0.06, "movie": 0.1}, "supported"),
        ({"tweets": 0.08, "amazon": 0.06}, "mixed"),
        ({}, "not supported"),
    ],
)
def test_sources_gain_or_do_not(tmp_path, gains, verdict) -> None:
    world = World(gain=lambda member, setting, split: gains.get(member, 0.0), n=60)
    found = judge(make(tmp_path, world), "C2")["C2"]
    assert found.verdict == verdict, found.text
    for member, row in zip(MEMBERS["source"], found.table.iloc[:3].itertuples(), strict=True):
        assert row.low - 0.01 <= gains.get(member, 0.0) <= row.high + 0.01


@pytest.mark.parametrize(("sign", "verdict"), [(1, "supported"), (-1, "mixed")])
def test_similar_tasks_gain_more_or_do_not(tmp_path, sign, verdict) -> None:
    """Pairs of four tasks whose gains run from a loss to a gain, as `alike` runs from 0 to 1."""
    alike = {frozenset(pair): k / 5 for k, pair in enumerate(combinations(TASKS, 2))}
    world = World(gain=lambda member, setting, split: 0.2 * alike.get(frozenset(setting), 0.5) - 0.1)
    rows = [(*sorted(pair), SIMILARITY, sign * value) for pair, value in alike.items()]
    rows += [(task, task, SIMILARITY, 1.0) for task in TASKS]
    similarity = pd.DataFrame(rows, columns=["first", "second", "measure", "value"])
    found = make(tmp_path, world, comparisons=["task"], members=TASKS)
    assert judge(found, "C3", similarity=similarity)["C3"].verdict == verdict


@pytest.mark.parametrize(("faster", "verdict"), [(("tweets", "amazon"), "supported"), ((), "not supported")])
def test_moves_beyond_the_floor(tmp_path, faster, verdict) -> None:
    world = World(pace=lambda member, setting: 2.6 if len(setting) > 1 and member in faster else 1.5, epochs=6)
    found = judge(make(tmp_path, world), "C4")["C4"]
    assert found.verdict == verdict, found.text
    beyond = found.table[found.table["measure"] == "changes beyond the floor"].set_index("case")
    assert all(beyond.loc[m, "low"] > 0 and beyond.loc[m, "significant moves"] > 0 for m in faster)


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ({(RECIPE, "subset"): 0.06, (RECIPE, "random"): 0.02, (RECIPE, "all"): 0.02}, "supported"),
        ({(RECIPE, "subset"): 0.06, (RECIPE, "random"): 0.06, (RECIPE, "all"): 0.06}, "not supported"),
        ({(OTHER, "subset"): 0.05, (OTHER, "random"): 0.0}, "not tested"),
    ],
)
def test_a_second_stage_helps_or_does_not(tmp_path, sizes, verdict) -> None:
    made = make(tmp_path, World(stages=sizes, n=60), members=("tweets", "amazon"))
    found = judge(made, "C5")["C5"]
    assert found.verdict == verdict, found.text
    gains = found.table.set_index(["case", "measure"])["value"]
    for (subset, side), size in sizes.items():
        if side == "subset":
            assert gains[f"{subset}, OOD", "gain over the run"] == pytest.approx(size, abs=0.01)
    told = stage_reading.all_gains(made)
    part = told[(told["against"] == "random") & (told["subset"] == next(iter(sizes))[0])]
    expected = sizes[part["subset"].iloc[0], "subset"] - sizes[part["subset"].iloc[0], "random"]
    assert part["difference"].mean() == pytest.approx(expected, abs=0.01)


def test_one_seed_is_no_verdict(tmp_path) -> None:
    world = World(gain=lambda member, setting, split: 0.08, n=60)
    assert {v.verdict for v in claims.evaluate(make(tmp_path, world, seeds=(0,)))} == {"not tested"}


def test_shares_depend_on_epochs_and_bound_as_the_definition_says(tmp_path) -> None:
    results = make(tmp_path, World(n=200))["source"]
    dyn = results.run(("tweets",)).dynamics("tweets")
    np.testing.assert_array_equal(sensitivity.truncated(dyn, 5, 0.2), categorize(dyn.correct[:5], 0.2))
    one = replace(results, runs=tuple(run for run in results.runs if run.seed == 0))
    table = sensitivity.by_epochs(one)
    for run in one.runs:
        for member in run.setting:
            name = "alone" if len(run.setting) == 1 else "all three"
            row = table[(table["member"] == member) & (table["setting"] == name) & (table["epochs"] == 8)]
            shares = [run.metrics[member]["soi"][n] / 200 for n in sensitivity.NAMES]
            np.testing.assert_allclose(row[sensitivity.NAMES].to_numpy()[0], shares)
    middle = sensitivity.by_early(results).query("early == 0.5").reset_index(drop=True)
    np.testing.assert_allclose(middle[sensitivity.NAMES], sensitivity.by_seed(results)[sensitivity.NAMES])
