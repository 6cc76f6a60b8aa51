"""What a run keeps: settings at equal budget, both modes, curves, sizes of the sets, scores; on generated corpora."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_grid
import torch
from tiny_grid import environment

from paper import tables
from paper.datasets import load
from paper.recorded import Results
from soi_lib.runs.config import Setting, load_profile
from soi_lib.runs.run import do_run
from soi_lib.runs.spec import plan
from soi_lib.runs.store import RunStore

TRAINING = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "record": "both"}
CHANGES = {
    "data": {"train": 40, "evaluate": 15, "ood": 12, "validation": 6},
    "training": TRAINING,
    "comparisons": {
        "source": {"encoder": "tiny", "members": ["twitter", "yelp"], "settings": ["single", "equal", "all"]},
    },
    "stages": None,
}
PAIR = ("twitter", "yelp")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The profile's runs by setting, and the profile."""
    folder = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SOI_CACHE", "ACCELERATE_USE_CPU"):
            patch.setenv(name, environment(folder / "cache")[name])
        profile = load_profile(tiny_grid.make(folder, **CHANGES))
        specs = plan(profile)
        yield {spec.setting: (spec, do_run(spec, RunStore(folder / "runs"))) for spec in specs}, profile, folder


def test_settings_stand_in_their_order(made):
    runs, _, _ = made
    assert list(runs) == [("twitter",), ("yelp",), Setting(PAIR, "equal"), PAIR]
    specs = [spec for spec, _ in runs.values()]
    assert len({spec.key for spec in specs}) == 4
    assert [spec.identity()["budget"] for spec in specs] == ["full", "full", "equal", "full"]
    assert [spec.examples for spec in specs] == [120, 120, 120, 240]


def test_equal_budget_trains_as_much_as_one_alone(made):
    runs, _, _ = made
    (_, one), (spec, equal), (_, every) = runs["twitter",], runs[Setting(PAIR, "equal")], runs[PAIR]
    assert equal.manifest["examples"] == one.manifest["examples"] == 40
    assert equal.manifest["updates"] == one.manifest["updates"]
    assert every.manifest["updates"] == 2 * one.manifest["updates"]
    for member in PAIR:
        ids = set(equal.dynamics(member).ids)
        assert len(ids) == equal.metrics[member]["n"] == 20
        assert ids < set(every.dynamics(member).ids)
        assert ids == set(load(member, spec.fingerprint(f"corpus/{member}")).splits["train"].take(20).ids)
    assert equal.dynamics("yelp").meta.extra["budget"] == "equal"


def test_results_tell_the_settings_apart(made):
    runs, profile, _ = made
    found = Results("source", profile, tuple(run for _, run in runs.values()))
    assert found.settings == tuple(runs)
    assert found.run(Setting(PAIR, "equal")).key != found.run(PAIR).key == runs[PAIR][1].key
    assert found.settings_with("yelp") == [("yelp",), Setting(PAIR, "equal"), PAIR]
    names = tables.soi_table(found).loc["yelp"].index
    assert list(names) == ["alone", "twitter+yelp at equal budget", "twitter+yelp"]


def test_the_sets_have_the_sizes_that_were_asked_for(made):
    runs, _, _ = made
    for _, run in runs.values():
        for member, metrics in run.metrics.items():
            assert [metrics[s]["n"] for s in ("validation", "test", "ood")] == [6, 15, 12]
            assert metrics["majority"]["ood"]["n"] == 12
            assert set(run.predictions(member)["split"]) == {"validation", "test", "ood"}


def test_both_modes_and_the_curves_are_kept(made):
    runs, _, _ = made
    _, run = runs[PAIR]
    assert run.record == "both"
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


def test_device_and_precision_are_part_of_the_key(made):
    runs, _, _ = made
    spec, run = runs["yelp",]
    bf16 = spec.training.model_copy(update={"precision": "bf16"})
    changed = [replace(spec, device="cuda"), replace(spec, training=bf16), replace(spec, device="cuda", training=bf16)]
    assert len({s.key for s in [spec, *changed]}) == 4
    assert replace(spec, device="cuda:1").key == changed[0].key
    assert run.manifest["identity"]["device"] == "cpu"
    assert run.manifest["identity"]["training"]["precision"] == run.manifest["precision"] == "fp32"


def test_the_plan_resolves_device_and_precision_once(made, monkeypatch):
    monkeypatch.delenv("SOI_PRECISION", raising=False)
    _, profile, _ = made
    auto = profile.model_copy(update={"training": profile.training.model_copy(update={"precision": "auto"})})
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert {s.training.precision for s in plan(auto)} == {"bf16"}
    assert {s.training.precision for s in plan(profile)} == {"fp32"}
    assert [s.key for s in plan(auto, precision="fp32")] == [s.key for s in plan(profile)]
    there = plan(auto, device="cuda", precision="bf16")  # for another machine
    assert {(s.device, s.training.precision) for s in there} == {("cuda", "bf16")}
