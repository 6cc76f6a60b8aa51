"""What the page on further training says, held against runs whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_runs import World, make

from paper import stage_reading
from paper.figures import gain_heatmap
from paper.stage_tables import stage_summary
from soi_lib.plots import caption, interval_plot

GAINS = {
    ("UNE+FRGE", "subset"): 0.12,
    ("UNE+FRGE", "random"): 0.01,
    ("UNE+FRGE", "all"): 0.01,
    ("ACE", "subset"): -0.12,
    ("ACE", "random"): 0.0,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    world = World(stages=GAINS, n=60)
    return make(tmp_path_factory.mktemp("made"), world, members=("tweets", "amazon"))


def test_sentences_name_what_helps_and_what_harms(found):
    summary = stage_summary(list(found.values()))
    told = stage_reading.summary_told(summary)
    first, second = told.splitlines()
    assert first.startswith("- **Test sets**, over its random control, gain: UNE+FRGE (+0.111")
    assert "lose: ACE (-0.116" in first
    assert second.startswith("- **Out of distribution**")
    gains = stage_reading.all_gains(found)
    where = stage_reading.where_told(gains).splitlines()
    assert where[0] == (
        "- Test sets: in 4 of 8 cases a subset beats its random control with an interval above zero, more than chance "
        "gives (0.2); in 4 it is worse. Most often better: UNE+FRGE (4, +11.1 points). Most often worse: ACE (4, -11.6 "
        "points)."
    )


def test_the_figures_show_every_case(found):
    gains = stage_reading.all_gains(found)
    sizes = stage_reading.sizes(gains)
    assert sizes.index.tolist() == ["tweets, alone", "amazon, alone", "tweets, tweets+amazon", "amazon, tweets+amazon"]
    assert (sizes == 40).all(axis=None)
    part = gains[(gains["against"] == "random") & (gains["split"] == "test")]
    figure = gain_heatmap(part, title="Made")
    said = caption(figure)
    assert "above (blue) in 4 of 8 cells and below (orange) in 4" in said
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert len(shown) == 8
    assert all(float(text.replace("−", "-")) == pytest.approx(11, abs=1) for text in shown[::2])
    cases = stage_reading.summary_cases(stage_summary(list(found.values())), "OOD")
    assert "are above zero and" in caption(interval_plot(cases))


def test_training_on_the_subset_only(found):
    stages = [
        replace(s, identity=s.identity | {"stage": s.identity["stage"] | {"start": "pretrained"}})
        for s in found["source"].stages
        if len(s.setting) == 1 and s.kind[1] == "UNE+FRGE"
    ]
    gains = stage_reading.all_gains({"source": replace(found["source"], stages=tuple(stages))})
    table = stage_reading.subset_only(gains)
    assert table["member"].tolist() == ["tweets", "tweets", "amazon", "amazon"]
    row = table.iloc[0]
    assert row["on the subset"] - row["on all"] == pytest.approx(0.12, abs=0.01)
    assert row["on the subset"] - row["on random"] == pytest.approx(row["difference"])
    told = stage_reading.subset_only_told(table)
    assert "The subset is worse than random in 0 of 2 members and better in 2 (tweets and amazon)." in told
    assert stage_reading.subset_only_told(table.iloc[:0]) == "Nothing was trained on a subset alone here."
