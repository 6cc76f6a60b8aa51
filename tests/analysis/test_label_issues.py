"""Label issues: planted wrong labels rank far above chance; ties, averages over seeds and the command."""

import json

import numpy as np
import pandas as pd
import pytest
import synthetic
from sklearn.metrics import average_precision_score

from soi_lib import SOI, TrainingDynamics, data_map
from soi_lib.analysis.label_issues import DEFAULT_RULE, RULES, label_issues, margins
from soi_lib.errors import FormatError, RangeError

N, RATE = 1000, 0.1


def average_precision(ranking: pd.DataFrame, wrong: set[object]) -> float:
    return float(average_precision_score([i in wrong for i in ranking["id"]], -np.arange(len(ranking))))


def with_flips(classes: int, seed: int = 0, *, logits: bool = True) -> tuple[TrainingDynamics, set[object]]:
    """Make dynamics with a tenth of the labels flipped, and return them with the ids of the flipped examples.

    The model learns the true label, with noise, and towards the end some of the flipped one.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, N)
    gold = truth.copy()
    flipped = rng.choice(N, int(RATE * N), replace=False)
    gold[flipped] = (truth[flipped] + rng.integers(1, classes, len(flipped))) % classes
    clean = synthetic.learn(N, 8, seed=seed, corpus=seed)
    ease = np.log(clean.p_gold / (1 - clean.p_gold)).astype(np.float64)  # the margin of the true label
    scores = rng.normal(0, 0.4, (8, N, classes))
    np.put_along_axis(scores, np.broadcast_to(truth[None, :, None], (8, N, 1)), ease[..., None], axis=2)
    scores[:, np.arange(N), gold] += np.linspace(0, 1.5, 8)[:, None]  # learned by heart
    odds = np.exp(scores - scores.max(2, keepdims=True))
    p = (odds / odds.sum(2, keepdims=True))[:, np.arange(N), gold].astype(np.float32)
    kept = scores.astype(np.float32) if logits else None
    dyn = TrainingDynamics(np.arange(N) * 7, gold, p, scores.argmax(2) == gold, {"classes": classes}, kept)
    return dyn, set((flipped * 7).tolist())


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("rule", RULES)
def test_flipped_labels_are_found_far_above_chance(rule, classes):
    dyn, wrong = with_flips(classes)
    floor = 4 * RATE if rule == DEFAULT_RULE else 2 * RATE  # RATE is the average precision of a random order
    assert average_precision(label_issues(dyn, rule), wrong) > floor
    shuffled = set(np.random.default_rng(1).permutation(dyn.ids)[: len(wrong)].tolist())
    assert average_precision(label_issues(dyn, rule), shuffled) < 1.6 * RATE


def test_several_seeds_are_averaged_over_the_examples_they_share():
    runs = [with_flips(3, seed)[0] for seed in (0, 1)]
    runs = [TrainingDynamics(r.ids, runs[0].gold, r.p_gold, r.correct, r.meta, r.logits) for r in runs]
    both = label_issues([runs[0], runs[1].subset(runs[1].ids[:600])]).set_index("id")
    assert len(both) == 600
    single = [label_issues(run).set_index("id").loc[both.index] for run in runs]
    for column in ("score", "confidence", "variability", "correctness"):
        np.testing.assert_allclose(both[column], (single[0][column] + single[1][column]) / 2, rtol=1e-6)
    assert both["score"].is_monotonic_decreasing
    agreed = single[0]["soi"] == single[1]["soi"]
    assert (both["soi"][agreed] == single[0]["soi"][agreed]).all()


def test_columns_of_the_ranking():
    dyn, _ = with_flips(3)
    ranking = label_issues(dyn)
    assert list(ranking) == [
        "id", "gold", "given", "suggested", "score", "confidence", "variability", "correctness", "soi",
    ]  # fmt: skip
    by_id = ranking.sort_values("id").reset_index(drop=True)
    expected = data_map(dyn)
    for name in ("id", "confidence", "variability", "correctness", "soi"):
        np.testing.assert_array_equal(by_id[name], expected[name])
    assert by_id["given"].tolist() == [str(g) for g in dyn.gold]
    assert ranking["score"].is_monotonic_decreasing
    assert set(ranking.loc[ranking["suggested"].notna(), "suggested"]) <= {"0", "1", "2"}
    agreed = ranking["suggested"].isna()
    assert (ranking.loc[~agreed, "suggested"] != ranking.loc[~agreed, "given"]).all()


def test_the_order_of_examples_does_not_matter_and_ties_go_by_id():
    dyn, _ = with_flips(2)
    order = np.random.default_rng(3).permutation(N)
    again = dyn.subset(dyn.ids[order].tolist())
    for rule in RULES:
        pd.testing.assert_frame_equal(label_issues(dyn, rule), label_issues(again, rule))
    same = TrainingDynamics(["b", "c", "a"], [0, 1, 0], np.full((2, 3), 0.5), np.zeros((2, 3), bool))
    for rule in RULES:
        assert label_issues(same, rule)["id"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("rule", RULES)
def test_one_epoch_is_enough_and_certain_predictions_have_finite_scores(rule):
    p = np.array([[0.9, 0.1, 0.6]], np.float32)
    ranking = label_issues(TrainingDynamics([1, 2, 3], [0, 1, 0], p, p > 0.5), rule)
    assert ranking["id"].iloc[0] == 2
    sure = label_issues(TrainingDynamics([3, 1, 2], [0, 1, 0], np.ones((4, 3)), np.ones((4, 3), bool)), rule)
    assert sure["id"].tolist() == [1, 2, 3]
    assert np.isfinite(pd.concat([ranking["score"], sure["score"]])).all()
    assert sure["suggested"].isna().all()


def test_margins_of_two_classes_need_no_logits():
    dyn, _ = with_flips(2)
    without = TrainingDynamics(dyn.ids, dyn.gold, dyn.p_gold, dyn.correct, dyn.meta)
    np.testing.assert_allclose(margins(without), margins(dyn), rtol=1e-3, atol=1e-4)
    assert label_issues(without)["suggested"].equals(label_issues(dyn)["suggested"])


def test_many_classes_without_logits():
    dyn, wrong = with_flips(5, logits=False)
    ranking = label_issues(dyn)
    assert ranking["suggested"].isna().all()
    assert average_precision(ranking, wrong) > 4 * RATE
    with pytest.raises(FormatError, match="5 classes"):
        label_issues(dyn, "margin")
    with pytest.raises(RangeError, match="'confidence'"):
        label_issues(dyn, "confidense")


@pytest.fixture
def saved(tmp_path):
    dyn, _ = with_flips(2)
    return dyn, dyn.save(tmp_path / "made.parquet")


def test_command_prints_the_head_of_the_ranking(soi, saved):
    dyn, path = saved
    told = json.loads(soi("label-issues", path, "--json", "--top", 3)[0], parse_constant=pytest.fail)
    expected = label_issues(dyn).head(3)
    assert (told["n"], told["rule"]) == (N, DEFAULT_RULE)
    assert [row["id"] for row in told["label_issues"]] == expected["id"].tolist()
    assert [row["rank"] for row in told["label_issues"]] == [1, 2, 3]
    assert [row["soi"] for row in told["label_issues"]] == [SOI(code).name for code in expected["soi"]]
    out, err = soi("label-issues", path)
    assert err == ""
    assert len(out.splitlines()) == 21
    margin = json.loads(soi("label-issues", path, "--rule", "margin", "--json")[0])
    assert [row["id"] for row in margin["label_issues"]] == label_issues(dyn, "margin").head(20)["id"].tolist()


def test_command_shows_texts_and_writes_the_whole_ranking(soi, refused, saved, tmp_path):
    dyn, path = saved
    source, out_file = tmp_path / "mine.csv", tmp_path / "ranking.csv"
    frame = pd.DataFrame({"score": "mine", "text": [f"text of {i}" for i in dyn.ids[::-1]], "id": dyn.ids[::-1]})
    frame.to_csv(source, index=False)
    out, err = soi("label-issues", path, "--from", source, "--top", 2)
    assert f"text of {label_issues(dyn)['id'][0]}" in out
    assert "column 'id'" in err
    words = ("label-issues", path, "--from", source, "--text", "text", "--text", "score", "--out", out_file, "--quiet")
    assert soi(*words)[1] == ""
    ranking = pd.read_csv(out_file)
    assert ranking["id"].tolist() == label_issues(dyn)["id"].tolist()
    assert ranking["text"].tolist() == [f"text of {i}" for i in ranking["id"]]
    assert set(ranking["score (file)"]) == {"mine"}
    for words, named in (
        (("--from", source, "--text", "texts"), "'text'"),
        (("--from", source, "--id", "key"), "'key'"),
        (("--text", "text"), "--from"),
        (("--rule", "margins"), "'margin'"),
        (("--out", tmp_path / "ranking.xlsx"), r"\.csv \.tsv"),
    ):
        refused(named, "label-issues", path, *words)
