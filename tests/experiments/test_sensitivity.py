"""How shares depend on choices: read off the same runs, against the plain definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_runs import MEMBERS, World, make

from paper import sensitivity
from paper.figures import share_areas, share_dots
from soi_lib.analysis.soi import categorize
from soi_lib.errors import RangeError, StoreError
from soi_lib.plots import values

NAMES = sensitivity.NAMES


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    world = World(pace=lambda member, setting: 1.5 + (len(setting) > 1), n=200)
    return make(tmp_path_factory.mktemp("runs"), world)["source"]


@pytest.fixture(scope="module")
def alone(results):
    return replace(results, runs=tuple(run for run in results.runs if run.seed == 0))


def test_a_shorter_record_is_the_first_epochs(results) -> None:
    dyn = results.run(("tweets",)).dynamics("tweets")
    for epochs in range(1, dyn.epochs + 1):
        np.testing.assert_array_equal(sensitivity.truncated(dyn, epochs), categorize(dyn.correct[:epochs]))
        np.testing.assert_array_equal(sensitivity.truncated(dyn, epochs, 0.2), categorize(dyn.correct[:epochs], 0.2))
    with pytest.raises(RangeError, match="1 to 8"):
        sensitivity.truncated(dyn, 9)


def test_shares_by_epochs(results) -> None:
    table = sensitivity.by_epochs(results)
    assert len(table) == 3 * 2 * 3 * 7  # members, settings, seeds, epochs 2 to 8
    np.testing.assert_allclose(table[NAMES].sum(axis=1), 1)
    last = table[table["epochs"] == 8]
    assert (last["settled"] == 1).all()
    for run in results.runs:
        for member in run.setting:
            name = "alone" if len(run.setting) == 1 else "all three"
            row = last[(last["member"] == member) & (last["setting"] == name) & (last["seed"] == run.seed)]
            stored = run.metrics[member]
            np.testing.assert_allclose(row[NAMES].to_numpy()[0], [stored["soi"][n] / stored["n"] for n in NAMES])
    for _, part in table.groupby(["member", "setting", "seed"]):
        assert (np.diff(part["ACE"]) <= 1e-12).all()
        assert (np.diff(part["UNE"]) <= 1e-12).all()
        assert (np.diff(part["FRGE_1"] + part["FRGE_2"]) >= -1e-12).all()
    text = sensitivity.epochs_told(table)
    share = table[table["epochs"] == 8]["ACE"].mean()
    assert f"{share:.1%} with 8 (mean)" in text


def test_settings_can_be_chosen(results) -> None:
    table = sensitivity.by_epochs(results, settings=[("tweets",)])
    assert table[["member", "setting"]].drop_duplicates().to_numpy().tolist() == [["tweets", "alone"]]


def test_shares_by_early(results) -> None:
    table = sensitivity.by_early(results)
    assert len(table) == 3 * 2 * 3 * 9
    for _, part in table.groupby(["member", "setting", "seed"]):
        assert (np.diff(part["ELE"]) >= -1e-12).all()
        for name in ("ACE", "UNE", "FRGE_1", "FRGE_2"):
            assert part[name].nunique() == 1
        assert (part["ELE"] + part["LLE"]).round(12).nunique() == 1
    middle = table[table["early"] == 0.5].reset_index(drop=True)
    np.testing.assert_allclose(middle[NAMES], sensitivity.by_seed(results)[NAMES])
    ends = table[table["early"] == 0.9][["ELE", "LLE"]].mean()
    assert sensitivity.early_told(table).endswith(f"with 0.9 they are {ends['ELE']:.1%} and {ends['LLE']:.1%}.")


def test_agreement_between_seeds(results, alone) -> None:
    table = sensitivity.seed_agreement(results)
    assert len(table) == 6
    assert (table["low"] > 0).all()
    assert ((table["low"] < table["kappa"]) & (table["kappa"] < table["high"])).all()
    row = table.iloc[0]
    runs = [categorize(results.run(("tweets",), seed).dynamics("tweets")) for seed in results.seeds]
    assert row["same"] == pytest.approx(np.mean((runs[0] == runs[1]) & (runs[1] == runs[2])), abs=1e-4)
    text = sensitivity.seeds_told(table)
    assert f"kappa is {table['kappa'].min():.2f} to {table['kappa'].max():.2f}" in text
    one = sensitivity.seed_agreement(alone)
    assert one[["same", "kappa", "spread"]].isna().to_numpy().all()
    assert "One seed" in sensitivity.seeds_told(one)


def test_the_effect_by_epochs(results, alone) -> None:
    table = sensitivity.effect(results)
    assert len(table) == 3 * 7 * 6
    assert (table["low"] <= table["difference"]).all()
    last = table[table["epochs"] == 8].set_index(["member", "category"])
    assert all(last.loc[(m, "UNE"), "difference"] < 0 for m in MEMBERS["source"])  # together they are learned faster
    for member in MEMBERS["source"]:
        found = [
            np.mean([r.metrics[member]["soi"]["ACE"] for r in results.runs if r.setting == s]) / 200
            for s in ((member,), results.members)
        ]
        assert last.loc[(member, "ACE"), "difference"] == pytest.approx(found[1] - found[0], abs=1e-4)
    sure = last["interval without zero"] & (last["difference"].abs() >= 0.01)
    assert f"{sure.sum()} of 18 shares differ" in sensitivity.effect_told(table)
    assert len(sensitivity.effect(alone, epochs=[2, 8])) == 36
    flat = table.assign(**{"interval without zero": False})
    assert "no share differs" in sensitivity.effect_told(flat)


def test_a_difference_that_turns_is_named(results) -> None:
    table = sensitivity.effect(results, epochs=[4, 8])
    table["interval without zero"] = (table["member"] == "tweets") & (table["category"] == "UNE")
    table["difference"] = -0.1
    assert "1 of 18 shares differ" in sensitivity.effect_told(table)
    assert "none of them has the opposite sign" in sensitivity.effect_told(table)
    table.loc[table["epochs"] == 4, "difference"] = 0.1
    assert "1 of them have the opposite sign beyond the interval: UNE of tweets." in sensitivity.effect_told(table)


def test_recording_modes(results, tmp_path) -> None:
    world = World(pace=lambda member, setting: 1.5 + (len(setting) > 1), n=200, record="eval")
    evaluated = make(tmp_path, world, seeds=[0, 1])["source"]
    table = sensitivity.record_modes(results, evaluated)
    assert table["mode"].tolist() == ["train", "eval"] * 6
    assert (table["seeds"] == 2).all()
    np.testing.assert_allclose(table[NAMES].sum(axis=1), 1)
    first = [results.run(("tweets",), s).metrics["tweets"]["soi"]["ACE"] / 200 for s in (0, 1)]
    assert table["ACE"].iloc[0] == pytest.approx(np.mean(first))
    assert table["same"].notna().tolist() == [False, True] * 6
    assert (table["kappa"].dropna() > 0).all()
    assert "are in the same category as when recorded in the training pass" in sensitivity.modes_told(table)
    with pytest.raises(StoreError, match="another mode"):
        sensitivity.record_modes(results, results)
    others = replace(evaluated, runs=tuple(replace_seed(run, 9) for run in evaluated.runs))
    with pytest.raises(StoreError, match="no setting and seed"):
        sensitivity.record_modes(results, others)


def replace_seed(run, seed):
    return replace(run, manifest={**run.manifest, "identity": {**run.manifest["identity"], "seed": seed}})


def test_figures_take_these_tables(results, alone) -> None:
    epochs = sensitivity.by_epochs(results)
    drawn = [ax for ax in share_areas(epochs).axes if ax.collections]
    assert [len(ax.collections) for ax in drawn] == [6] * 6
    early = values(share_areas(sensitivity.by_early(alone), "early"))
    assert (early["early"].min(), early["early"].max()) == (0.1, 0.9)
    assert len(values(share_dots(sensitivity.by_seed(results)))) == 6 * 18
