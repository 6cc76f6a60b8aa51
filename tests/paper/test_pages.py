"""What pages show besides results: the origin and costs of runs, and counts as the authors' code defines them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from paper import ROOT, predecessor, provenance
from paper.build import COMPARISONS
from paper.grid_costs import cost_table
from paper.recorded import open_results
from soi_lib.dynamics import TrainingDynamics
from soi_lib.runs.config import load_profile

RECORDED = ROOT / "data" / "recorded" / "quick"


def test_every_recorded_run_is_listed_with_its_origin():
    found = {name: open_results(name, runs=RECORDED) for name in ("task", "source", "lingual")}
    table = provenance.run_table(found)
    assert sorted(table["key"]) == sorted(p.name for p in RECORDED.iterdir() if p.is_dir())
    assert table["commit"].str.fullmatch("[0-9a-f]{7}").all()
    assert (table["minutes"] > 0).all()
    folders = provenance.folder_table(RECORDED.parent).set_index(["folder", "comparison"])
    assert folders.loc["quick", "runs"].sum() == len(table)


def test_counts_of_given_histories():
    histories = ["000000", "111111", "010101", "101010", "000111", "110001", "101011"]
    correct = np.array([[c == "1" for c in h] for h in histories]).T
    p = np.where(correct, 0.9, 0.1).astype(np.float32)
    dynamics = TrainingDynamics(np.arange(7), np.zeros(7, np.int16), p, correct, {"classes": 2})
    assert predecessor.counts(dynamics) == {
        "n_train": 7, "flagged": 5, "never learned": 1, "1 event": 1, "2 events": 2, "3 or more": 1,
        "right at last": 3,
    }  # fmt: skip


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


@pytest.mark.parametrize("name", COMPARISONS.values())
def test_links_of_comparisons_also_work_in_their_copies(name):
    """The copy for this machine's runs is in another folder next to `notebooks`."""
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert links
    assert all(link.startswith("../") for link in links), links
