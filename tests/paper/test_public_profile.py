"""The profiles `public` and `clinc`: the same rows are the same datasets from folders and from the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fake_hub import COMMIT, serve

from paper import ROOT, comparison, repeat
from paper.claims.verdicts import CLAIMS, open_evidence
from soi_lib import files
from soi_lib.runs.config import load_profile
from soi_lib.runs.spec import plan

COLUMNS = {"mrpc": ("sentence1", "sentence2"), "rte": ("premise", "hypothesis"), "clinc150_small": ("utt",)}
LABELS = {"mrpc": [0, 1], "rte": ["entailment", "not_entailment"], "clinc150_small": ["translate", "oos"]}
SIZES = {"train": 24, "validation": 12, "test": 16}
CHILD = """
import json, sys
import paper
from soi_lib.runs.config import load_profile
from soi_lib.runs.spec import plan
found = {}
for path in sys.argv[1:]:
    found |= dict(pair for spec in plan(load_profile(path)) for pair in spec.fingerprints)
print(json.dumps(found))
"""


def table(name: str, split: str) -> pd.DataFrame:
    rows = [[f"{split} row {i} of {name}, {part}" for part in COLUMNS[name]] for i in range(SIZES[split])]
    label = "intent" if name == "clinc150_small" else "label"
    return pd.DataFrame(rows, columns=list(COLUMNS[name])).assign(**{label: (LABELS[name] * 12)[: len(rows)]})


def fill_folder(root: Path) -> None:
    """JSON lines, without the out-of-distribution rows and the hidden test rows that the hub has."""
    for name in COLUMNS:
        (root / name).mkdir(parents=True)
        for split in SIZES if name != "rte" else ("train", "validation"):
            table(name, split).to_json(root / name / f"{split}.jsonl", orient="records", lines=True)


def fill_hub(root: Path) -> None:
    """Parquet files as the hub has them: RTE with a configuration, other columns, classes as numbers."""
    from datasets import ClassLabel, Dataset

    for name, repository in (("mrpc", "Paraphrase"), ("clinc150_small", "English")):
        folder = root / "datasets" / "Shayanvsf" / repository / "data"
        folder.mkdir(parents=True)
        for split in SIZES:
            table(name, split).to_parquet(folder / f"{split}-00000-of-00001.parquet", index=False)
        other = table(name, "test").map(lambda value: f"other {value}" if str(value).startswith("test") else value)
        other.to_parquet(folder / "OOD-00000-of-00001.parquet", index=False)
    glue = root / "datasets" / "nyu-mll" / "glue"
    (glue / "rte").mkdir(parents=True)
    lines = ["---", "configs:", "- config_name: rte", "  data_files:"]
    for split in SIZES:
        rows = table("rte", split).set_axis(["sentence1", "sentence2", "label"], axis=1)
        codes = [-1] * len(rows) if split == "test" else rows["label"].map(LABELS["rte"].index)
        part = Dataset.from_pandas(rows.assign(label=codes), preserve_index=False)
        part.cast_column("label", ClassLabel(names=LABELS["rte"])).to_parquet(str(glue / "rte" / f"{split}.parquet"))
        lines += [f"  - split: {split}", f"    path: rte/{split}.parquet"]
    (glue / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


@pytest.fixture
def cache(tmp_path, monkeypatch, wheels) -> Path:
    """A cache of its own with the packages and encoders that were fetched."""
    (tmp_path / "cache").mkdir()
    for name in ("packages", "encoders"):
        (tmp_path / "cache" / name).symlink_to(files.cache_dir() / name)
    monkeypatch.setenv("SOI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_copy_of_the_rows_gives_the_fingerprints_of_the_hub(tmp_path, cache, monkeypatch):
    fill_folder(tmp_path / "copies")
    fill_hub(tmp_path / "hub")
    monkeypatch.setenv("SOI_DATA", str(tmp_path / "copies"))
    specs = [spec for name in ("public", "clinc") for spec in plan(load_profile(name))]
    copied = {what: found for spec in specs for what, found in spec.fingerprints}
    assert set(copied) == {"encoder", "corpus/sentiment", *(f"corpus/{name}" for name in COLUMNS)}

    written = []
    for name in ("public", "clinc"):  # the hub here has one commit
        text = (ROOT / "paper" / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
        for source in load_profile(name).corpora.values():
            text = text.replace(str(source.revision), COMMIT)
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        written.append(str(tmp_path / f"{name}.yaml"))
    with serve(tmp_path / "hub") as (address, seen):
        here = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "SOI_DATA": ""}
        command = [sys.executable, "-c", CHILD, *written]
        done = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == copied
    assert any("Paraphrase" in one for one in seen)


def test_recorded_runs_are_judged_where_their_corpora_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    monkeypatch.delenv("SOI_DATA", raising=False)
    evidence = open_evidence(ROOT / "data" / "recorded" / "public")
    found = next(claim.judge(evidence) for claim in CLAIMS if claim.id == "C3")
    assert set(found.table["task"]) == {"mrpc", "sentiment", "rte"}
    assert found.parts["similar tasks"] == "not tested"  # the pairs that the rule names are not there
    assert comparison.score_of(evidence.comparisons["task"], "rte") == "AUC"
    intents = open_evidence(ROOT / "data" / "recorded" / "clinc").comparisons["user"]
    assert intents.classes("clinc150_small") == 151


def test_a_new_dataset_is_held_against_the_mean_and_the_range_of_the_known_ones():
    def agreements(**found: float) -> pd.DataFrame:
        rows = [
            {"dataset": name, "agreement": value, "low": value - 0.1, "high": value + 0.1}
            for name, value in found.items()
        ]
        return pd.DataFrame(rows).assign(mode="evaluation", score="category", runs_needed=1.0)

    held = repeat.held_out(agreements(a=0.4, b=0.6), agreements(b=0.6, within=0.5, above=0.9)).set_index("dataset")
    assert held["predicted"].to_dict() == {"within": 4.0, "above": 4.0}  # a mean of .5 reaches .8 with four
    assert held["inside"].to_dict() == {"within": True, "above": False}
