"""The costs of the profiles: as many runs as the plan, numbers that follow the sizes, a page that shows them."""

from __future__ import annotations

import json

import pytest

from paper import ROOT
from paper.grid_costs import as_markdown, cost_table
from soi_lib.runs.config import load_profile


def test_every_run_is_counted_and_costs_follow_the_sizes():
    table = cost_table(*map(load_profile, ("quick", "standard", "paper")))
    assert table.groupby("profile", sort=False)["runs"].sum().to_dict() == {"quick": 15, "standard": 160, "paper": 75}
    quick = load_profile("quick")
    longer = quick.model_copy(update={"training": quick.training.model_copy(update={"epochs": 10})})
    twice = quick.model_copy(update={"seeds": (0, 1)})
    one, two, three = (cost_table(p).set_index("comparison") for p in (quick, longer, twice))
    assert two.loc["source", "updates"] == pytest.approx(2 * one.loc["source", "updates"], rel=0.01)
    assert one.loc["source", "PFLOP"] < two.loc["source", "PFLOP"] < 2 * one.loc["source", "PFLOP"]
    assert three.loc["source", "core-hours"] == pytest.approx(2 * one.loc["source", "core-hours"])
    assert (table["GPU-hours"] < table["core-hours"]).all()


def test_the_hours_of_a_core_are_those_that_were_recorded():
    """Within a third, for all runs of the recorded quick profile together."""
    folder = ROOT / "data" / "recorded" / "quick"
    manifests = [json.loads(p.read_text()) for p in folder.glob("*/manifest.json")]
    recorded = sum(m["seconds"]["total"] for m in manifests) / 3600
    assert cost_table(load_profile(folder / "profile.yaml"))["core-hours"].sum() == pytest.approx(recorded, rel=0.33)


def test_the_page_has_the_table():
    text = as_markdown(cost_table(load_profile("quick"), load_profile("paper")))
    lines = text.splitlines()
    assert len(lines) == 2 + 2 * 4
    assert len({line.count("|") for line in lines}) == 1
    assert "| **paper** | **all** | 75 |" in text
    assert "<!-- soi cost table -->" in (ROOT / "book" / "cluster.md").read_text(encoding="utf-8")
