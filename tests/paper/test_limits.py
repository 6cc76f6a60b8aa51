"""What the comparison pages say about the limits of the recorded runs."""

from pathlib import Path

from paper import comparison
from paper.recorded import open_results

STANDARD = Path(__file__).parents[2] / "data/recorded/standard"


def test_limits_of_the_tasks() -> None:
    results = open_results("task", runs=STANDARD)
    levels = comparison.levels(results).set_index(["set", "dataset", "setting"]).sort_index()["value"]
    for dataset in ("entailment", "paraphrase"):
        assert levels["OOD", dataset].between(0.45, 0.6).all()  # near chance in every setting
        assert levels["test", dataset, "together, equal budget"] < 0.57
    assert "ood" not in results.splits("questions")


def test_limits_of_the_languages() -> None:
    results = open_results("lingual", runs=STANDARD)
    test, ood = (results.corpus("fa").splits[split] for split in ("test", "ood"))
    assert [len(set(test.group)), len(set(test.label)), len(set(ood.label))] == [17, 14, 12]
    assert len(set(results.corpus("en").splits["ood"].label)) == 14
    shares = comparison.map_shifts(results).query("contrast == 'diversity' and measure == 'share of ACE'")
    assert ((shares["low"] < 0) & (shares["high"] > 0)).all()
