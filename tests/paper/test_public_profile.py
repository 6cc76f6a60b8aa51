"""The profiles `public` and `clinc`: copies replace the hub, and recorded runs are judged without their corpora."""

from __future__ import annotations

import pandas as pd

from paper import ROOT, comparison, repeat
from paper.claims.verdicts import CLAIMS, open_evidence
from soi_lib import files
from soi_lib.runs.config import load_profile
from soi_lib.runs.spec import plan

COLUMNS = {"mrpc": ("sentence1", "sentence2"), "rte": ("premise", "hypothesis"), "clinc150_small": ("utt",)}
LABELS = {"mrpc": [0, 1], "rte": ["entailment", "not_entailment"], "clinc150_small": ["translate", "oos"]}
SIZES = {"train": 24, "validation": 12, "test": 16}


def test_copies_of_the_rows_replace_the_hub(tmp_path, monkeypatch, wheels):
    """The copies are JSON lines and lack the out-of-distribution rows and the hidden test rows of the hub."""
    (tmp_path / "cache").mkdir()
    for name in ("packages", "encoders"):
        (tmp_path / "cache" / name).symlink_to(files.cache_dir() / name)
    monkeypatch.setenv("SOI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOI_DATA", str(tmp_path / "copies"))
    for name, columns in COLUMNS.items():
        (tmp_path / "copies" / name).mkdir(parents=True)
        for split in SIZES if name != "rte" else ("train", "validation"):
            rows = [[f"{split} row {i} of {name}, {part}" for part in columns] for i in range(SIZES[split])]
            label = "intent" if name == "clinc150_small" else "label"
            table = pd.DataFrame(rows, columns=list(columns)).assign(**{label: (LABELS[name] * 12)[: len(rows)]})
            table.to_json(tmp_path / "copies" / name / f"{split}.jsonl", orient="records", lines=True)
    specs = [spec for name in ("public", "clinc") for spec in plan(load_profile(name))]
    copied = {what for spec in specs for what, _ in spec.fingerprints}
    assert copied == {"encoder", "corpus/sentiment", *(f"corpus/{name}" for name in COLUMNS)}


def test_recorded_runs_are_judged_without_their_corpora(tmp_path, monkeypatch):
    monkeypatch.setenv("SOI_CACHE", str(tmp_path))
    monkeypatch.delenv("SOI_DATA", raising=False)
    evidence = open_evidence(ROOT / "data" / "recorded" / "public")
    found = next(claim.judge(evidence) for claim in CLAIMS if claim.id == "C3")
    assert set(found.table["task"]) == {"mrpc", "sentiment", "rte"}
    assert found.parts["similar tasks"] == "not tested"  # its pairs are missing
    assert comparison.score_of(evidence.comparisons["task"], "rte") == "AUC"
    intents = open_evidence(ROOT / "data" / "recorded" / "clinc").comparisons["user"]
    assert intents.classes("clinc150_small") == 151


def test_a_new_dataset_is_compared_with_the_mean_and_range_of_the_known_ones():
    def agreements(**found: float) -> pd.DataFrame:
        table = pd.DataFrame({"dataset": found.keys(), "agreement": found.values()})
        table = table.assign(low=table["agreement"] - 0.1, high=table["agreement"] + 0.1)
        return table.assign(mode="evaluation", score="category", runs_needed=1.0)

    held = repeat.held_out(agreements(a=0.4, b=0.6), agreements(b=0.6, within=0.5, above=0.9)).set_index("dataset")
    assert held["predicted"].to_dict() == {"within": 4.0, "above": 4.0}  # with 4 runs, an agreement of 0.5 reaches 0.8
    assert held["inside"].to_dict() == {"within": True, "above": False}
