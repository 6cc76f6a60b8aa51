"""A whole reproduction in small: real encoder, real tweets and reviews, two worker processes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from paper import recorded as results
from paper import tables
from soi_lib.errors import OutputExistsError, ProfileError, StoreError
from soi_lib.runs.config import load_profile
from soi_lib.runs.results import score_table
from soi_lib.runs.run import do_run
from soi_lib.runs.scheduler import reproduce
from soi_lib.runs.spec import plan
from soi_lib.runs.store import RunStore

TINY = {
    "name": "tiny",
    "seeds": [0, 1],
    "data": {"train": 24, "evaluate": 40, "ood": 40},
    "training": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-4},
    "comparisons": {"source": {"encoder": "minilm", "members": ["tweets", "amazon"], "settings": ["single", "all"]}},
}


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduction") / "runs"


@pytest.fixture(scope="module")
def done(wheels, profile, root):
    return reproduce(load_profile(profile), RunStore(root), jobs=2, quiet=True)


def test_every_run_is_there_with_counts_that_add_up(done):
    assert [(r.setting, r.seed) for r in done] == [
        (s, seed) for s in (("tweets",), ("amazon",), ("tweets", "amazon")) for seed in (0, 1)
    ]
    for run in done:
        assert set(run.metrics) == set(run.setting)
        for member, m in run.metrics.items():
            assert m["n"] == 24
            assert sum(m["soi"].values()) == 24
            assert m["test"]["n"] == m["ood"]["n"] == 40
            for score in (m["test"], m["ood"], m["majority"]["test"], m["bag_of_words"]["ood"]):
                assert 0 <= score["accuracy"] <= 1
                assert 0 <= score["macro_f1"] <= 1
            dyn = run.dynamics(member)
            assert dyn.meta.setting == run.setting
            assert dyn.meta.seed == run.seed
            frame = run.predictions(member)
            test = frame[frame["split"] == "test"]
            assert np.isclose((test["gold"] == test["predicted"]).mean(), m["test"]["accuracy"], atol=1e-6)
        assert run.manifest["machine"]["threads"] == 1
        assert set(run.manifest["files"]) >= {"metrics.json", "log.jsonl"}


def test_nothing_is_done_twice(done, profile, root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    again = reproduce(load_profile(profile), RunStore(root), quiet=True)
    assert [r.key for r in again] == [r.key for r in done]
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()} == before
    assert not list(root.rglob(".tmp-*"))


def test_a_run_done_alone_has_the_bits_of_one_done_beside_others(done, profile, tmp_path):
    spec = plan(load_profile(profile))[4]
    assert spec.key == done[4].key
    seen = []
    kept = replace(spec, keep_weights=True)
    alone = do_run(kept, RunStore(tmp_path), progress=lambda key, epoch, n: seen.append(n))
    assert sum(seen) == 3 * 48
    for member in spec.setting:
        a, b = alone.dynamics(member), done[4].dynamics(member)
        assert np.array_equal(a.p_gold, b.p_gold)
        assert np.array_equal(a.correct, b.correct)
    assert alone.metrics == done[4].metrics
    assert RunStore(tmp_path).weights_path(spec.key).exists()
    assert not RunStore(tmp_path).checkpoint_path(spec.key).exists()


def test_a_key_depends_on_what_determines_the_run(done, profile):
    specs = plan(load_profile(profile))
    assert len({s.key for s in specs}) == len(specs)
    base = specs[0]
    for change in (
        {"seed": 7},
        {"engine": 99},
        {"training": base.training.model_copy(update={"epochs": 4})},
        {"data": base.data.model_copy(update={"evaluate": 41})},
        {"fingerprints": (("corpus/tweets", "other"), base.fingerprints[1])},
    ):
        assert replace(base, **change).key != base.key
    assert [s.key for s in plan(load_profile(profile), only=["source"])] == [s.key for s in specs]
    with pytest.raises(ProfileError, match=r"unknown comparison.*'sorce'.*did you mean 'source'"):
        plan(load_profile(profile), only=["sorce"])


def test_results_json_has_the_agreed_form(done, profile):
    value = results.summary(load_profile(profile), done, "abc")
    assert json.loads(json.dumps(value)) == value
    assert set(value) == {"profile", "wall_seconds", "training_seconds", "commit", "runs"}
    assert value["training_seconds"] == pytest.approx(sum(r.manifest["seconds"]["total"] for r in done), abs=0.1)
    run = value["runs"][4]
    assert set(run) == {"key", "comparison", "setting", "budget", "seed", "members"}
    assert run["setting"] == ["tweets", "amazon"]
    assert set(run["members"]["amazon"]) == {"n", "soi", "test", "ood", "majority", "bag_of_words"}
    assert set(run["members"]["amazon"]["test"]) == {"n", "accuracy", "macro_f1"}
    assert sum(run["members"]["amazon"]["soi"].values()) == run["members"]["amazon"]["n"]


def test_wall_time_counts_runs_side_by_side_once_and_breaks_not_at_all(done, profile):
    """Two side by side, the second ten seconds longer; a third within them; one on the next day."""
    times = [("01T10:00:00", 100.0), ("01T10:00:00", 110.0), ("01T10:00:30", 20.0), ("02T10:00:00", 5.0)]
    manifests = [{"started": f"2026-01-{began}+00:00", "seconds": {"total": total}} for began, total in times]
    runs = [replace(run, manifest=run.manifest | changed) for run, changed in zip(done, manifests, strict=False)]
    value = results.summary(load_profile(profile), runs, "abc")
    assert value["wall_seconds"] == 115.0
    assert value["training_seconds"] == 235.0


@pytest.fixture(scope="module")
def recorded(done, profile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "recorded" / "tiny"
    return results.record(load_profile(profile), done, folder)


def test_recorded_runs_verify_and_hold_no_text(done, recorded):
    assert results.verify_recorded(recorded) == len([p for p in recorded.rglob("*") if p.is_file()]) - 1
    from paper.datasets import load

    body = b"".join(p.read_bytes() for p in recorded.rglob("*") if p.is_file())
    texts = [t for m in ("tweets", "amazon") for t in load(m).splits["train"].take(24).text]
    assert not [t for t in texts if t.encode() in body]
    with pytest.raises(OutputExistsError, match="--force"):
        results.record(load_profile(recorded / results.PROFILE_COPY), done, recorded)
    again = results.record(load_profile(recorded / results.PROFILE_COPY), done, recorded, force=True)
    assert [p.name for p in again.parent.iterdir()] == ["tiny"]


def test_recorded_runs_can_be_continued_from(recorded, done, tmp_path):
    store = RunStore(tmp_path / "runs")
    assert results.reuse(recorded, store) == len(done)
    assert results.reuse(recorded, store) == 0
    assert [run.key for run in store] == sorted(run.key for run in done)


def test_tables_agree_with_the_runs(done, recorded):
    found = results.open_results("source", runs=recorded)
    assert found.members == ("tweets", "amazon")
    assert found.settings == (("tweets",), ("amazon",), ("tweets", "amazon"))
    assert found.seeds == (0, 1)
    assert found.settings_with("amazon") == [("amazon",), ("tweets", "amazon")]
    only = results.open_results("source", runs=recorded, seeds=[1])
    assert only.seeds == (1,)
    with pytest.raises(StoreError, match="no runs of this comparison"):
        results.open_results("source", runs=recorded, seeds=[5])
    with pytest.raises(StoreError, match="did you mean 'tweets'"):
        found.run(("tweet",))

    scores = score_table(found)
    row = scores[(scores["member"] == "amazon") & (scores["setting"] == "alone") & (scores["split"] == "test")].iloc[0]
    expected = np.mean([found.run(("amazon",), s).metrics["amazon"]["test"]["accuracy"] for s in (0, 1)])
    assert abs(row["accuracy"] - expected) < 6e-4
    assert row["low"] <= row["accuracy"] <= row["high"]

    shares = tables.soi_table(found)
    assert np.allclose(shares.sum(axis=1), 1, atol=2e-3)
    counts = tables.transition(found, "tweets", ("tweets", "amazon"))
    assert counts.to_numpy().sum() == 24
    alone = tables.soi_table(found, shares=False).loc[("tweets", "alone")]
    assert np.allclose(counts.sum(axis=1), alone)
