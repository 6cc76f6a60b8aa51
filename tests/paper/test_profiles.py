"""Profiles: overrides, named mistakes, copies in place of the hub, and all runs of the paper on generated data."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from authors_data import MEMBERS, as_parquet, tiny_bert
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertModel

from paper import ROOT, comparison
from paper.claims.verdicts import CLAIMS, open_evidence
from soi_lib import files
from soi_lib.errors import CorpusError, ProfileError
from soi_lib.models.vocabulary import load_trimmed, remap
from soi_lib.runs.config import load_profile
from soi_lib.runs.run import do_run
from soi_lib.runs.spec import plan
from soi_lib.runs.store import RunStore


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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    for member in MEMBERS:
        as_parquet(member, folder / "data" / member)
    tiny_bert(folder / "bert-base-uncased")
    tiny_bert(folder / "multilingual-bert", layers=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOI_CACHE", str(folder / "cache"))
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield folder


def local(place, name: str = "paper", change=lambda values: None) -> Any:
    """Load profiles/paper.yaml with folders in place of the hub, one seed and two epochs."""
    values = yaml.safe_load((ROOT / "paper" / "profiles" / "paper.yaml").read_text(encoding="utf-8"))
    for kind, folder in (("corpora", place / "data"), ("encoders", place)):
        for member, source in values[kind].items():
            source.pop("hub", None), source.pop("revision", None)
            source["path"] = str(folder / member)
    values["seeds"] = [0]
    values["training"] |= {"epochs": 2, "learning_rate": 1e-3}
    change(values)
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return load_profile(path)


@pytest.fixture(scope="module")
def done(place):
    store = RunStore(place / "runs")
    return [do_run(replace(spec, keep_weights=spec.setting == ("twitter",)), store) for spec in plan(local(place))]


def test_every_run_of_the_paper_profile(done):
    assert [run.setting for run in done] == [
        ("entailment",), ("paraphrase",), ("sentiment",),
        ("entailment", "paraphrase"), ("entailment", "sentiment"), ("paraphrase", "sentiment"),
        ("entailment", "paraphrase", "sentiment"),
        ("twitter",), ("yelp",), ("imdb",), ("twitter", "yelp", "imdb"),
        ("en",), ("fr",), ("fa",), ("en", "fr", "fa"),
    ]  # fmt: skip
    for run in done:
        for member, metrics in run.metrics.items():
            assert metrics["n"] == sum(metrics["soi"].values()) == 40
            assert metrics["test"]["n"] == metrics["majority"]["test"]["n"] == 16
            assert metrics["ood"]["n"] == (17 if run.comparison == "lingual" else 18)
            dynamics = run.dynamics(member)
            assert dynamics.p_gold.shape == (2, 40)
            assert dynamics.meta.classes == len(MEMBERS[member][2])
            assert set(run.predictions(member)["split"]) == {"test", "ood"}
        assert "path" not in json.dumps(run.manifest)


def test_keys_depend_on_content_and_not_on_location(place, done):
    (place / "data" / "yelp").rename(place / "data" / "elsewhere")
    moved = local(place, "moved", lambda v: v["corpora"]["yelp"].update(path=str(place / "data" / "elsewhere")))
    assert [spec.key for spec in plan(moved)] == [run.key for run in done]
    (place / "data" / "elsewhere").rename(place / "data" / "yelp")
    mean = local(place, "mean", lambda v: v["encoders"]["bert-base-uncased"].update(pooling="mean"))
    assert not {spec.key for spec in plan(mean, only=["task"])} & {run.key for run in done}


def test_tasks_must_not_share_numbers_as_labels(place):
    def unnamed(values):
        for member in ("paraphrase", "sentiment"):
            values["corpora"][member]["labels"] = {0: 0, 1: 1, "negative": 0, "positive": 1}

    with pytest.raises(ProfileError, match="paraphrase and sentiment"):
        plan(local(place, "numbers", unnamed), only=["task"])


def test_a_dataset_may_have_no_ood_split(place):
    def smaller(values):
        values["corpora"]["paraphrase"] |= {"splits": {"ood": "missing"}}
        values["comparisons"] = {"task": values["comparisons"]["task"] | {"members": ["paraphrase"]}}

    with pytest.raises(CorpusError, match="no split for 'ood'"):
        plan(local(place, "missing", smaller))

    as_parquet("paraphrase", place / "three")
    (place / "three" / "OOD.parquet").unlink()
    change = lambda v: (smaller(v), v["corpora"]["paraphrase"].update(splits={}, path=str(place / "three")))  # noqa: E731
    (spec,) = plan(local(place, "three", change))
    run = do_run(spec, RunStore(place / "runs"))
    assert "ood" not in run.metrics["paraphrase"]
    assert set(run.predictions("paraphrase")["split"]) == {"test"}


def test_the_pooler_is_the_pretrained_one_and_is_trained(place, done):
    folder = place / "bert-base-uncased"
    texts = ["the twitter0a near 4", "a yelp1c"]
    tokens = AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
    full = BertModel.from_pretrained(folder).eval()
    trimmed, id_map = load_trimmed(folder, tokens["input_ids"].numpy(), pooler=True)
    ids = torch.from_numpy(remap(tokens["input_ids"].numpy(), id_map))
    with torch.no_grad():
        expected = full(**tokens).pooler_output
        found = trimmed(**{**tokens, "input_ids": ids}).pooler_output
    assert torch.equal(found, expected)
    assert trimmed.get_input_embeddings().num_embeddings < full.get_input_embeddings().num_embeddings
    assert load_trimmed(folder, tokens["input_ids"].numpy())[0].pooler is None

    (kept,) = (place / "runs" / "weights").iterdir()
    trained = load_file(kept)["encoder.pooler.dense.weight"]
    assert trained.shape == full.pooler.dense.weight.shape
    assert 0 < np.abs(trained.numpy() - full.pooler.dense.weight.detach().numpy()).max() < 0.1
