"""The entire profile of the paper, with generated data in the form of the authors' and a random BERT."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from authors_data import MEMBERS, as_parquet, tiny_bert
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertModel

from paper import ROOT
from soi_lib.errors import CorpusError, ProfileError
from soi_lib.models.vocabulary import load_trimmed, remap
from soi_lib.runs.config import load_profile
from soi_lib.runs.run import do_run
from soi_lib.runs.spec import plan
from soi_lib.runs.store import RunStore


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the nine datasets, two encoders and a cache."""
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
