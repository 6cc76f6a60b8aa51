"""Profiles: overrides, and errors that name a mistake and the nearest valid word."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from paper import ROOT
from soi_lib.errors import ProfileError
from soi_lib.runs.config import load_profile


def edited(tmp_path, change) -> Any:
    values = yaml.safe_load((ROOT / "paper" / "profiles" / "quick.yaml").read_text(encoding="utf-8"))
    change(values)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_comparisons_override_the_training(tmp_path):
    profile = load_profile(edited(tmp_path, lambda v: v["comparisons"]["lingual"].update(training={"batch_size": 8})))
    assert profile.training_of("lingual").batch_size == 8
    assert profile.training_of("task").batch_size == 16


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v: v.update(sedes=[1]), r"field sedes: .*'seeds'"),
        (lambda v: v["comparisons"]["task"].update(training={"epohcs": 2}), r"'epohcs'.*'epochs'"),
        (lambda v: v["training"].update(epochs=65), r"field training.epochs:.*64"),
        (lambda v: v.update(seeds=[0, 1, 0]), r"seeds: 0 is given twice"),
        (lambda v: v.update(stages={"subsets": ["FRG"]}), r"field stages.subsets.0: .*'FRGE'"),
        (lambda v: v.update(corpora={"fr": {"hub": "a/b", "revision": "main"}}), r"'main'"),
    ],
)
def test_mistakes_are_named(tmp_path, change, named):
    with pytest.raises(ProfileError, match=named) as raised:
        load_profile(edited(tmp_path, change))
    assert "\n" not in str(raised.value)


def test_files_that_are_not_profiles_are_named(tmp_path):
    with pytest.raises(ProfileError, match=r"'quik'.*'quick'"):
        load_profile("quik")
    for name, content in (("latin", "name: é".encode("latin-1")), ("broken", b"a: [1"), ("list", b"- 1")):
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(content)
        with pytest.raises(ProfileError, match=path.name):
            load_profile(path)
