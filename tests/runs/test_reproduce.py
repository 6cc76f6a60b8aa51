"""A complete reproduction on small generated corpora: runs, second stages, recorded runs, results, and its progress."""

import json
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_grid
import torch

from paper import recorded as results
from paper.claims.staged import by_case
from paper.datasets import load
from paper.recorded import pack_stages, read_stage, unpack_stages
from soi_lib.dynamics import TrainingDynamics
from soi_lib.errors import OutputExistsError, StoreError
from soi_lib.runs import scheduler
from soi_lib.runs import second_stage as stages
from soi_lib.runs.config import Setting, Stages, load_profile
from soi_lib.runs.run import prepare
from soi_lib.runs.scheduler import reproduce, reproduce_stages
from soi_lib.runs.second_stage import choose, do_stage
from soi_lib.runs.spec import plan, plan_stages, stages_of
from soi_lib.runs.store import RunStore
from soi_lib.training.checkpoint import has_weights, load_weights, save_weights

PAIR = ("twitter", "yelp")
EQUAL = Setting(PAIR, "equal")
SETTINGS = (("twitter",), ("yelp",), EQUAL, PAIR)
CHANGES = {
    "seeds": [0, 1],
    "data": {"train": 40, "evaluate": 15, "ood": 12, "validation": 6},
    "training": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "record": "both"},
    "comparisons": {"source": {"encoder": "tiny", "members": list(PAIR), "settings": ["single", "equal", "all"]}},
    # after so little training a region has one class only, and two regions together have both
    "stages": {"subsets": ["easy+hard"], "epochs": 2, "balance": False},
}


@pytest.fixture(scope="module")
def profile(workplace):
    return load_profile(tiny_grid.make(workplace, **CHANGES))


@pytest.fixture(scope="module")
def root(workplace):
    return workplace / "runs"


@pytest.fixture(scope="module")
def done(profile, root, in_this_process):
    """All runs and their stages; the weights of one run were lost, so it was trained once more."""
    store = RunStore(root)
    runs = reproduce(profile, store, quiet=True)
    store.weights_path(runs[1].key).unlink()
    return runs, reproduce_stages(profile, store, quiet=True)


def test_the_plan_resolves_device_and_precision(profile, monkeypatch):
    monkeypatch.delenv("SOI_PRECISION", raising=False)
    auto = profile.model_copy(update={"training": profile.training.model_copy(update={"precision": "auto"})})
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert {s.training.precision for s in plan(auto)} == {"bf16"}
    assert {s.training.precision for s in plan(profile)} == {"fp32"}
    assert [s.key for s in plan(auto, precision="fp32")] == [s.key for s in plan(profile)]
    there = plan(auto, device="cuda", precision="bf16")  # for another machine
    assert {(s.device, s.training.precision) for s in there} == {("cuda", "bf16")}


def test_every_run_is_there_with_the_sizes_that_were_asked_for(done, profile):
    assert [(r.setting, r.seed) for r in done[0]] == [(setting, seed) for setting in SETTINGS for seed in (0, 1)]
    assert [spec.examples for spec in plan(profile)] == [120] * 6 + [240] * 2
    for run in done[0]:
        assert set(run.metrics) == set(run.setting)
        for member, m in run.metrics.items():
            assert m["n"] == sum(m["soi"].values()) == (20 if run.setting == EQUAL else 40)
            assert [m[split]["n"] for split in ("validation", "test", "ood")] == [6, 15, 12]
            assert m["majority"]["ood"]["n"] == 12
            frame = run.predictions(member)
            assert set(frame["split"]) == {"validation", "test", "ood"}
            test = frame[frame["split"] == "test"]
            assert np.isclose((test["gold"] == test["predicted"]).mean(), m["test"]["accuracy"], atol=1e-6)
        assert run.manifest["machine"]["threads"] == 1


def test_equal_budget_trains_as_much_as_one_dataset_alone(done, profile):
    one, equal, both = (done[0][i] for i in (0, 4, 6))
    assert equal.manifest["examples"] == one.manifest["examples"] == 40
    assert equal.manifest["updates"] == one.manifest["updates"]
    assert both.manifest["updates"] == 2 * one.manifest["updates"]
    for member in PAIR:
        ids = set(equal.dynamics(member).ids)
        corpus = load(member, plan(profile)[4].fingerprint(f"corpus/{member}"))
        assert ids == set(corpus.splits["train"].take(20).ids) < set(both.dynamics(member).ids)
        assert equal.dynamics(member).meta.extra["budget"] == "equal"


def test_both_modes_and_the_curves_are_kept(done):
    run = done[0][6]
    assert (run.setting, run.record) == (PAIR, "both")
    curves = run.curves()
    for member in PAIR:
        primary, train = run.dynamics(member), run.dynamics(member, "train")
        assert (primary.meta.record, train.meta.record) == ("eval", "train")
        assert np.array_equal(primary.ids, train.ids)
        assert np.array_equal(run.dynamics(member, "eval").p_gold, primary.p_gold)
        assert not np.array_equal(train.p_gold, primary.p_gold)
        rows = curves[curves["dataset"] == member]
        assert list(rows["epoch"]) == [0, 1, 2]
        assert np.allclose(rows["train_accuracy"], train.correct.mean(1), atol=1e-6)
        assert np.allclose(rows["train_loss"], -np.log(train.p_gold.astype(float)).mean(1), atol=1e-5)
        assert rows["validation_loss"].iloc[-1] == run.metrics[member]["validation"]["loss"]
        assert rows["validation_accuracy"].iloc[-1] == run.metrics[member]["validation"]["accuracy"]


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
    for first in (run for run in runs if run.setting != EQUAL):
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


def test_a_subset_that_is_too_small_is_marked_as_not_tested(single, monkeypatch):
    spec, store = single
    monkeypatch.setattr(stages, "SMALLEST", 1000)
    run = do_stage(stages_of(spec, Stages(subsets=("easy+hard",), epochs=3, balance=False))[0], store)
    there = read_stage(run)
    assert (there.tested, there.answers, set(run.manifest["files"])) == (False, {}, {"metrics.json"})
    assert run.metrics["twitter"]["n"] == there.about["stage"]["n"]["twitter"] > 0


def test_weights_of_another_run_or_damaged_ones_are_not_used(single, tmp_path):
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
    other.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    assert not has_weights(other, **of_run)


def test_a_run_from_another_machine_is_not_continued(single, tmp_path):
    spec, store = single
    run, dyn = store.get(spec.key), store.get(spec.key).dynamics("twitter")
    elsewhere = RunStore(tmp_path)

    def fill(out):
        shutil.copytree(run.folder, out, ignore=shutil.ignore_patterns("manifest.json"), dirs_exist_ok=True)
        p = dyn.p_gold.copy()
        p[0, 0] = np.nextafter(p[0, 0], np.float32(0.5))  # the smallest possible difference
        changed = TrainingDynamics(dyn.ids, dyn.gold, p, dyn.correct, dyn.meta)
        changed.save(out / "dynamics" / "twitter.parquet", overwrite=True)

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
    run = value["runs"][6]
    assert set(run) == {"key", "comparison", "setting", "budget", "seed", "members"}
    assert run["setting"] == ["twitter", "yelp"]
    assert set(run["members"]["yelp"]) == {"n", "soi", "test", "ood", "majority", "bag_of_words"}
    assert set(run["members"]["yelp"]["test"]) == {"n", "accuracy", "macro_f1"}
    assert sum(run["members"]["yelp"]["soi"].values()) == run["members"]["yelp"]["n"]


def test_wall_time_counts_parallel_runs_once_and_leaves_breaks_out(done, profile):
    """Two runs in parallel, the second ten seconds longer; a third at the same time; one on the next day."""
    times = [("01T10:00:00", 100.0), ("01T10:00:00", 110.0), ("01T10:00:30", 20.0), ("02T10:00:00", 5.0)]
    manifests = [{"started": f"2026-01-{began}+00:00", "seconds": {"total": total}} for began, total in times]
    runs = [replace(run, manifest=run.manifest | changed) for run, changed in zip(done[0], manifests, strict=False)]
    value = results.summary(profile, runs, "abc")
    assert value["wall_seconds"] == 115.0
    assert value["training_seconds"] == 235.0


@pytest.fixture(scope="module")
def recorded(done, profile, tmp_path_factory):
    return results.record(profile, done[0], tmp_path_factory.mktemp("data") / "tiny", stages=done[1])


def test_recorded_runs_contain_no_text_and_can_be_reused(done, profile, recorded, tmp_path):
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
    again = results.record(profile, done[0], tmp_path / "again")
    (again / "similarity-task.json").write_text("{}", encoding="utf-8")
    results.record(profile, done[0], again, force=True)
    assert (again / "similarity-task.json").is_file()
    results.verify_recorded(again)


def test_recorded_stages_are_those_that_were_trained(done, recorded, tmp_path):
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
    expected = [found.run(PAIR, seed).metrics["yelp"]["test"]["accuracy"] for seed in (0, 1)]
    assert np.allclose(test.values("run", "accuracy").mean(axis=1), expected)
    about = [s.about["stage"] for s in found.stages if s.setting == PAIR and s.kind[1] is None]
    assert sorted(zip(case.trained, case.start, case.end, strict=True)) == sorted(
        (stage["n"]["yelp"], *stage["left"]["yelp"]) for stage in about
    )


def job(setting: str, examples: int) -> SimpleNamespace:
    return SimpleNamespace(setting=(setting,), examples=examples, training=SimpleNamespace(epochs=5))


def simulate(monkeypatch: pytest.MonkeyPatch, jobs: dict[str, SimpleNamespace], costs: dict[str, float]) -> float:
    """Two workers need 40 s to start, 3 s before each run, then do 20 units of cost per second; return the total."""
    clock = 0.0
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: clock)
    shown = scheduler.Display(jobs, costs, finished=1, workers=2, quiet=False)
    queue = sorted(jobs, key=lambda key: -costs[key])
    hands = {worker: ["", 43.0, 0.0] for worker in range(2)}  # run, time of its next report, examples done
    while hands:
        worker = min(hands, key=lambda w: hands[w][1])
        key, clock, done = hands[worker]
        if key and done < jobs[key].examples:
            n = min(40, jobs[key].examples - done)
            shown.report(key, int(5 * done / jobs[key].examples), n)
            hands[worker] = [key, clock + n * costs[key] / jobs[key].examples / 20, done + n]
            continue
        if key:
            shown.report(key, None, 0)
        if queue:
            hands[worker] = [queue.pop(0), clock + 3, 0]
        else:
            del hands[worker]
    shown.bar.close()
    return clock


def test_a_log_file_has_one_line_per_state_and_the_first_estimate_is_close(monkeypatch, tmp_path):
    jobs = {f"{name}{i}": job(name, n) for i in range(8) for name, n in (("short", 1000), ("long", 1500))}
    costs = {key: one.examples * (2.2 if one.setting == ("long",) else 1.0) for key, one in jobs.items()}
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        monkeypatch.setattr(sys, "stderr", log)
        took = simulate(monkeypatch, jobs, costs)
    text = (tmp_path / "log").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert "\r" not in text
    assert lines[0].startswith("runs 1/17:   0 %")
    assert lines[-1].startswith("runs 17/17: 100 %")
    assert [line for line in lines if line.startswith("runs 9/17")]
    assert len(lines) <= 2 + len(jobs) + took / 30
    assert "estimating, epochs: long 1/5" in lines[1]
    first = next(line for line in lines if " left, " in line)
    minutes = int(re.search(r"about (\d+) min left, \d+ examples/s", first)[1])
    assert minutes * 60 == pytest.approx(took - 43 - 30, rel=0.15)
