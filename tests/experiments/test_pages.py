"""What the pages of results show besides their tables: moves beside their floor, and where runs came from."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from made_runs import World, make

from paper import ROOT, provenance, similarity
from paper.moves import moves, pair_moves, story
from paper.recorded import open_results, verify_recorded
from soi_lib.plots import caption, values

RECORDED = ROOT / "data" / "recorded" / "quick"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    world = World(n=80, gain=lambda member, setting, split: 0.05 if "paraphrase" in setting else -0.05)
    return make(tmp_path_factory.mktemp("made"), world, seeds=(0, 1), comparisons=("task",))["task"]


def test_a_transition_stands_beside_its_noise_floor_where_there_is_one(tasks):
    figure, told = moves(tasks, "sentiment", tasks.settings[-1])
    assert len(figure.axes) == 2
    assert "noise floor" in caption(figure)
    assert "when only the seed differs" in told
    one = replace(tasks, runs=tuple(run for run in tasks.runs if run.seed == 0))
    figure, told = moves(one, "sentiment", one.settings[-1])
    assert "noise floor" not in caption(figure)
    assert "seed" in told


def test_all_pairs_are_one_figure_and_all_datasets_another(tasks):
    figure, told = pair_moves(tasks)
    assert [ax.get_title(loc="left") for ax in figure.axes][:2] == [
        "entailment with paraphrase",
        "paraphrase with entailment",
    ]
    assert told.count("when only the seed differs") == 6
    one = replace(tasks, runs=tuple(run for run in tasks.runs if run.seed == 0))
    assert pair_moves(one)[0] is None
    assert values(story({"task": tasks}))["floor"].sum() == pytest.approx(1)
    assert values(story({"task": one})).to_numpy().sum() == 3 * 80


def test_the_most_similar_pair_is_named_with_what_it_gained(tasks):
    rows = [
        {"first": a, "second": b, "measure": "words", "value": value}
        for a, b, value in [
            ("entailment", "paraphrase", 0.4), ("entailment", "sentiment", 0.7), ("paraphrase", "sentiment", 0.2)
        ]
    ]  # fmt: skip
    told = similarity.similarity_told(tasks, pd.DataFrame(rows)).splitlines()
    assert told[0].startswith(
        "- By *words*, entailment+sentiment is the most similar pair (0.70); together it gained -0."
    )
    assert "paraphrase gained most together: +0.0" in told[1] or "paraphrase+sentiment gained most" in told[1]
    assert "cannot test" in told[-1]


def test_every_recorded_run_is_listed_with_its_origin():
    found = {name: open_results(name, runs=RECORDED, stages=True) for name in ("task", "source", "lingual")}
    table = provenance.run_table(found)
    assert sorted(table["key"]) == sorted(p.name for p in RECORDED.iterdir() if p.is_dir())
    assert table["commit"].str.fullmatch("[0-9a-f]{7}").all()
    assert (table["minutes"] > 0).all()
    assert set(table["threads"]) == {1}
    stages = provenance.stage_table(found)
    told = provenance.told(table, stages, verify_recorded(RECORDED))
    assert told.startswith(f"{verify_recorded(RECORDED)} recorded files were checked")
    assert f"{len(table)} runs and {stages['stages'].sum()} stages" in told


def test_stages_that_were_not_trained_cost_nothing(tmp_path):
    made = make(
        tmp_path, World(stages={("ACE", "subset"): 0.0, ("ACE", "random"): 0.0}, n=40), members=("tweets", "amazon")
    )
    origin = {"machine": {"device": "cpu", "cpu": "X", "threads": 1}, "commit": "a" * 40, "precision": "bf16",
              "seconds": {"total": 60.0}}  # fmt: skip
    stages = []
    for k, stage in enumerate(made["source"].stages):
        about = stage.about | origin | {"stage": stage.about["stage"] | ({"same_as": "other"} if k % 2 else {})}
        stages.append(replace(stage, about=about))
    table = provenance.stage_table({"source": replace(made["source"], stages=tuple(stages))})
    assert table[["stages", "trained", "minutes"]].iloc[0].tolist() == [18, 9, 9.0]
    assert provenance.stage_table({"source": replace(made["source"], stages=())}).empty
