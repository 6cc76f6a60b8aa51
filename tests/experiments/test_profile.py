"""Profiles: those that ship are valid and differ in size only; mistakes are named with the nearest right word."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from paper import ROOT
from soi_lib.errors import ProfileError
from soi_lib.runs.config import load_profile, profile_names


def edited(tmp_path, change) -> Any:
    values = yaml.safe_load((ROOT / "paper" / "profiles" / "quick.yaml").read_text(encoding="utf-8"))
    change(values)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", profile_names())
def test_profiles_that_ship(name):
    profile = load_profile(name)
    assert profile.name == name
    assert len(set(profile.seeds)) == len(profile.seeds)


def test_settings_of_the_quick_profile():
    profile = load_profile("quick")
    assert [len(s) for s in profile.comparisons["task"].member_sets()] == [1, 1, 1, 2, 2, 2, 3]
    assert [len(s) for s in profile.comparisons["source"].member_sets()] == [1, 1, 1, 3]
    assert profile.comparisons["lingual"].member_sets()[-1] == ("en", "fr", "fa")


def test_overrides_are_per_comparison(tmp_path):
    path = edited(tmp_path, lambda v: v["comparisons"]["lingual"].update(training={"batch_size": 8}))
    profile = load_profile(path)
    assert profile.training_of("lingual").batch_size == 8
    assert profile.training_of("task").batch_size == 16


def wrong(*path, value):
    def change(values):
        for name in path[:-1]:
            values = values[name]
        values[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong("sedes", value=[1]), r"field sedes: unknown field.*did you mean 'seeds'"),
        (wrong("training", "epoch", value=3), r"field training.epoch: unknown field.*did you mean 'epochs'"),
        (wrong("data", "trian", value=3), r"field data.trian: unknown field.*did you mean 'train'"),
        (wrong("comparisons", "task", "training", value={"epohcs": 2}), r"'epohcs'.*did you mean 'epochs'"),
        (lambda v: v["training"].update(epoch=v["training"].pop("epochs")), r"training.epoch: unknown.*'epochs'"),
        (lambda v: v["training"].pop("epochs"), r"field training.epochs: Field required\. Next"),
        (wrong("seeds", value=[0, 1, 0]), r"seed 0 is given twice"),
        (wrong("seeds", value=[-1]), r"seed -1 is negative"),
        (wrong("training", "epochs", value=65), r"field training.epochs:.*64; found 65"),
        (wrong("comparisons", "task", "members", value=["fr", "fr"]), r"a member is given twice"),
        (wrong("comparisons", value={}), r"field comparisons:"),
        (wrong("data", "train", value=0), r"field data.train:.*found 0"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    with pytest.raises(ProfileError, match=message) as raised:
        load_profile(edited(tmp_path, change))
    assert "\n" not in str(raised.value)


def test_files_that_are_no_profile(tmp_path):
    with pytest.raises(ProfileError, match=r"unknown profile; found 'quik'. Next: did you mean 'quick'"):
        load_profile("quik")
    with pytest.raises(ProfileError, match="no such profile"):
        load_profile(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ProfileError, match="is not UTF-8"):
        load_profile(latin)
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1", encoding="utf-8")
    with pytest.raises(ProfileError, match="cannot be read as YAML"):
        load_profile(broken)
    broken.write_text("- 1", encoding="utf-8")
    with pytest.raises(ProfileError, match="holds no fields"):
        load_profile(broken)
