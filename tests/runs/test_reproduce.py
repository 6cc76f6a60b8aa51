"""A whole reproduction in small, on generated corpora: runs, their second stages, the record, the results."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_grid
from tiny_grid import environment

from paper import recorded as results
from paper import tables
from paper.claims.staged import by_case
from paper.datasets import load
from paper.stage_runs import pack_stages, read_stage, unpack_stages
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import OutputExistsError, ProfileError, StoreError
from soi_lib.runs import second_stage as stages
from soi_lib.runs.config import Stages, load_profile
from soi_lib.runs.results import score_table
from soi_lib.runs.run import prepare
from soi_lib.runs.scheduler import reproduce, reproduce_stages
from soi_lib.runs.second_stage import choose, do_stage
from soi_lib.runs.spec import plan, plan_stages, stages_of
from soi_lib.runs.store import RunStore
from soi_lib.training.checkpoint import has_weights, load_weights, save_weights

PAIR = ("twitter", "yelp")
CHANGES = {
    "seeds": [0, 1],
    "comparisons": {"source": {"encoder": "tiny", "members": list(PAIR), "settings": ["single", "all"]}},
    # so little training tells classes apart only: a region has one class, two of them together have both
    "stages": {"subsets": ["easy+hard"], "epochs": 2, "balance": False},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Corpora, an encoder, a profile, and a cache of their own."""
    folder = tmp_path_factory.mktemp("reproduction")
    tiny_grid.make(folder, **CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SOI_CACHE", "ACCELERATE_USE_CPU"):
            patch.setenv(name, environment(folder / "cache")[name])
        yield folder


@pytest.fixture(scope="module")
def profile(place):
    return load_profile(place / "tiny.yaml")


@pytest.fixture(scope="module")
def root(place):
    return place / "runs"


@pytest.fixture(scope="module")
def done(profile, root, in_this_process):
    """All runs and their stages; the weights of one run were lost, and its stages trained it once more."""
    store = RunStore(root)
    runs = reproduce(profile, store, quiet=True)
    store.weights_path(runs[1].key).unlink()
    return runs, reproduce_stages(profile, store, quiet=True)


def test_a_key_depends_on_what_determines_the_run(profile):
    specs = plan(profile)
    base = specs[0]
    assert len({s.key for s in specs}) == len(specs)
    for change in (
        {"seed": 7},
        {"engine": 99},
        {"training": base.training.model_copy(update={"epochs": 4})},
        {"data": base.data.model_copy(update={"evaluate": 41})},
        {"fingerprints": (("corpus/twitter", "other"), base.fingerprints[1])},
    ):
        assert replace(base, **change).key != base.key
    with pytest.raises(ProfileError, match=r"'sorce'.*'source'"):
        plan(profile, only=["sorce"])


def test_every_run_is_there_with_counts_that_add_up(done):
    assert [(r.setting, r.seed) for r in done[0]] == [
        (s, seed) for s in (("twitter",), ("yelp",), PAIR) for seed in (0, 1)
    ]
    for run in done[0]:
        assert set(run.metrics) == set(run.setting)
        for member, m in run.metrics.items():
            assert m["n"] == sum(m["soi"].values()) == 40
            frame = run.predictions(member)
            test = frame[frame["split"] == "test"]
            assert np.isclose((test["gold"] == test["predicted"]).mean(), m["test"]["accuracy"], atol=1e-6)
        assert run.manifest["machine"]["threads"] == 1


def test_a_stage_is_a_run_of_its_own(done, profile):
    runs, further = done
    assert [s.key for s in further] == [s.key for s in plan_stages(profile)]
    assert len(further) == 18
    for run in further:
        start = next(r for r in runs if (r.seed, r.setting) == (run.seed, run.setting))
        manifest = run.manifest
        assert (manifest["identity"]["base"], manifest["base"]) == (start.key, start.manifest["sha256"])
        spec = next(s for s in plan_stages(profile) if s.key == run.key)
        choice = choose(spec, {m: start.dynamics(m) for m in run.setting})
        assert manifest["stage"]["n"] == choice.n == {m: run.metrics[m]["n"] for m in run.setting}
        assert (manifest["stage"]["tested"], choice.reason) == (True, "")
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
    for first in runs:
        three = [r for r in further if r.manifest["identity"]["base"] == first.key]
        assert [r.stage["control"] for r in three] == [None, "random", "all"]
        assert len({r.manifest["updates"] for r in three}) == 1
        assert len({r.manifest["stage"]["weights"] for r in three}) == 1


def test_nothing_is_trained_twice(done, profile, root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file() and p.parent.name != "weights"}
    (root / "weights").rename(root.parent / "weights")  # finished stages do not need them
    assert [r.key for r in reproduce(profile, RunStore(root), quiet=True)] == [r.key for r in done[0]]
    assert [r.key for r in reproduce_stages(profile, RunStore(root), quiet=True)] == [r.key for r in done[1]]
    (root.parent / "weights").rename(root / "weights")
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert not list(root.rglob(".tmp-*"))


@pytest.fixture
def single(done, profile, root):
    """A run of one dataset whose weights were kept: its spec and its store."""
    return next(s for s in plan(profile) if s.setting == ("twitter",) and s.seed == 0), RunStore(root)


def test_a_stage_continues_from_the_final_weights_of_its_run(single):
    """An all but vanishing learning rate leaves what the run predicted at its end, and nothing else would."""
    spec, store = single
    still = stages_of(spec, Stages(subsets=("easy+hard",), epochs=1, learning_rate_factor=1e-9, balance=False))[0]
    run = do_stage(still, store)
    after, before = run.predictions("twitter"), store.get(spec.key).predictions("twitter")
    before = before[before["split"].isin(["test", "ood"])].reset_index(drop=True)
    assert np.allclose(after["p_gold"], before["p_gold"], atol=1e-3)
    assert after["predicted"].tolist() == before["predicted"].tolist()


def test_a_subset_that_is_too_small_is_stored_as_not_tested(single, monkeypatch):
    spec, store = single
    monkeypatch.setattr(stages, "SMALLEST", 1000)
    run = do_stage(stages_of(spec, Stages(subsets=("easy+hard",), epochs=3, balance=False))[0], store)
    there = read_stage(run)
    assert (there.tested, there.answers, set(run.manifest["files"])) == (False, {}, {"metrics.json"})
    assert run.metrics["twitter"]["n"] == there.n["twitter"] > 0


def test_weights_that_do_not_fit_are_found_out(single, tmp_path):
    spec, store = single
    run, path = store.get(spec.key), store.weights_path(spec.key)
    of_run = {"key": run.key, "dynamics": {"twitter": run.dynamics("twitter").fingerprint()}}
    kept, vocabulary, _ = load_weights(path, prepare(spec).vocabulary)
    assert has_weights(path, **of_run)
    with pytest.raises(StoreError, match="vocabulary"):
        load_weights(path, vocabulary[1:])
    other = tmp_path / "other.safetensors"
    for change in ({"key": "another"}, {"dynamics": {"twitter": "0" * 64}}):
        save_weights(other, kept, vocabulary=vocabulary, **(of_run | change))
        assert not has_weights(other, **of_run)
    body = path.read_bytes()
    for damaged in (body[:-1] + bytes([body[-1] ^ 1]), body[:-9]):
        other.write_bytes(damaged)
        assert not has_weights(other, **of_run)


def test_a_run_of_another_machine_is_not_continued(single, tmp_path):
    spec, store = single
    run, dyn = store.get(spec.key), store.get(spec.key).dynamics("twitter")
    elsewhere = RunStore(tmp_path)

    def fill(out):
        for name in ("metrics.json", "predictions"):
            copy = shutil.copytree if (run.folder / name).is_dir() else shutil.copyfile
            copy(run.folder / name, out / name)
        (out / "dynamics").mkdir()
        p = dyn.p_gold.copy()
        p[0, 0] = np.nextafter(p[0, 0], np.float32(0.5))  # the smallest difference that there is
        TrainingDynamics(dyn.ids, dyn.gold, p, dyn.correct, dyn.meta).save(out / "dynamics" / "twitter.parquet")

    elsewhere.write(spec.key, {k: v for k, v in run.manifest.items() if k not in ("files", "sha256", "key")}, fill)
    wanted = stages_of(spec, Stages())[0]
    with pytest.raises(StoreError, match=r"dynamics/twitter.parquet: training the run again gives other dynamics"):
        do_stage(wanted, elsewhere)
    assert not elsewhere.weights_path(spec.key).exists()
    assert elsewhere.get(wanted.key) is None


def test_results_json_has_the_agreed_form(done, profile):
    value = results.summary(profile, done[0], "abc")
    assert json.loads(json.dumps(value)) == value
    assert set(value) == {"profile", "wall_seconds", "training_seconds", "commit", "runs"}
    assert value["training_seconds"] == pytest.approx(sum(r.manifest["seconds"]["total"] for r in done[0]), abs=0.1)
    run = value["runs"][4]
    assert set(run) == {"key", "comparison", "setting", "budget", "seed", "members"}
    assert run["setting"] == ["twitter", "yelp"]
    assert set(run["members"]["yelp"]) == {"n", "soi", "test", "ood", "majority", "bag_of_words"}
    assert set(run["members"]["yelp"]["test"]) == {"n", "accuracy", "macro_f1"}
    assert sum(run["members"]["yelp"]["soi"].values()) == run["members"]["yelp"]["n"]


def test_wall_time_counts_runs_side_by_side_once_and_breaks_not_at_all(done, profile):
    """Two side by side, the second ten seconds longer; a third within them; one on the next day."""
    times = [("01T10:00:00", 100.0), ("01T10:00:00", 110.0), ("01T10:00:30", 20.0), ("02T10:00:00", 5.0)]
    manifests = [{"started": f"2026-01-{began}+00:00", "seconds": {"total": total}} for began, total in times]
    runs = [replace(run, manifest=run.manifest | changed) for run, changed in zip(done[0], manifests, strict=False)]
    value = results.summary(profile, runs, "abc")
    assert value["wall_seconds"] == 115.0
    assert value["training_seconds"] == 235.0


@pytest.fixture(scope="module")
def recorded(done, profile, tmp_path_factory):
    return results.record(profile, done[0], tmp_path_factory.mktemp("data") / "tiny", stages=done[1])


def test_recorded_runs_verify_hold_no_text_and_can_be_continued_from(done, profile, recorded, tmp_path):
    assert results.verify_recorded(recorded) == len([p for p in recorded.rglob("*") if p.is_file()]) - 1
    body = b"".join(p.read_bytes() for p in recorded.rglob("*") if p.is_file())
    prints = dict(plan(profile)[-1].fingerprints)
    texts = [t for m in PAIR for t in load(m, prints[f"corpus/{m}"]).splits["train"].text]
    assert not [t for t in texts if t.encode() in body]
    with pytest.raises(OutputExistsError, match="--force"):
        results.record(profile, done[0], recorded)
    store = RunStore(tmp_path / "runs")
    assert [results.reuse(recorded, store), results.reuse(recorded, store)] == [len(done[0]), 0]
    assert [run.key for run in store] == sorted(run.key for run in done[0])


def test_recorded_stages_are_those_that_were_done(done, recorded, tmp_path):
    back = {s.key: s for s in unpack_stages(recorded)}
    assert set(back) == {run.key for run in done[1]}
    for run in done[1]:
        there = read_stage(run)
        assert (back[run.key].identity, back[run.key].metrics) == (there.identity, there.metrics)
        assert all(np.array_equal(back[run.key].answers[k], v) for k, v in there.answers.items())
        assert all(np.array_equal(back[run.key].odds[k], v) for k, v in there.odds.items())
    pack_stages(done[1][::-1], tmp_path)
    assert (tmp_path / "stages.json").read_bytes() == (recorded / "stages.json").read_bytes()
    assert len(results.open_results("source", runs=recorded, seeds=[1], stages=True).stages) == 9


def test_a_case_of_claim_c5_has_the_scores_of_its_stages(recorded):
    found = results.open_results("source", runs=recorded, stages=True)
    cases = by_case(found, "as they are")["easy+hard"]
    assert set(cases) == {f"{m}, {how}, as they are" for m in PAIR for how in ("alone", "together")}
    case = cases["yelp, together, as they are"]
    test = case.evaluations["test"]
    for control, name in ((None, "subset"), ("random", "random"), ("all", "equal updates")):
        of = [s for s in found.stages if s.setting == PAIR and s.kind == ("easy+hard", control)]
        expected = [s.metrics["yelp"]["test"]["accuracy"] for s in sorted(of, key=lambda s: s.seed)]
        assert np.allclose(test.values(name, "accuracy").mean(axis=1), expected, atol=1e-6)
    run = [found.run(PAIR, seed) for seed in (0, 1)]
    assert np.allclose(
        test.values("run", "accuracy").mean(axis=1), [r.metrics["yelp"]["test"]["accuracy"] for r in run]
    )
    left = [s.about["stage"]["left"]["yelp"] for s in found.stages if s.setting == PAIR and s.kind[1] is None]
    assert sorted(map(tuple, zip(case.start, case.end, strict=True))) == sorted(map(tuple, left))


def test_tables_agree_with_the_runs(recorded):
    found = results.open_results("source", runs=recorded)
    assert (found.members, found.seeds, found.settings) == (PAIR, (0, 1), (("twitter",), ("yelp",), PAIR))
    assert results.open_results("source", runs=recorded, seeds=[1]).seeds == (1,)
    with pytest.raises(StoreError, match="did you mean 'twitter'"):
        found.run(("twiter",))
    scores = score_table(found)
    row = scores[(scores["member"] == "yelp") & (scores["setting"] == "alone") & (scores["split"] == "test")].iloc[0]
    expected = np.mean([found.run(("yelp",), s).metrics["yelp"]["test"]["accuracy"] for s in (0, 1)])
    assert abs(row["accuracy"] - expected) < 6e-4
    assert row["low"] <= row["accuracy"] <= row["high"]
    counts = tables.transition(found, "twitter", PAIR)
    assert counts.to_numpy().sum() == 40
    assert np.allclose(counts.sum(axis=1), tables.soi_table(found, shares=False).loc[("twitter", "alone")])
