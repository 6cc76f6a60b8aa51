"""Further training on subsets: which examples, from which weights, under which keys, and what the tables make of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import yaml

from paper import recorded as results
from paper.stage_runs import pack_stages, read_stage, unpack_stages
from paper.stage_tables import stage_gains, stage_summary, stage_table
from soi_lib.analysis.soi import SOI, categorize
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import ProfileError, StoreError
from soi_lib.runs import scheduler as reproducing
from soi_lib.runs import second_stage as stages
from soi_lib.runs import weights
from soi_lib.runs.config import DataSizes, Profile, Setting, Stages, Training, load_profile
from soi_lib.runs.run import do_run, prepare
from soi_lib.runs.scheduler import reproduce, reproduce_stages
from soi_lib.runs.second_stage import choose, do_stage
from soi_lib.runs.spec import RunSpec, StageSpec, plan, plan_stages, stages_of
from soi_lib.runs.store import RunStore

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
TINY = {
    "name": "tiny",
    "seeds": [0, 1],
    "data": {"train": 24, "evaluate": 12, "ood": 12},
    "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-4},
    "comparisons": {"source": {"encoder": "minilm", "members": ["movie", "amazon"], "settings": ["all"]}},
    "stages": {"subsets": ["ambiguous"], "epochs": 2, "balance": False},
}


# --- keys and plans ----------------------------------------------------------------------------------------------


def test_the_key_of_a_run_is_what_it_always_was():
    assert BASE.key == "f08c914437a47895395c"
    assert json.dumps(BASE.identity(), sort_keys=True, separators=(",", ":")) == (
        '{"budget":"full","comparison":"source","data":{"evaluate":500,"ood":null,"train":1000,"validation":0},'
        '"device":"cpu","encoder":"minilm","engine":1,"fingerprints":'
        f'{{"corpus/movie":"{"b" * 64}","corpus/tweets":"{"a" * 64}","encoder":"{"c" * 64}"}},"seed":3,'
        '"setting":["tweets","movie"],"training":{"batch_size":16,"clip":1.0,"dropout":0.1,"epochs":10,'
        '"head_learning_rate_factor":1.0,"learning_rate":0.0001,"max_length":128,"pooling":"mean","precision":"auto","record":"train","warmup":0.1,'
        '"weight_decay":0.0}}'
    )


def test_the_key_of_a_stage_depends_on_what_determines_it():
    stage = stages_of(BASE, Stages(subsets=("ACE",)))[0]
    assert stage.key == "456d20ed1f089395064a"
    changed = [
        replace(stage, base=replace(BASE, seed=4)),
        replace(stage, start="pretrained"),
        replace(stage, subset="FRGE"),
        replace(stage, control="random"),
        replace(stage, control="all"),
        replace(stage, balance=False),
        replace(stage, limit=50),
        replace(stage, training=stage.training.model_copy(update={"epochs": 5})),
    ]
    assert len({s.key for s in [stage, *changed]}) == 9
    assert len({s.seed_for("training") for s in [stage, *changed[:5]]}) == 6
    other = replace(changed[3], subset="FRGE")  # the random control of another subset
    assert other.seed_for("training") == changed[3].seed_for("training")
    assert stage.name == "source tweets+movie seed 3, ACE"


def test_the_recipe_of_a_second_stage():
    second = stages_of(BASE, Stages(subsets=("FRGE",), learning_rate_factor=0.1))[0].training
    assert (second.epochs, second.learning_rate, second.warmup, second.batch_size) == (4, 1e-5, 0.0, 16)
    same = ("clip", "dropout", "weight_decay", "max_length", "record", "precision", "pooling")
    assert all(getattr(second, name) == getattr(BASE.training, name) for name in same)
    assert stages_of(BASE, Stages(batch_size=100))[0].training.batch_size == 100


def test_every_setting_but_pairs_has_its_stages(wheels):
    quick = load_profile("quick")
    assert plan_stages(quick) == []
    wanted = Stages(subsets=("FRGE", "ACE"), from_pretrained=("UNE+FRGE",))
    profile = quick.model_copy(update={"stages": wanted})
    assert [s.key for s in plan(profile)] == [s.key for s in plan(quick)]
    found = plan_stages(profile, only=["task"])
    assert len({s.key for s in found}) == len(found)
    assert {len(s.setting) for s in found} == {1, 3}
    for setting in {s.setting for s in found}:
        kinds = [(s.start, s.subset, s.control) for s in found if s.setting == setting]
        second = [("final", subset, c) for subset, c in product(("FRGE", "ACE"), (None, "random", "all"))]
        anew = [("pretrained", "UNE+FRGE", None), ("pretrained", "UNE+FRGE", "random")] if len(setting) == 1 else []
        assert kinds == second + anew
    assert all(s.training == s.base.training for s in found if s.start == "pretrained")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"subsets": ["FRG"]}, r"field stages.subsets.0: .*'FRGE'"),
        ({"subset": ["FRGE"]}, r"field stages.subset: unknown field.*did you mean 'subsets'"),
        ({"subsets": ["FRGE", "FRGE"]}, "a name is given twice"),
        ({"seeds": [7]}, "seed 7 is not among"),
        ({"limit": 3}, r"field stages.limit:.*found 3"),
    ],
)
def test_mistakes_in_the_profile_are_named(tmp_path, value, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TINY | {"stages": value}), encoding="utf-8")
    with pytest.raises(ProfileError, match=message):
        load_profile(path)


# --- which examples ----------------------------------------------------------------------------------------------


def made(codes: list[SOI], gold: list[int], member: str = "m") -> TrainingDynamics:
    """Dynamics over 4 epochs in which example i is of category codes[i]."""
    history = {
        SOI.UNE: "0000", SOI.ACE: "1111", SOI.ELE: "0111", SOI.LLE: "0001", SOI.FRGE_1: "0101", SOI.FRGE_2: "1010"
    }  # fmt: skip
    correct = np.array([[c == "1" for c in history[code]] for code in codes]).T
    ids = np.array([f"{member}{i:04d}" for i in range(len(codes))], dtype=object)
    wobble = np.linspace(0, 0.1, len(codes))
    return TrainingDynamics(ids, np.array(gold, np.int16), np.where(correct, 0.8, 0.2) + wobble, correct)


def stage(subset="UNE+FRGE", control=None, **kwargs) -> StageSpec:
    training = BASE.training.model_copy(update={"epochs": 4, "batch_size": 16})
    return StageSpec(**{"base": BASE, "start": "final", "subset": subset, "control": control, "balance": True,
                        "limit": None, "training": training} | kwargs)  # fmt: skip


@pytest.fixture
def dynamics(rng):
    codes = [SOI(c) for c in rng.choice(6, 400, p=[0.1, 0.3, 0.2, 0.1, 0.2, 0.1])]
    two = made(codes, rng.choice(2, 400, p=[0.3, 0.7]).tolist(), "two")
    many = made(codes[:200], rng.choice(5, 200, p=[0.1, 0.1, 0.2, 0.3, 0.3]).tolist(), "many")
    return {"two": two, "many": many}


def inside(dyn: TrainingDynamics, ids: np.ndarray) -> TrainingDynamics:
    return dyn.subset(ids)


@pytest.mark.parametrize("subset", list(stages.SUBSETS))
def test_a_subset_and_its_random_control_have_the_same_classes(dynamics, subset):
    own, control = choose(stage(subset), dynamics), choose(stage(subset, "random"), dynamics)
    assert own.n == control.n
    assert own.reason == control.reason == ""
    for member, dyn in dynamics.items():
        a, b = inside(dyn, own.ids[member]), inside(dyn, control.ids[member])
        assert len(a) == len(b) == own.n[member]
        assert np.array_equal(np.bincount(a.gold), np.bincount(b.gold))
        assert list(a.ids) == sorted(set(a.ids))
        assert set(a.ids) != set(b.ids)
        if subset in ("FRGE", "UNE+FRGE", "LLE+FRGE+UNE", "ACE"):
            wanted = {"FRGE": {4, 5}, "UNE+FRGE": {0, 4, 5}, "LLE+FRGE+UNE": {0, 3, 4, 5}, "ACE": {1}}[subset]
            assert set(categorize(a).tolist()) == wanted
            assert set(categorize(b).tolist()) - wanted
    again = choose(stage(subset), dict(reversed(dynamics.items())))
    assert all(np.array_equal(own.ids[m], again.ids[m]) for m in dynamics)
    assert any(len(own.ids[m]) and set(own.ids[m]) != set(choose(stage(subset, base=replace(BASE, seed=9)),
                                                                 dynamics).ids[m]) for m in dynamics)  # fmt: skip


def test_balance_caps_classes_at_the_median_class(dynamics):
    for member, dyn in dynamics.items():
        every = np.bincount(dyn.gold[np.isin(categorize(dyn), [0, 4, 5])])
        taken = np.bincount(inside(dyn, choose(stage(), dynamics).ids[member]).gold)
        assert np.array_equal(taken, np.minimum(every, np.sort(every)[(len(every) - 1) // 2]))
        free = choose(stage(balance=False), dynamics)
        assert np.array_equal(np.bincount(inside(dyn, free.ids[member]).gold), every)
    assert len(set(np.bincount(inside(dynamics["two"], choose(stage(), dynamics).ids["two"]).gold))) == 1
    limited = choose(stage(limit=30), dynamics)
    assert limited.n == {"two": 30, "many": 30}
    assert np.bincount(inside(dynamics["two"], limited.ids["two"]).gold).tolist() == [15, 15]


@pytest.mark.parametrize("total", [40, 300])
@pytest.mark.parametrize("batch", [7, 16, 100])
@pytest.mark.parametrize("epochs", [1, 3, 4])
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
        if found.passes * examples > epochs * (hard + 4):  # only where fewer would leave an update out
            assert (examples - 1) % batch == 0


def test_equal_updates_in_numbers():
    dyn = {"a": made([SOI.UNE] * 100 + [SOI.ACE] * 900, [i % 2 for i in range(1000)])}
    found = choose(stage("UNE+FRGE", "all"), dyn)
    assert (found.n, found.passes, len(found.ids["a"])) == ({"a": 100}, 1, 433)  # 4 x 7 updates of 16


def test_what_is_too_small_is_not_tested():
    few = made([SOI.UNE] * 7 + [SOI.ACE] * 9, [0, 1] * 8)
    assert choose(stage(balance=False), {"m": few}).reason == "fewer than 8 examples"
    assert choose(stage(balance=False), {"m": few}).n == {"m": 7}
    one = made([SOI.UNE] * 20 + [SOI.ACE] * 20, [0] * 20 + [1] * 20)
    both = {"m": one, "n": made([SOI.UNE] * 20, [0, 1] * 10, "n")}
    for control in (None, "random", "all"):
        found = choose(stage(control=control), both)
        assert (found.reason, found.n, found.ids) == ("fewer than two classes of m", {"m": 20, "n": 20}, {})
    assert choose(stage("FRGE"), both).n == {"m": 0, "n": 0}


# --- training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("stages") / "runs"


@pytest.fixture(scope="module")
def mixed():
    """So little training tells classes apart only: a region has one class. Two of them together have both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stages.SUBSETS, "ambiguous", ("easy", "hard"))
        yield


@pytest.fixture(scope="module")
def done(wheels, mixed, profile, root):
    """Both runs, the first done with its weights and the second without, and all their stages."""
    sizes, store = load_profile(profile), RunStore(root)
    runs = [do_run(replace(spec, keep_weights=not spec.seed), store) for spec in plan(sizes)]
    return runs, [do_stage(spec, store) for spec in plan_stages(sizes)]


def test_a_stage_is_a_run_of_its_own(done, profile, root):
    runs, further = done
    assert [s.key for s in further] == [s.key for s in plan_stages(load_profile(profile))]
    assert len(further) == 6
    for run in further:
        start = next(r for r in runs if r.seed == run.seed)
        manifest = run.manifest
        assert manifest["identity"]["base"] == start.key
        assert manifest["base"] == start.manifest["sha256"]
        spec = next(s for s in plan_stages(load_profile(profile)) if s.key == run.key)
        choice = choose(spec, {m: start.dynamics(m) for m in run.setting})
        assert manifest["stage"]["n"] == choice.n == {m: run.metrics[m]["n"] for m in run.setting}
        assert manifest["stage"]["tested"]
        assert choice.reason == ""
        assert manifest["updates"] == manifest["stage"]["passes"] * -(-manifest["examples"] // 8)
        for member in run.setting:
            dyn, scores = run.dynamics(member), run.metrics[member]
            assert np.array_equal(dyn.ids, choice.ids[member])
            assert dyn.meta.extra["base"] == start.key
            assert dyn.meta.extra["stage"]["subset"] == run.stage["subset"]
            assert scores["trained"] == len(dyn) == sum(scores["soi"].values())
            assert scores["base"]["test"] == start.metrics[member]["test"]
            frame, before = run.predictions(member), start.predictions(member)
            before = before[before["split"].isin(["test", "ood"])].reset_index(drop=True)
            assert frame["id"].tolist() == before["id"].tolist()
            assert not np.array_equal(frame["p_gold"], before["p_gold"])
            test = frame[frame["split"] == "ood"]
            assert np.isclose((test["gold"] == test["predicted"]).mean(), scores["ood"]["accuracy"], atol=1e-6)
    for seed in (0, 1):
        three = [r for r in further if r.seed == seed]
        assert [r.stage["control"] for r in three] == [None, "random", "all"]
        assert len({r.manifest["updates"] for r in three}) == 1
        assert len({r.manifest["stage"]["weights"] for r in three}) == 1


def test_controls_that_are_the_same_training_are_trained_once(done, profile, root, monkeypatch):
    from soi_lib.training import engine

    sizes, store = load_profile(profile), RunStore(root)
    spec = next(s for s in plan_stages(sizes) if s.control == "random")
    same = stages.SUBSETS["ambiguous"]
    monkeypatch.setitem(stages.SUBSETS, "ACE", same)  # another subset, as many of every class
    first, twin = store.get(spec.key), replace(spec, subset="ACE")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "train", None)
        run = do_stage(twin, store)
    assert run.manifest["stage"]["same_as"] == first.key
    assert run.manifest["base"] == first.manifest["base"]
    assert run.metrics == first.metrics
    assert run.manifest["files"] == first.manifest["files"]
    answers = {member: first.predictions(member) for member in run.setting}
    shutil.rmtree(first.folder)
    shutil.rmtree(run.folder)
    again = do_stage(twin, store)  # trained for itself, it gives the same
    assert "same_as" not in again.manifest["stage"]
    assert all(again.predictions(member).equals(frame) for member, frame in answers.items())
    shutil.rmtree(again.folder)
    do_stage(spec, store)


def test_nothing_is_trained_twice(done, profile, root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    for path in (root / "weights").iterdir():  # finished stages do not need them
        path.rename(path.with_suffix(".away"))
    sizes = load_profile(profile)
    assert [r.key for r in reproduce(sizes, RunStore(root), quiet=True)] == [r.key for r in done[0]]
    assert [r.key for r in reproduce_stages(sizes, RunStore(root), quiet=True)] == [r.key for r in done[1]]
    for path in (root / "weights").iterdir():
        path.rename(path.with_suffix(".safetensors"))
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()} == before


@pytest.fixture(scope="module")
def single(wheels, mixed, tmp_path_factory):
    """A run of movie snippets without weights: its spec and its store."""
    sizes = Profile(**(TINY | {"seeds": (0,), "comparisons": {"source": {"encoder": "minilm", "members": ["movie"]}}}))
    (spec,) = plan(sizes)
    store = RunStore(tmp_path_factory.mktemp("single"))
    do_run(spec, store)
    return spec, store


def test_a_stage_continues_from_the_final_weights_of_its_run(single):
    spec, store = single
    assert not store.weights_path(spec.key).exists()
    # an all but vanishing learning rate leaves what the run predicted at its end, and nothing else would
    still = stages_of(spec, Stages(subsets=("ambiguous",), epochs=1, learning_rate_factor=1e-9, balance=False))[0]
    seen = []
    run = do_stage(still, store, progress=lambda key, epoch, n: seen.append((key, n)))
    assert {key for key, _ in seen} == {still.key}
    assert sum(n for _, n in seen) == run.manifest["examples"] == run.manifest["stage"]["n"]["movie"]
    assert store.weights_path(spec.key).exists()  # made again from the stored run
    after, before = run.predictions("movie"), store.get(spec.key).predictions("movie")
    assert np.allclose(after["p_gold"], before["p_gold"], atol=1e-3)
    assert after["predicted"].tolist() == before["predicted"].tolist()
    changed = store.weights_path(spec.key).stat().st_mtime_ns
    assert do_stage(still, store).key == run.key
    do_run(replace(spec, keep_weights=True), store)
    assert store.weights_path(spec.key).stat().st_mtime_ns == changed


def test_from_pretrained_weights_all_examples_give_the_run_itself(single, monkeypatch):
    spec, store = single
    run = store.get(spec.key)
    dyn = run.dynamics("movie")
    everything = stages.Choice({"movie": dyn.ids}, spec.training.epochs, {"movie": len(dyn)})
    monkeypatch.setattr(stages, "choose", lambda spec, dynamics: everything)
    anew = stages_of(spec, Stages(subsets=(), from_pretrained=("UNE+FRGE",)))
    assert [s.control for s in anew] == [None, "random"]
    found = do_stage(anew[0], store)
    assert found.dynamics("movie").fingerprint() == dyn.fingerprint()
    whole = run.predictions("movie")
    measured = whole[whole["split"].isin(["test", "ood"])].reset_index(drop=True)
    assert found.predictions("movie").equals(measured)


def test_a_subset_that_is_too_small_is_stored_as_not_tested(single, monkeypatch):
    spec, store = single
    monkeypatch.setattr(stages, "SMALLEST", 1000)
    small = stages_of(spec, Stages(subsets=("ambiguous",), epochs=3, balance=False))[0]
    run = do_stage(small, store)
    assert set(run.manifest["files"]) == {"metrics.json"}
    there = read_stage(run)
    assert not there.tested
    assert there.answers == {}
    assert run.metrics["movie"]["n"] == there.n["movie"] > 0
    assert run.manifest["stage"]["reason"] == "fewer than 1000 examples"
    monkeypatch.undo()
    assert not do_stage(small, store).manifest["stage"]["tested"]  # done is done


def test_weights_that_do_not_fit_are_found_out(single, tmp_path):
    spec, store = single
    run = do_run(replace(spec, keep_weights=True), store)
    path = store.weights_path(spec.key)
    vocabulary = prepare(spec).vocabulary
    kept, digest = weights.load_weights(path, vocabulary=vocabulary)
    assert weights.fit(path, run)
    assert len(digest) == 64
    with pytest.raises(StoreError, match="another vocabulary"):
        weights.load_weights(path, vocabulary=vocabulary[1:])

    other = tmp_path / "other.safetensors"
    about = {"key": run.key, "vocabulary": vocabulary, "dynamics": weights.fingerprints(run)}
    weights.save_weights(other, kept, **about)
    assert weights.fit(other, run)
    weights.save_weights(other, kept, **(about | {"key": "another"}))
    assert not weights.fit(other, run)
    weights.save_weights(other, kept, **(about | {"dynamics": {"movie": "0" * 64}}))
    assert not weights.fit(other, run)
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    other.write_bytes(bytes(body))
    assert not weights.fit(other, run)
    other.write_bytes(bytes(body[:-9]))
    assert not weights.fit(other, run)
    with pytest.raises(StoreError, match="cannot be read"):
        weights.load_weights(other, vocabulary=vocabulary)


def test_a_run_of_another_machine_is_not_continued(single, tmp_path):
    spec, store = single
    run, dyn = store.get(spec.key), store.get(spec.key).dynamics("movie")
    elsewhere = RunStore(tmp_path)

    def fill(out):
        for name in ("metrics.json", "predictions"):
            copy = shutil.copytree if (run.folder / name).is_dir() else shutil.copyfile
            copy(run.folder / name, out / name)
        (out / "dynamics").mkdir()
        p = dyn.p_gold.copy()
        p[0, 0] = np.nextafter(p[0, 0], np.float32(0.5))  # the smallest difference that there is
        TrainingDynamics(dyn.ids, dyn.gold, p, dyn.correct, dyn.meta).save(out / "dynamics" / "movie.parquet")

    elsewhere.write(spec.key, {k: v for k, v in run.manifest.items() if k not in ("files", "sha256", "key")}, fill)
    wanted = stages_of(spec, Stages())[0]
    with pytest.raises(StoreError, match=r"dynamics/movie.parquet: training the run again gives other dynamics"):
        do_stage(wanted, elsewhere)
    assert not elsewhere.weights_path(spec.key).exists()
    assert elsewhere.get(wanted.key) is None


def test_stages_are_done_in_worker_processes_like_runs(single, tmp_path, monkeypatch):
    spec, store = single
    do_run(replace(spec, keep_weights=True), store)
    copy = RunStore(tmp_path / "runs")
    shutil.copytree(store.root, copy.root)
    sizes = Profile(**(TINY | {"seeds": (0,), "comparisons": {"source": {"encoder": "minilm", "members": ["movie"]}},
                               "stages": {"subsets": ["ACE"], "controls": [], "epochs": 1}}))  # fmt: skip
    (run,) = reproduce_stages(sizes, copy, jobs=1, quiet=True)
    assert run.key == plan_stages(sizes)[0].key
    assert run.manifest["base"] == store.get(spec.key).manifest["sha256"]

    asked = []
    monkeypatch.setattr(reproducing, "run_all", lambda specs, *_, **__: asked.append(specs))
    reproduce(sizes, RunStore(tmp_path / "none"))
    reproduce(sizes, copy)
    reproduce(sizes.model_copy(update={"stages": None}), RunStore(tmp_path / "none"))
    kept = replace(spec, keep_weights=True)
    assert asked == [[kept], [spec], [spec]]  # weights are kept for stages, and never trained for again
    run.folder.rename(tmp_path / "away")
    copy.weights_path(spec.key).unlink()
    reproduce_stages(sizes, copy)
    assert asked[3:] == [[kept], plan_stages(sizes)]
    assert kept.found(copy) is None
    assert kept.found(store).key == spec.key


# --- tables ------------------------------------------------------------------------------------------------------


def test_stages_are_recorded_in_two_files(done, profile, tmp_path):
    runs, further = done
    folder = results.record(load_profile(profile), runs, tmp_path / "recorded" / "tiny", stages=further)
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == [
        "checksums.txt", "profile.yaml", "stages.json", "stages.parquet"
    ]  # fmt: skip
    back = {s.key: s for s in unpack_stages(folder)}
    assert set(back) == {run.key for run in further}
    for run in further:
        there = read_stage(run)
        assert (back[run.key].identity, back[run.key].metrics) == (there.identity, there.metrics)
        assert back[run.key].about == json.loads(json.dumps(there.about))
        assert set(back[run.key].answers) == set(there.answers)
        assert all(np.array_equal(back[run.key].answers[k], v) for k, v in there.answers.items())
    pack_stages(further[::-1], tmp_path)
    assert (tmp_path / "stages.json").read_bytes() == (folder / "stages.json").read_bytes()
    found = results.open_results("source", runs=folder, stages=True)
    assert len(found.stages) == 6
    assert results.open_results("source", runs=folder).stages == ()
    assert len(results.open_results("source", runs=folder, seeds=[1], stages=True).stages) == 3
    with pytest.raises(StoreError, match="is no stage"):
        read_stage(runs[0])
    (folder / "stages.parquet").write_bytes(b"")
    with pytest.raises(StoreError, match=r"stages.parquet: a recorded file is not"):
        results.open_results("source", runs=folder, stages=True)
    with pytest.raises(StoreError, match="recorded stages cannot be read"):
        unpack_stages(folder)


def test_gains_are_differences_on_the_same_examples_and_seeds(done, profile, root):
    runs, further = done
    found = results.open_results("source", profile=profile, runs=root, stages=True)
    gains, wide = stage_gains(found), stage_table(found)
    assert set(gains["subset"]) == {"ambiguous"}
    for member, split in product(("movie", "amazon"), ("test", "ood")):
        name = {"ood": "OOD"}.get(split, split)
        key = {"member": member, "split": name}
        part = gains[np.logical_and.reduce([gains[k] == v for k, v in key.items()])].set_index("against")
        row = wide[np.logical_and.reduce([wide[k] == v for k, v in key.items()])].iloc[0]
        own = [r for r in further if r.stage["control"] is None]
        score = np.mean([r.metrics[member][split]["accuracy"] for r in own])
        for against in ("base", "random", "all"):
            other = (
                [r.metrics[member][split]["accuracy"] for r in runs]
                if against == "base"
                else [r.metrics[member][split]["accuracy"] for r in further if r.stage["control"] == against]
            )
            value = score - np.mean(other)
            assert np.isclose(part.loc[against, "difference"], value, atol=1e-4)
            assert part.loc[against, "low"] <= value + 1e-4
            assert part.loc[against, "high"] >= value - 1e-4
            assert row[f"over {against}"] == part.loc[against, "difference"]
            assert row[f"over {against}, high"] == part.loc[against, "high"]
        assert np.isclose(row["score"], score, atol=1e-4)
        n = round(np.mean([r.metrics[member]["n"] for r in own]))
        assert (row["seeds"], row["n"], row["setting"]) == (2, n, "movie+amazon")

    summary = stage_summary([found])
    one = summary[summary["split"] == "test"].set_index("against")
    both = gains[gains["split"] == "test"]
    assert np.isclose(
        one.loc["random", "difference"], both[both["against"] == "random"]["difference"].mean(), atol=1e-3
    )
    assert (one["cases"] == 2).all()
    assert (one["not tested"] == 0).all()

    # both members are evaluated on the same OOD examples: the same answers twice are no more evidence than once
    twice = [replace(s, answers=s.answers | {("amazon", "ood"): s.answers["movie", "ood"]}) for s in found.stages]
    repeated = replace(found, stages=tuple(twice))
    pooled = stage_summary([repeated]).set_index(["split", "against"]).loc[("OOD", "random")]
    alone = stage_gains(repeated).set_index(["member", "split", "against"]).loc[("movie", "OOD", "random")]
    assert pooled[["difference", "low", "high"]].tolist() == alone[["difference", "low", "high"]].tolist()
    assert pooled["cases"] == 2

    # a subset that was too small in one seed is compared in the other, and said to be
    gone = next(s for s in found.stages if s.seed == 0 and s.kind[2] is None)
    missing = replace(gone, about={"stage": gone.about["stage"] | {"tested": False}}, answers={})
    part = replace(found, stages=tuple(missing if s is gone else s for s in found.stages))
    assert (stage_table(part)["seeds"] == 1).all()
    assert stage_table(part)[["over base", "over random", "over all"]].notna().all(axis=None)
    assert (stage_summary([part])[["cases", "not tested"]] == [0, 2]).all(axis=None)
    assert stage_summary([part])["difference"].isna().all()
    none = stage_table(replace(part, stages=(missing,)))
    assert (none["seeds"] == 0).all()
    assert none["over base"].isna().all()

    with pytest.raises(StoreError, match="have no stages"):
        stage_gains(results.open_results("source", profile=profile, runs=root))
    with pytest.raises(StoreError, match="different seeds"):
        stage_summary([found, replace(found, runs=found.runs[:1])])
