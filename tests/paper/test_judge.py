"""Verdicts on arrays with planted truth, what must not change a verdict, and the rules as the page states them."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from paper import ROOT
from paper.claims import judge, rules, verdicts
from paper.claims.judge import ALL, EQUAL, MORE, RANDOM, RUN, SINGLE, SUBSET, Evaluation, Stage
from paper.claims.power import Examples
from paper.claims.rules_page import POWER, page
from soi_lib.analysis.statistics import Effect, mean_effect

SOURCES = ("tweets", "amazon", "movie")
TASKS = ("entailment", "paraphrase", "sentiment", "questions", "opinions")
BASE = 0.88


def evaluation(rng, targets: dict[str, float], *, n: int = 1000, seeds: int = 10, spread: float = 0.007) -> Evaluation:
    """Make runs whose mean AUC over seeds is `targets` by setting."""
    world = Examples(rng, n, "auc", spread)
    scores = {setting: world.runs(target, seeds) for setting, target in targets.items()}
    return Evaluation(world.gold, {k: (v > 0).astype(int) for k, v in scores.items()}, scores)


def rows_of(found: Evaluation, examples: np.ndarray, seeds=slice(None)) -> Evaluation:
    sides = ({k: v[seeds][:, examples] for k, v in side.items()} for side in (found.predicted, found.positive))
    return Evaluation(found.gold[examples], *sides)


def sources(gains, *, seed: int = 0, **more) -> dict[str, Evaluation]:
    rng = np.random.default_rng(seed)
    return {
        name: evaluation(rng, {SINGLE: BASE, EQUAL: BASE + gain / 2, ALL: BASE + gain}, **more)
        for name, gain in zip(SOURCES, gains, strict=True)
    }


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.05, 0.06, 0.07), "supported"),
        ((0.06, 0.0, -0.06), "mixed"),
        ((0.0, 0.0, 0.0), "not supported"),
        ((-0.05, 0.0, -0.05), "not supported"),
    ],
)
def test_sources_gain_or_do_not(gains, verdict) -> None:
    found = judge.consistent_gain(sources(gains, n=2000))
    assert found.verdict == found.parts["gain, auc"] == verdict
    rows = found.table[(found.table["contrast"] == "gain") & (found.table["score"] == "auc")]
    np.testing.assert_allclose(rows["value"].astype(float), gains, atol=0.015)
    halves = found.table[found.table["score"] == "auc"].pivot(index="dataset", columns="contrast", values="value")
    np.testing.assert_allclose(halves["diversity"] + halves["quantity"], halves["gain"])


def test_few_seeds_or_examples_decide_nothing() -> None:
    assert judge.consistent_gain(sources((0.05, 0.06, 0.07), seeds=4)).verdict == "not tested"
    assert judge.consistent_gain(sources((0.0, 0.0, 0.0), n=60, seeds=5)).verdict == "inconclusive"
    assert judge.consistent_gain({}).verdict == "not tested"


def test_sentences_of_one_template_count_once() -> None:
    """Copies of every example change neither mean nor interval."""
    rng = np.random.default_rng(0)
    plain = evaluation(rng, {SINGLE: BASE, ALL: BASE + 0.03}, n=200)
    many = replace(rows_of(plain, np.repeat(np.arange(200), 5)), groups=np.repeat(np.arange(200), 5))
    one, copies = (mean_effect(e.gain(SINGLE, ALL, "accuracy")) for e in (plain, many))
    np.testing.assert_allclose([copies.value, copies.reach()], [one.value, one.reach()])


def test_a_shift_of_the_threshold_is_not_a_gain_in_auc() -> None:
    rng = np.random.default_rng(0)
    shifted = {}
    for name in SOURCES:
        world = Examples(rng, 2000, "auc", 0.004)
        scores = {s: world.runs(BASE, 10) for s in (SINGLE, ALL)}
        predicted = {SINGLE: (scores[SINGLE] > 0.8).astype(int), ALL: (scores[ALL] > 0).astype(int)}
        shifted[name] = Evaluation(world.gold, predicted, scores)
    found = judge.consistent_gain(shifted)
    assert found.parts["gain, accuracy"] == "supported"
    assert found.verdict == "not supported"


def test_several_classes_are_judged_by_macro_f1() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(18, size=600)

    def predicted(share: float) -> np.ndarray:
        return np.where(rng.random((5, 600)) < share, gold, rng.integers(18, size=(5, 600)))

    languages = {name: Evaluation(gold, {SINGLE: predicted(0.75), ALL: predicted(0.9)}) for name in ("en", "fr", "fa")}
    found = judge.consistent_gain(languages)
    assert (found.verdict, set(found.parts)) == ("supported", {"gain, macro_f1", "gain, accuracy"})


# --- C3 ----------------------------------------------------------------------------------------------------------

ALIKE = dict.fromkeys(combinations(sorted(TASKS), 2), 0.0)
ALIKE |= {pair: k / 10 - 0.5 for k, pair in enumerate(ALIKE)}
ALIKE[tuple(sorted(rules.SIMILAR_PAIR))], ALIKE[tuple(sorted(rules.DISSIMILAR_PAIR))] = 1.0, -1.0


def tasks(gain_of_pair, *, seed: int = 0, together: float = 0.0):
    rng = np.random.default_rng(seed)
    out = {}
    for task in TASKS:
        for split in ("test", "OOD"):
            pairs = {other: gain_of_pair(*sorted((task, other))) for other in TASKS if other != task}
            targets = {SINGLE: BASE, ALL: BASE + together} | {other: BASE + gain for other, gain in pairs.items()}
            out[task, split] = evaluation(rng, targets, n=600, seeds=5)
    return out


@pytest.mark.parametrize(
    ("gain", "verdict", "first", "second"),
    [
        (lambda a, b: 0.06 * ALIKE[a, b], "supported", "supported", "supported"),
        (lambda a, b: -0.06 * ALIKE[a, b], "mixed", "supported", "not supported"),
        (lambda a, b: 0.05, "mixed", "mixed", "not supported"),
        (lambda a, b: 0.0, "not supported", "not supported", "not supported"),
    ],
)
def test_similar_tasks_gain_or_do_not(gain, verdict, first, second) -> None:
    found = judge.several_tasks(tasks(gain), ALIKE)
    assert (found.parts["mixed results"], found.parts["similar tasks"]) == (first, second)
    assert found.verdict == verdict
    assert len(found.table) == 5 * 2 * 5 + 2


def test_without_similarities_or_the_named_pairs_the_second_half_is_not_tested() -> None:
    evaluations = tasks(lambda a, b: 0.06 * ALIKE[a, b])
    assert judge.several_tasks(evaluations, {}).parts["similar tasks"] == "not tested"
    others = {key: value for key, value in evaluations.items() if key[0] != "opinions"}
    assert judge.several_tasks(others, ALIKE).parts["similar tasks"] == "not tested"


def codes(rng, seeds: int = 5, n: int = 400, *, push: float = 0.0, rare: float = 0.01):
    """Draw categories of a single and a multi setting; `push` moves examples from ELE to ACE in multi."""
    logits = rng.normal(size=(6, n)) * 1.5 + np.log([rare, 0.4, 0.33, 0.03, 0.15, 0.08])[:, None]
    sides = []
    for shift in (0.0, push):
        drawn = logits + rng.gumbel(size=(seeds, 6, n))
        drawn[:, 1] += shift
        sides.append(drawn.argmax(axis=1))
    return sides


@pytest.mark.parametrize(
    ("pushes", "verdict"),
    [((1.5,) * 4, "supported"), ((1.5, 1.5, 0, 0, 0, 0, 0), "mixed"), ((0.0,) * 3, "not supported")],
)
def test_examples_move_or_do_not(pushes, verdict) -> None:
    rng = np.random.default_rng(1)
    found = judge.moves({f"data {k}": codes(rng, n=1000, push=push) for k, push in enumerate(pushes)})
    assert found.verdict == verdict
    if verdict != "not supported":
        moved = found.table[(found.table["from"] == "ELE") & (found.table["to"] == "ACE")]
        assert set(moved["dataset"]) >= {f"data {k}" for k, push in enumerate(pushes) if push}
        assert (moved["value"] >= rules.LEAST_MOVE).all()


def test_three_seeds_are_too_few_for_moves() -> None:
    rng = np.random.default_rng(0)
    assert judge.moves({"a": codes(rng, seeds=3, push=2.0)}).verdict == "not tested"


def test_all_six_categories_occur_or_one_does_not() -> None:
    rng = np.random.default_rng(0)
    assert judge.six_behaviours({str(k): codes(rng)[0] for k in range(4)}).verdict == "supported"
    assert judge.six_behaviours({str(k): codes(rng, rare=1e-6)[0] for k in range(4)}).verdict == "not supported"


def stage(rng, gain: float, *, start: float = 0.6, ids=None, random: float = 0.0, spread: float = 0.004) -> Stage:
    targets = {RUN: BASE, SUBSET: BASE + gain, RANDOM: BASE + random, MORE: BASE}
    evaluations = {split: evaluation(rng, targets, n=600, seeds=5, spread=spread) for split in ("test", "OOD")}
    chosen = ids or [frozenset(rng.choice(500, 80, replace=False).tolist()) for _ in range(5)]
    return Stage(chosen, np.full(5, 10), np.full(5, start), np.full(5, start / 3), evaluations)


@pytest.mark.parametrize(
    ("gain", "start", "verdict"),
    [(0.05, 0.6, "supported"), (0.0, 0.6, "not supported"), (-0.05, 0.6, "not supported"), (0.05, 0.02, "not tested")],
)
def test_a_second_stage_gains_or_does_not(gain, start, verdict) -> None:
    rng = np.random.default_rng(0)
    stages = {rules.MAIN_SUBSET: {f"case {k}": stage(rng, gain, start=start) for k in range(4)}}
    found = judge.second_stage(stages)
    assert found.verdict == verdict
    assert found.table["manipulated"].dropna().eq(start > 0.2).all()


def test_a_gain_that_a_random_subset_has_too_does_not_count() -> None:
    rng = np.random.default_rng(0)
    stages = {rules.MAIN_SUBSET: {f"case {k}": stage(rng, 0.05, random=0.05) for k in range(4)}}
    assert judge.second_stage(stages).verdict == "not supported"


def test_equal_subsets_are_counted_once() -> None:
    rng = np.random.default_rng(0)
    first = stage(rng, 0.0)
    stages = {rules.MAIN_SUBSET: {"case": first}, "FRGE": {"case": stage(rng, 0.05, ids=first.ids)}}
    found = judge.second_stage(stages)
    assert set(found.table["subset"]) == {rules.MAIN_SUBSET}
    assert found.verdict == "not supported"
    stages["FRGE"] = {"case": stage(rng, 0.05)}
    assert judge.second_stage(stages).verdict == "mixed"


def test_no_verdict_depends_on_the_order_of_examples_and_seeds() -> None:
    evaluations = sources((0.02, 0.015, 0.01), n=500)
    moved = codes(np.random.default_rng(1), push=0.6)
    first = judge.consistent_gain(evaluations).table["low"].to_numpy(dtype=float)
    move = judge.moves({"a": moved}).table["low"].to_numpy(dtype=float)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows, order = rng.permutation(10), rng.permutation(500)
        shuffled = {name: rows_of(one, order, rows) for name, one in evaluations.items()}
        np.testing.assert_allclose(judge.consistent_gain(shuffled).table["low"].to_numpy(dtype=float), first, atol=1e-9)
        rows, order = rng.permutation(5), rng.permutation(400)
        again = judge.moves({"a": (moved[0][rows][:, order], moved[1][rows][:, order])}).table
        np.testing.assert_allclose(again["low"].to_numpy(dtype=float), move, atol=1e-6)


def test_verdicts_on_recorded_runs_use_no_random_numbers_and_are_written_as_json(monkeypatch):
    recorded = ROOT / "data" / "recorded"
    evidence = verdicts.open_evidence(recorded / "standard", stages=recorded)
    monkeypatch.setattr(np.random, "default_rng", lambda *_: pytest.fail("a random number is drawn"))
    found = verdicts.verdicts(evidence)
    assert (found["L"].verdict, found["L"].seeds) == ("supported", 5)
    listed = verdicts.claims_json(found, evidence)
    assert [one["id"] for one in listed] == [c.id for c in verdicts.CLAIMS]
    assert json.loads(json.dumps(listed, allow_nan=False)) == listed
    found = verdicts.verdicts(verdicts.Evidence({"source": evidence.comparisons["source"]}))
    assert [name for name, one in found.items() if one.verdict != "not tested"] == ["C2"]  # the claim on sources


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


def test_verdicts_between_the_clear_ones() -> None:
    """The tests above show when a claim is supported and when not."""
    assert rules.consistent(["gain", "loss", "open"]) == "mixed"
    assert (
        rules.consistent(["gain", "gain", "open"]) == rules.consistent(["negligible", "loss", "open"]) == "inconclusive"
    )
    assert rules.together(["supported", "not tested"]) == "inconclusive"

    def shares(*rare: float) -> dict[str, list[Effect]]:
        return {"common": [effect(0.3)] * len(rare), "rare": [effect(x, 0.0005) for x in rare]}

    assert rules.behaviours(shares(0.02, 0.0, 0.0, 0.0, 0.0)) == "mixed"
    assert rules.behaviours(shares(0.0099, 0.0, 0.0, 0.0)) == "inconclusive"
    assert rules.mixed_results([OPEN] * 5, [NEGLIGIBLE, OPEN]) == "inconclusive"
    assert rules.similar_gain(GAIN, GAIN, 0.3, 0.8) == rules.similar_gain(OPEN, OPEN, 0.02, 0.8) == "mixed"
    assert rules.similar_gain(GAIN, OPEN, 0.3, 0.2) == "inconclusive"
    assert rules.similar_gain(GAIN, NEGLIGIBLE, 0.3, 0.2) == "not supported"
    assert rules.manipulated(start=0.6, end=0.2, flips=0.05)
    assert not rules.manipulated(start=0.6, end=0.55, flips=0.05)  # nothing was learned
    assert not rules.manipulated(start=0.6, end=0.2, flips=0.01)  # predictions equal those of the control

    def stage(over_run: Effect, *over_random: Effect, tested: float = 0.8) -> str:
        return rules.second_stage(
            tested, {"test": over_run, "OOD": OPEN}, dict(zip(("test", "OOD"), over_random, strict=True))
        )

    assert stage(GAIN, GAIN, LOSS) == stage(OPEN, GAIN, OPEN) == "mixed"
    assert stage(GAIN, OPEN, NEGLIGIBLE) == "inconclusive"
    assert stage(GAIN, GAIN, OPEN, tested=0.3) == "not tested"


def test_the_permutation_test_keeps_the_pairs_of_a_task_together() -> None:
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    alike = {pair: float(k) for k, pair in enumerate(pairs)}
    assert rules.similarity_test(alike, alike) == pytest.approx((1.0, 1 / 24))
    assert rules.similarity_test(alike, {pair: -v for pair, v in alike.items()}) == pytest.approx((-1.0, 1.0))
    rng = np.random.default_rng(0)
    hits = [rules.similarity_test(alike, {pair: rng.normal() for pair in pairs})[1] <= 0.05 for _ in range(400)]
    assert np.mean(hits) <= 0.08
    assert np.isnan(rules.similarity_test({pairs[0]: 1.0}, alike)).all()
