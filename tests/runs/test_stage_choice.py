"""Keys of runs and second stages, the examples of a second stage, and what its controls share with it."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import paper  # noqa: F401  (brings its profiles)
from soi_lib.analysis.soi import SOI, categorize
from soi_lib.dynamics import TrainingDynamics
from soi_lib.runs.config import DataSizes, Setting, Stages, Training, load_profile
from soi_lib.runs.second_stage import choose
from soi_lib.runs.spec import RunSpec, StageSpec, plan, plan_stages, stages_of

BASE = RunSpec(
    comparison="source",
    setting=Setting(("tweets", "movie")),
    seed=3,
    encoder="minilm",
    data=DataSizes(train=1000, evaluate=500),
    training=Training(epochs=10, learning_rate=1e-4),
    fingerprints=(("corpus/movie", "b" * 64), ("corpus/tweets", "a" * 64), ("encoder", "c" * 64)),
    engine=1,
)


def test_keys_never_change_and_depend_on_everything_that_determines_a_run_or_stage():
    stage = stages_of(BASE, Stages(subsets=("ACE",)))[0]
    assert (BASE.key, stage.key) == ("f08c914437a47895395c", "456d20ed1f089395064a")
    runs = [
        BASE,
        replace(BASE, seed=7),
        replace(BASE, engine=99),
        replace(BASE, device="cuda"),
        replace(BASE, setting=Setting(BASE.setting, "equal")),
        replace(BASE, training=BASE.training.model_copy(update={"epochs": 4})),
        replace(BASE, training=BASE.training.model_copy(update={"precision": "bf16"})),
        replace(BASE, data=BASE.data.model_copy(update={"evaluate": 41})),
        replace(BASE, fingerprints=(("corpus/movie", "other"), *BASE.fingerprints[1:])),
    ]
    assert len({run.key for run in runs}) == len(runs)
    assert replace(BASE, device="cuda:1").key == replace(BASE, device="cuda").key
    changed = [
        replace(stage, base=replace(BASE, seed=4)),
        replace(stage, subset="FRGE"),
        replace(stage, control="random"),
        replace(stage, control="all"),
        replace(stage, balance=False),
        replace(stage, training=stage.training.model_copy(update={"epochs": 5})),
    ]
    assert len({s.key for s in [stage, *changed]}) == 7
    other = replace(changed[2], subset="FRGE")  # the random control of another subset
    assert other.seed_for("training") == changed[2].seed_for("training")


def test_every_setting_except_pairs_has_stages(wheels):
    quick = load_profile("quick")
    assert plan_stages(quick) == []
    wanted = Stages(subsets=("FRGE", "ACE"))
    profile = quick.model_copy(update={"stages": wanted})
    assert [s.key for s in plan(profile)] == [s.key for s in plan(quick)]
    found = plan_stages(profile, only=["task"])
    assert len({s.key for s in found}) == len(found)
    assert {len(s.setting) for s in found} == {1, 3}
    for setting in {s.setting for s in found}:
        kinds = [(s.subset, s.control) for s in found if s.setting == setting]
        assert kinds == list(product(("FRGE", "ACE"), (None, "random", "all")))


def made(codes: list[SOI], gold: list[int], member: str = "m") -> TrainingDynamics:
    """Make dynamics of 4 epochs in which example i has the category codes[i]."""
    history = {
        SOI.UNE: "0000", SOI.ACE: "1111", SOI.ELE: "0111", SOI.LLE: "0001", SOI.FRGE_1: "0101", SOI.FRGE_2: "1010"
    }  # fmt: skip
    correct = np.array([[c == "1" for c in history[code]] for code in codes]).T
    ids = np.array([f"{member}{i:04d}" for i in range(len(codes))], dtype=object)
    wobble = np.linspace(0, 0.1, len(codes))
    return TrainingDynamics(ids, np.array(gold, np.int16), np.where(correct, 0.8, 0.2) + wobble, correct)


def stage(subset="UNE+FRGE", control=None, **kwargs) -> StageSpec:
    training = BASE.training.model_copy(update={"epochs": 4, "batch_size": 16})
    usual = {"base": BASE, "subset": subset, "control": control, "balance": True, "training": training}
    return StageSpec(**usual | kwargs)


@pytest.fixture
def dynamics(rng):
    codes = [SOI(c) for c in rng.choice(6, 400, p=[0.1, 0.3, 0.2, 0.1, 0.2, 0.1])]
    two = made(codes, rng.choice(2, 400, p=[0.3, 0.7]).tolist(), "two")
    many = made(codes[:200], rng.choice(5, 200, p=[0.1, 0.1, 0.2, 0.3, 0.3]).tolist(), "many")
    return {"two": two, "many": many}


@pytest.mark.parametrize("subset", ["FRGE", "LLE+FRGE+UNE", "ambiguous", "hard"])
def test_a_subset_and_its_random_control_have_the_same_classes(dynamics, subset):
    own, control = choose(stage(subset), dynamics), choose(stage(subset, "random"), dynamics)
    assert own.n == control.n
    assert own.reason == control.reason == ""
    for member, dyn in dynamics.items():
        a, b = dyn.subset(own.ids[member]), dyn.subset(control.ids[member])
        assert len(a) == len(b) == own.n[member]
        assert np.array_equal(np.bincount(a.gold), np.bincount(b.gold))
        assert list(a.ids) == sorted(set(a.ids))
        assert set(a.ids) != set(b.ids)
        if wanted := {"FRGE": {4, 5}, "LLE+FRGE+UNE": {0, 3, 4, 5}}.get(subset):
            assert set(categorize(a).tolist()) == wanted
            assert set(categorize(b).tolist()) - wanted
    again = choose(stage(subset), dict(reversed(dynamics.items())))
    assert all(np.array_equal(own.ids[m], again.ids[m]) for m in dynamics)


def test_balance_cuts_classes_to_the_median_class(dynamics):
    for member, dyn in dynamics.items():
        every = np.bincount(dyn.gold[np.isin(categorize(dyn), [0, 4, 5])])
        taken = np.bincount(dyn.subset(choose(stage(), dynamics).ids[member]).gold)
        assert np.array_equal(taken, np.minimum(every, np.sort(every)[(len(every) - 1) // 2]))
        free = choose(stage(balance=False), dynamics)
        assert np.array_equal(np.bincount(dyn.subset(free.ids[member]).gold), every)
    assert len(set(np.bincount(dynamics["two"].subset(choose(stage(), dynamics).ids["two"]).gold))) == 1


@pytest.mark.parametrize("total", [40, 300])
@pytest.mark.parametrize("batch", [7, 100])
@pytest.mark.parametrize("epochs", [1, 4])
def test_the_control_on_all_data_has_as_many_updates(total, batch, epochs):
    training = BASE.training.model_copy(update={"epochs": epochs, "batch_size": batch})
    for hard in (8, 9, 33, total - 1, total):
        codes = [SOI.UNE] * hard + [SOI.ACE] * (total - hard)
        dyn = {"a": made(codes, [i % 2 for i in range(total)], "a"), "b": made([SOI.UNE] * 4, [0, 1, 0, 1], "b")}
        found = choose(stage("UNE+FRGE", "all", training=training, balance=False), dyn)
        updates = epochs * -(-(hard + 4) // batch)
        examples = sum(map(len, found.ids.values()))
        assert found.passes * -(-examples // batch) == updates
        assert set(found.ids["a"]) <= set(dyn["a"].ids)
        assert len(found.ids["b"]) >= 1
        if updates <= -(-(total + 4) // batch):
            assert found.passes == 1
        if found.passes * examples > epochs * (hard + 4):  # only if fewer examples would cost an update
            assert (examples - 1) % batch == 0


def test_subsets_that_are_too_small_are_not_tested():
    few = made([SOI.UNE] * 7 + [SOI.ACE] * 9, [0, 1] * 8)
    assert choose(stage(balance=False), {"m": few}).reason.startswith("fewer than 8 examples: ")
    assert choose(stage(balance=False), {"m": few}).n == {"m": 7}
    one = made([SOI.UNE] * 20 + [SOI.ACE] * 20, [0] * 20 + [1] * 20)
    both = {"m": one, "n": made([SOI.UNE] * 20, [0, 1] * 10, "n")}
    for control in (None, "random", "all"):
        found = choose(stage(control=control), both)
        assert found.reason == "fewer than two labels of m are in the subset"
        assert (found.n, found.ids) == ({"m": 20, "n": 20}, {})
    assert choose(stage("FRGE"), both).n == {"m": 0, "n": 0}
