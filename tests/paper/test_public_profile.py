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

from paper import ROOT
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
