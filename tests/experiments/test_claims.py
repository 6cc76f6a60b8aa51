"""Verdicts on runs of known truth: each claim once in every way that it can end."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import yaml
from made_runs import MEMBERS, World, make, write

from paper import reading, tables
from paper.claims import claims
from paper.claims.evidence import beyond_chance
from paper.claims.gains_claim import SIMILARITY, similarity_test
from soi_lib.errors import StoreError
from soi_lib.plots import caption, interval_plot
from soi_lib.runs.config import load_profile
from soi_lib.runs.spec import plan
from soi_lib.runs.store import RunStore


def judge(found, *only: str, **more) -> dict[str, claims.Verdict]:
    return {v.claim.id: v for v in claims.evaluate(found, **more, only=only)}


def for_member(values: dict[str, float], default: float = 0.0):
    return lambda member, setting, split: values.get(member, default)


# --- C1 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shuffled", "verdict"), [((), "supported"), (("movie",), "mixed"), (MEMBERS["source"], "not supported")]
)
def test_six_behaviours_repeat_or_do_not(tmp_path, shuffled, verdict) -> None:
    found = judge(make(tmp_path, World(shuffled=shuffled, n=400)), "C1")["C1"]
    assert found.verdict == verdict, found.text
    assert (found.n, found.seeds) == (1200, 3)
    members = found.table.set_index("case").loc[list(MEMBERS["source"])]
    assert {m for m in members.index if members.loc[m, "low"] > 0} == set(MEMBERS["source"]) - set(shuffled)
    assert "In 18 of 18 dynamics the six categories add up" in found.evidence[1]  # 3 alone and 3 together, 3 seeds


def test_stored_counts_that_are_not_those_of_the_dynamics_end_c1(tmp_path) -> None:
    found = make(tmp_path)
    first = found["source"].runs[0]
    first.metrics["tweets"]["soi"]["ACE"] += 1
    verdict = judge(found, "C1")["C1"]
    assert verdict.verdict == "not supported"
    assert "17 of 18" in verdict.evidence[1]
    assert "tweets in tweets, seed 0" in verdict.evidence[1]


# --- C2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "verdict", "up", "down"),
    [
        ({"tweets": 0.08, "amazon": 0.06, "movie": 0.1}, "supported", 3, 0),
        ({"tweets": 0.08, "amazon": 0.06}, "mixed", 2, 0),
        ({"tweets": 0.08, "movie": -0.08}, "not supported", 1, 1),
        ({}, "not supported", 0, 0),
    ],
)
def test_sources_gain_or_do_not(tmp_path, gains, verdict, up, down) -> None:
    found = judge(make(tmp_path, World(gain=for_member(gains), n=60)), "C2")["C2"]
    assert found.verdict == verdict, found.text
    part = found.table.iloc[:3]
    assert ((part["low"] > 0).sum(), (part["high"] < 0).sum()) == (up, down)
    for member, row in zip(MEMBERS["source"], part.itertuples(), strict=True):
        assert row.low - 0.01 <= gains.get(member, 0.0) <= row.high + 0.01
    assert found.n == 500  # the OOD examples of the three sources are the same ones
    assert found.table["value"].iloc[3] == pytest.approx(part["value"].mean())


def test_the_largest_gain_is_set_beside_the_papers(tmp_path) -> None:
    large = judge(make(tmp_path, World(gain=for_member({}, 0.15), n=60)), "C2")["C2"]
    assert "above the paper's largest of 7 %" in large.evidence[1]


# --- C3 ----------------------------------------------------------------------------------------------------------

TASKS = ("a", "b", "c", "d")


def similarity_of(values: dict[frozenset[str], float], measure: str = SIMILARITY) -> pd.DataFrame:
    rows = [(*sorted(pair), measure, value) for pair, value in values.items()]
    rows += [(m, m, measure, 1.0) for m in sorted(set().union(*values))]
    return pd.DataFrame(rows, columns=["first", "second", "measure", "value"])


@pytest.fixture(scope="module")
def four_tasks(tmp_path_factory):
    """Pairs of four tasks whose gains run from a loss to a gain, as `alike` runs from 0 to 1."""
    alike = {frozenset(pair): k / 5 for k, pair in enumerate(combinations(TASKS, 2))}
    world = World(gain=lambda member, setting, split: 0.2 * alike.get(frozenset(setting), 0.5) - 0.1)
    return make(tmp_path_factory.mktemp("tasks"), world, comparisons=["task"], members=TASKS), alike


def test_similar_tasks_gain_more(four_tasks) -> None:
    found, alike = four_tasks
    verdict = judge(found, "C3", similarity=similarity_of(alike))["C3"]
    assert verdict.verdict == "supported", verdict.text
    assert len(verdict.table) == 4 * 4 * 2
    assert "most similar pair" in verdict.evidence[1]
    assert "number 1 of 6" in verdict.evidence[1]
    assert verdict.table["similarity"].notna().sum() == 24


def test_dissimilar_tasks_gain_more(four_tasks) -> None:
    found, alike = four_tasks
    verdict = judge(found, "C3", similarity=similarity_of({pair: -value for pair, value in alike.items()}))["C3"]
    assert verdict.verdict == "mixed"
    assert "Second half (similar tasks gain more): not supported" in verdict.evidence[-1]


def test_three_tasks_cannot_show_that_similar_ones_gain_more(tmp_path) -> None:
    pairs = [frozenset(p) for p in combinations(MEMBERS["task"], 2)]
    gains = dict(zip(pairs, (-0.1, 0.05, 0.1), strict=True))
    world = World(gain=lambda member, setting, split: gains.get(frozenset(setting), 0.0))
    verdict = judge(make(tmp_path, world, comparisons=["task"]), "C3", similarity=similarity_of(gains))["C3"]
    assert verdict.verdict == "mixed", verdict.text
    assert "p cannot be below 0.17" in verdict.evidence[1]
    assert "First half (mixed results): supported" in verdict.evidence[-1]


def test_tasks_without_any_gain(tmp_path) -> None:
    verdict = judge(make(tmp_path, comparisons=["task"]), "C3")["C3"]
    assert verdict.verdict == "not supported", verdict.text
    assert "not tested" in verdict.evidence[-1]


def test_the_similarity_test_counts_relabellings() -> None:
    alike = {frozenset(pair): float(k) for k, pair in enumerate(combinations(TASKS, 2))}
    gains = {(a, b): alike[frozenset((a, b))] for a in TASKS for b in TASKS if a != b}
    assert similarity_test(similarity_of(alike), gains, SIMILARITY) == pytest.approx((1.0, 1 / 24, 1 / 24))
    opposite = {pair: -value for pair, value in gains.items()}
    rho, p, _ = similarity_test(similarity_of(alike), opposite, SIMILARITY)
    assert rho == pytest.approx(-1)
    assert p == 1
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        hits += similarity_test(similarity_of(alike), {k: rng.normal() for k in gains}, SIMILARITY)[1] <= 0.05
    assert hits / 200 <= 0.08
    assert np.isnan(similarity_test(similarity_of(alike, "words"), gains, SIMILARITY)).all()


# --- C4 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faster", "comparisons", "verdict"),
    [
        (("tweets", "amazon"), ["source"], "supported"),
        (("en", "fr", "fa"), ["task", "source", "lingual"], "mixed"),  # three of nine members
        ((), ["source"], "not supported"),
    ],
)
def test_moves_beyond_the_floor(tmp_path, faster, comparisons, verdict) -> None:
    world = World(pace=lambda member, setting: 2.6 if len(setting) > 1 and member in faster else 1.5, epochs=6)
    found = judge(make(tmp_path, world, comparisons=comparisons), "C4")["C4"]
    assert found.verdict == verdict, found.text
    beyond = found.table[found.table["measure"] == "changes beyond the floor"].set_index("case")
    assert {m for m in beyond.index if beyond.loc[m, "significant moves"] > 0} >= set(faster)
    assert all(beyond.loc[m, "low"] > 0 for m in faster)
    shown = found.shown[found.table["measure"] == "changes beyond the floor"]["significant moves"]
    assert [int(cell) for cell in shown] == beyond["significant moves"].tolist()
    assert (found.shown["significant moves"] == "").sum() == len(beyond)
    shift = found.table[found.table["measure"] == "change of confidence"].set_index("case")
    assert (set(beyond["over"]), set(shift["over"])) == ({"examples"}, {"examples and seeds"})
    assert all(shift.loc[m, "low"] > 0 for m in faster)
    expected = (beyond["changed"] - (beyond["floor"] + beyond["floor together"]) / 2).to_numpy(dtype=float)
    np.testing.assert_allclose(beyond["value"].to_numpy(dtype=float), expected, atol=1e-6)


# --- C5 ----------------------------------------------------------------------------------------------------------

RECIPE, OTHER = "UNE+FRGE", "FRGE"


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ({(RECIPE, "subset"): 0.06, (RECIPE, "random"): 0.02, (RECIPE, "all"): 0.02}, "supported"),
        ({(RECIPE, "subset"): 0.06, (RECIPE, "random"): 0.06, (RECIPE, "all"): 0.06}, "not supported"),
        (
            {
                (RECIPE, "subset"): 0.0,
                (RECIPE, "random"): 0.0,
                **{(OTHER, "subset"): 0.06, (OTHER, "random"): 0.01},
                **{("ACE", "subset"): 0.06, ("ACE", "random"): 0.01},
            },
            "mixed",
        ),
        ({(RECIPE, "subset"): -0.05, (RECIPE, "random"): 0.0}, "not supported"),
        ({(OTHER, "subset"): 0.05, (OTHER, "random"): 0.0}, "not tested"),
    ],
)
def test_a_second_stage_helps_or_does_not(tmp_path, sizes, verdict) -> None:
    found = judge(make(tmp_path, World(stages=sizes, n=60), members=("tweets", "amazon")), "C5")["C5"]
    assert found.verdict == verdict, found.text
    gains = found.table.set_index(["case", "measure"])["value"]
    for (subset, side), size in sizes.items():
        if side == "subset":
            assert gains[f"{subset}, OOD", "gain over the run"] == pytest.approx(size, abs=0.01)
    assert (found.table["seeds"] == 3).all()


def test_stages_of_some_seeds_only(tmp_path) -> None:
    world = World(stages={(RECIPE, "subset"): 0.12, (RECIPE, "random"): 0.02}, n=60)
    found = make(tmp_path, world, members=("tweets", "amazon"))
    some = replace(found["source"], stages=tuple(s for s in found["source"].stages if s.seed != 1))
    verdict = judge({"source": some}, "C5")["C5"]
    assert (verdict.seeds, verdict.label, verdict.would_be) == (2, "not tested (two seeds)", "supported")


# --- all of them -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gaining(tmp_path_factory):
    world = World(gain=for_member({}, 0.08), pace=lambda member, setting: 1.5 + (len(setting) > 1), epochs=6)
    return make(tmp_path_factory.mktemp("gaining"), world)


@pytest.fixture(scope="module")
def verdicts(gaining):
    return claims.evaluate(gaining)


def one_seed(found):
    return {k: replace(r, runs=tuple(run for run in r.runs if run.seed == 0)) for k, r in found.items()}


def test_one_seed_is_no_verdict_but_the_evidence_is_shown(gaining) -> None:
    verdicts = judge(one_seed(gaining))
    assert {v.verdict for v in verdicts.values()} == {"not tested"}
    second = verdicts["C2"]
    assert (second.label, second.would_be, second.seeds) == ("not tested (one seed)", "supported", 1)
    assert len(second.table) == 4
    assert "From these alone the rule would give: supported" in second.text
    assert verdicts["C1"].would_be == verdicts["C4"].would_be == "not tested"
    assert verdicts["C5"].label == "not tested"  # no runs at all


def test_what_is_missing_is_not_tested(gaining) -> None:
    verdicts = judge({})
    assert {v.label for v in verdicts.values()} == {"not tested"}
    singles = replace(gaining["source"], runs=tuple(r for r in gaining["source"].runs if len(r.setting) == 1))
    assert judge({"source": singles}, "C2")["C2"].evidence == (
        "There is no evidence here: sources were not trained alone and all together.",
    )


def test_the_overview_and_the_text_say_the_same(verdicts) -> None:
    table = claims.overview(verdicts)
    assert table["verdict"].tolist() == [v.label for v in verdicts]
    for verdict in verdicts:
        assert f"**Verdict: {verdict.label}.**" in verdict.text
        assert verdict.claim.rule in verdict.text
        assert verdict.change in verdict.text
        assert all(sentence in verdict.text for sentence in verdict.evidence)
        assert verdict.verdict in claims.JUDGEMENTS


def test_own_runs_agree_or_disagree_with_the_recorded_ones(gaining, verdicts, tmp_path) -> None:
    same = claims.agreement(verdicts, claims.evaluate(one_seed(gaining))).set_index("claim")
    assert same["agree"].to_dict() == {
        "C1": "cannot be told",
        "C2": "yes",
        "C3": "cannot be told",
        "C4": "yes",
        "C5": "cannot be told",
    }
    losing = claims.evaluate(make(tmp_path, World(gain=for_member({}, -0.08), epochs=6), seeds=[0]))
    other = claims.agreement(verdicts, losing)
    assert other.set_index("claim").loc["C2", "agree"] == "no"
    assert other.set_index("claim").loc["C2", "opposite"] == 4
    assert claims.agreement_told(other).startswith("The recorded runs and this machine's own ")
    assert "disagree on C2" in claims.agreement_told(other)
    with pytest.raises(StoreError, match="different claims"):
        claims.agreement(verdicts, verdicts[:3])


def test_own_runs_are_found_when_all_are_finished(wheels, tmp_path) -> None:
    profile = tmp_path / "tiny.yaml"
    values = {
        "name": "tiny",
        "seeds": [0],
        "data": {"train": 40, "evaluate": 40, "ood": 40},
        "training": {"epochs": 4},
        "comparisons": {"source": {"encoder": "minilm", "members": ["tweets", "amazon"]}},
    }
    profile.write_text(yaml.safe_dump(values), encoding="utf-8")
    specs = plan(load_profile(profile))
    world = World(n=40, evaluate=40, epochs=4)
    for root in ("own", "other"):
        assert claims.own_results(tmp_path / root, profile) == {}
        for spec in specs:
            assert claims.own_results(tmp_path / root, profile) == {}  # not all are there
            write(RunStore(tmp_path / root), world, "source", spec.setting, 0, key=spec.key, started=root)
    own, other = (claims.own_results(tmp_path / root, profile) for root in ("own", "other"))
    assert own["source"].settings == (("tweets",), ("amazon",), ("tweets", "amazon"))
    assert claims.own_results(tmp_path / "own", profile, beside=own) == {}
    assert claims.own_results(tmp_path / "own", profile, beside=other).keys() == {"source"}


def test_some_means_more_than_chance() -> None:
    assert [beyond_chance(k, 18) for k in range(4)] == [False, False, False, True]
    assert not beyond_chance(0, 0)
    rng = np.random.default_rng(0)
    assert np.mean([beyond_chance(rng.binomial(18, 0.025), 18) for _ in range(2000)]) <= 0.05


# --- beside the heatmaps -----------------------------------------------------------------------------------------


def test_every_heatmap_has_its_floor_and_a_sentence(gaining) -> None:
    results = gaining["source"]
    found = tables.excess(results, "tweets", results.members)
    assert (found.seeds, found.n) == ((3, 3), 300)
    np.testing.assert_allclose(
        found.transition.to_numpy().sum(), tables.transition(results, "tweets", results.members).to_numpy().sum()
    )
    text = reading.excess(results, "tweets", results.members, found)
    marked = found.significant.to_numpy().astype(bool)
    assert marked.any()
    assert "Beyond noise (false discovery rate 5%)" in text
    kept = 1 - np.trace(found.transition.to_numpy()) / found.n
    assert f"{kept:.0%} of 300 examples change category from alone to all three" in text
    quiet = replace(found, significant=found.significant.astype(bool) & False)
    assert "No move is more than noise" in reading.excess(results, "tweets", results.members, quiet)
    alone = one_seed(gaining)["source"]
    assert tables.excess(alone, "tweets", results.members) is None
    assert "no noise floor" in reading.excess(alone, "tweets", results.members, None)


def test_figures_say_what_they_show(verdicts) -> None:
    verdict = verdicts[1]
    figure = interval_plot(verdict.table, note="n")
    assert "Of 4 intervals 4 are above zero and 0 below." in caption(figure)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == verdict.table["case"].tolist()
