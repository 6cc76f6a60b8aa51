"""The rules of the verdicts: the page states them, and every outcome is possible."""

from __future__ import annotations

import json

import numpy as np
import pytest

from paper import ROOT
from paper.claims import rules
from paper.claims.rules_page import POWER, page
from soi_lib.analysis.statistics import Effect


def effect(value: float, error: float = 0.004, seeds: int = 5) -> Effect:
    return Effect(value, error**2, error**2 / 4, 0.0, seeds, 500)


GAIN, LOSS, NEGLIGIBLE, OPEN = effect(0.06), effect(-0.06), effect(0.0, 0.002), effect(0.01, 0.02)


def test_the_page_states_the_rules_and_the_simulated_error_rates_are_low() -> None:
    power = json.loads((ROOT / POWER).read_text(encoding="utf-8"))
    assert (ROOT / "book/rules.md").read_text(encoding="utf-8") == page(power)
    nothing = [row for row in power["case"] if row["true"] == 0]
    assert np.mean([row["gain"] + row["loss"] for row in nothing]) <= 0.06
    assert 0.93 <= np.mean([row["coverage"] for row in power["case"]]) <= 0.98
    without = [row for study in ("C2", "C5", "languages") for row in power[study] if row["true"] == 0]
    without += [power["C3"][0]["claim"], power["C4"][0]["claim"]]
    assert len(without) == 6
    assert max(verdicts.get("supported", 0) for verdicts in without) <= 0.05


def test_an_effect_is_a_gain_a_loss_negligible_or_open() -> None:
    found = [rules.outcome(e) for e in (GAIN, LOSS, NEGLIGIBLE, OPEN)]
    assert found == ["gain", "loss", "negligible", "open"]
    assert rules.outcome(effect(0.005, 0.001)) == "negligible"  # above zero, but too small
    assert rules.outcome(GAIN, q=0.2) == "open"


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["gain"] * 3, "supported"),
        (["gain", "gain", "negligible"], "mixed"),
        (["gain", "loss", "open"], "mixed"),
        (["gain", "gain", "open"], "inconclusive"),
        (["negligible", "loss", "open"], "inconclusive"),
        (["negligible", "loss", "negligible"], "not supported"),
        ([], "not tested"),
    ],
)
def test_a_gain_everywhere(outcomes, verdict) -> None:
    assert rules.consistent(outcomes) == verdict


def test_parts_of_a_claim() -> None:
    assert rules.together(["supported", "supported"]) == "supported"
    assert rules.together(["supported", "not supported"]) == "mixed"
    assert rules.together(["supported", "not tested"]) == "inconclusive"


def test_all_six_categories_occur_or_do_not() -> None:
    def shares(rare: list[float]) -> dict[str, list[Effect]]:
        return {"common": [effect(0.3)] * len(rare), "rare": [effect(x, 0.0005) for x in rare]}

    assert rules.behaviours(shares([0.02, 0.0, 0.0, 0.0])) == "supported"
    assert rules.behaviours(shares([0.02, 0.0, 0.0, 0.0, 0.0])) == "mixed"
    assert rules.behaviours(shares([0.002, 0.0, 0.0, 0.0])) == "not supported"
    assert rules.behaviours(shares([0.0099, 0.0, 0.0, 0.0])) == "inconclusive"
    assert rules.behaviours({}) == "not tested"


def test_results_are_mixed_or_are_not() -> None:
    assert rules.mixed_results([GAIN, LOSS, OPEN], []) == "supported"
    assert rules.mixed_results([GAIN, OPEN], []) == "mixed"
    assert rules.mixed_results([OPEN] * 5, [NEGLIGIBLE, NEGLIGIBLE]) == "not supported"
    assert rules.mixed_results([OPEN] * 5, [NEGLIGIBLE, OPEN]) == "inconclusive"


def test_similar_tasks_gain_more_or_do_not() -> None:
    assert rules.similar_gain(GAIN, GAIN, 0.02, 0.8) == "supported"
    assert rules.similar_gain(GAIN, GAIN, 0.3, 0.8) == "mixed"
    assert rules.similar_gain(OPEN, OPEN, 0.02, 0.8) == "mixed"
    assert rules.similar_gain(GAIN, OPEN, 0.3, 0.2) == "inconclusive"
    assert rules.similar_gain(NEGLIGIBLE, OPEN, 0.3, 0.2) == "not supported"
    assert rules.similar_gain(GAIN, NEGLIGIBLE, 0.3, 0.2) == "not supported"
    assert rules.similar_gain(None, None, 0.02, 0.8) == "not tested"


def test_the_permutation_test_keeps_the_pairs_of_a_task_together() -> None:
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    alike = {pair: float(k) for k, pair in enumerate(pairs)}
    assert rules.similarity_test(alike, alike) == pytest.approx((1.0, 1 / 24))
    assert rules.similarity_test(alike, {pair: -v for pair, v in alike.items()}) == pytest.approx((-1.0, 1.0))
    rng = np.random.default_rng(0)
    hits = [rules.similarity_test(alike, {pair: rng.normal() for pair in pairs})[1] <= 0.05 for _ in range(400)]
    assert np.mean(hits) <= 0.08
    assert np.isnan(rules.similarity_test({pairs[0]: 1.0}, alike)).all()


def test_a_second_stage_is_tested_only_if_it_had_an_effect() -> None:
    assert rules.manipulated(start=0.6, end=0.2, flips=0.05)
    assert not rules.manipulated(start=0.005, end=0.0, flips=0.05)  # nothing to learn
    assert not rules.manipulated(start=0.6, end=0.55, flips=0.05)  # nothing was learned
    assert not rules.manipulated(start=0.6, end=0.2, flips=0.01)  # predictions equal those of the control


@pytest.mark.parametrize(
    ("over_run", "over_random", "others", "verdict"),
    [
        ((GAIN, OPEN), (GAIN, OPEN), (), "supported"),
        ((GAIN, OPEN), (GAIN, LOSS), (), "mixed"),
        ((OPEN, OPEN), (GAIN, OPEN), (), "mixed"),
        ((OPEN, OPEN), (OPEN, OPEN), (GAIN,), "mixed"),
        ((GAIN, GAIN), (OPEN, NEGLIGIBLE), (), "inconclusive"),
        ((GAIN, GAIN), (NEGLIGIBLE, LOSS), (), "not supported"),
    ],
)
def test_a_second_stage_gains_or_does_not(over_run, over_random, others, verdict) -> None:
    sides = [dict(zip(("test", "OOD"), side, strict=True)) for side in (over_run, over_random)]
    assert rules.second_stage(0.8, *sides, others) == verdict
    assert rules.second_stage(0.3, *sides, others) == "not tested"
