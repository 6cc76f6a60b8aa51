"""The user's own dataset: guesses are printed, all mistakes come in one list, following a hint works."""

import json
import re
import shlex
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from own_data import csv, rows

from soi_lib.data.load import load_dataset
from soi_lib.data.places import DatasetSpec
from soi_lib.errors import CorpusError


def load(path: Path, **values):
    return load_dataset("a", DatasetSpec(path=str(path), strict=False, **values))


def sizes(found) -> dict[str, int]:
    return {split: len(part) for split, part in found.corpus.splits.items()}


def labelled(n: int, labels, start: int = 0) -> pd.DataFrame:
    frame = rows(n, start=start).rename(columns={"sentiment": "label"})
    return frame.assign(label=[labels[i % len(labels)] for i in range(n)])


def test_columns_are_guessed_and_every_guess_is_printed(tmp_path):
    path = csv(tmp_path / "mine.csv", rows(40).rename(columns={"text": "Text"}).assign(idx=range(100, 140)))
    found = load(path)
    assert found.decisions[:3] == (
        'text column: "Text" (guessed; give --text to choose)',
        'label column: "sentiment" (guessed; give --label to choose)',
        'id column: "idx" (guessed; give --id to choose)',
    )
    assert found.corpus.labels == ("0", "4")
    assert set(found.corpus.splits["train"].ids) <= {str(i) for i in range(100, 140)}
    named = load(path, text="Text", label="sentiment", id="idx")
    assert [s for s in named.decisions if "guessed" in s] == []
    assert named.corpus.fingerprint == found.corpus.fingerprint


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        (("pair_ID", "sentence_A", "sentence_B", "relatedness", "entailment_label"), (1, 2, 4)),
        (("gold_label", "sentence1", "sentence2"), (1, 2, 0)),
        (("v1", "v2"), (1, None, 0)),
        (("question", "sentence", "label"), (0, 1, 2)),
        (("Title", "Description", "Class Index"), (1, None, 2)),
    ],
)
def test_usual_names_are_known(tmp_path, columns, parts):
    frame = pd.DataFrame({name: [f"{name} {i}" for i in range(20)] for name in columns})
    text, pair, label = (None if part is None else columns[part] for part in parts)
    frame[label] = [i % 2 for i in range(20)]
    found = load(csv(tmp_path / "a.csv", frame)).corpus
    known = found.card.reading["columns"]
    assert (known["text"], known["text_pair"], known["label"]) == (text, pair, label)
    assert found.splits["train"].text[0].startswith(text)


def test_unusual_columns_must_be_named_and_the_hints_name_them(tmp_path):
    frame = rows(30).set_axis(["said of it", "mood"], axis=1).assign(day=[f"{i}.5." for i in range(30)])
    path = csv(tmp_path / "a.csv", frame)
    with pytest.raises(CorpusError) as one:
        load(path)
    options = dict(re.findall(r'--(text|label) ("[^"]*")', str(one.value)))
    assert {name: json.loads(value) for name, value in options.items()} == {"text": "said of it", "label": "mood"}
    named = load(path, text="said of it", label="mood")
    assert named.corpus.labels == ("0", "4")
    assert "unused columns: day" in named.decisions
    (tmp_path / "c.csv").write_text("text~label\n" + "a~b\n" * 20)
    with pytest.raises(CorpusError, match="--separator if the file has several columns"):
        load(tmp_path / "c.csv")
    (tmp_path / "b.csv").write_text(path.read_text().partition("\n")[2])
    with pytest.raises(CorpusError, match="--no-header if the first line is already a row"):
        load(tmp_path / "b.csv")
    assert sum(sizes(load(tmp_path / "b.csv", header=False, text="1", label="2")).values()) == 30


def test_ids_of_the_file_are_used_if_they_are_valid(tmp_path):
    frame = rows(20).to_dict("records")
    path = tmp_path / "a.jsonl"

    def write(ids):
        path.write_text("\n".join(json.dumps(row | {"id": i}) for row, i in zip(frame, ids, strict=True)))
        return path

    for ids in ([f"0{i}" for i in range(20)], list(range(20)), ["0a", *range(1, 20)], [*range(19), 1.5]):
        found = load(write(ids)).corpus
        held = {i for split in found.splits.values() for i in split.ids}
        assert held == set(map(str, ids))
        assert found.card.reading["columns"]["id"] == "id"
    for ids, message in (([*range(19), 3], "the id '3' is used twice"), ([*range(19), None], r"row 20 .* has no id")):
        with pytest.raises(CorpusError, match=message):
            load(write(ids), id="id")
        found = load(path)  # not named: row numbers, with a note
        assert any('column "id" cannot be used' in s for s in found.decisions)
        assert set(found.corpus.splits["train"].ids) <= {f"{i:06d}" for i in range(20)}
        assert found.corpus.card.reading["columns"]["id"] is None


def test_a_balanced_fifth_of_the_rows_is_held_out_whatever_their_order(tmp_path):
    frame = rows(200).assign(id=range(200))
    frame.loc[150:, "text"] = frame.loc[:49, "text"].to_numpy()  # repeated texts stay on one side
    one = load(csv(tmp_path / "one.csv", frame))
    two = load(csv(tmp_path / "two.csv", frame.sample(frac=1, random_state=3)))
    assert one.corpus.fingerprint == two.corpus.fingerprint
    test, train = one.corpus.splits["test"], one.corpus.splits["train"]
    assert 30 <= len(test) <= 50
    assert set(test.text) & set(train.text) == set()
    assert abs(test.label.mean() - 0.5) < 0.08
    assert any(f"{len(test)} of 200 rows" in s and "hash" in s for s in one.decisions)
    assert any("training texts occur more than once" in s for s in one.decisions)
    grouped = load(csv(tmp_path / "g.csv", rows(200).assign(doc=[i // 4 for i in range(200)])), group="doc").corpus
    assert set(grouped.splits["test"].group) & set(grouped.splits["train"].group) == set()


def test_a_text_in_two_groups_stays_in_training_whatever_the_order_of_the_rows(tmp_path):
    frame = rows(120).assign(doc=[i // 4 for i in range(120)])
    frame.loc[100:, "text"] = frame.loc[:19, "text"].to_numpy()
    one = load(csv(tmp_path / "a.csv", frame), group="doc", drop=("duplicates",)).corpus
    for split, part in one.splits.items():  # rows of this split first
        first = frame["text"].isin(part.text)
        moved = csv(tmp_path / f"{split}.csv", pd.concat([frame[first], frame[~first]]))
        other = load(moved, group="doc", drop=("duplicates",)).corpus
        assert set(other.splits["train"].text) == set(one.splits["train"].text)
    with pytest.raises(CorpusError, match="two roles"):
        load(csv(tmp_path / "a.csv", frame), text="text", text_pair="text")


def test_the_same_rows_are_the_same_dataset_in_every_format(tmp_path):
    """Also in formats without missing integers, or with 1.0 for 1."""
    from datasets import Dataset, DatasetDict

    frame = labelled(40, (0, 1)).assign(id=[f"k{i}" for i in range(40)], note=[None if i else 3 for i in range(40)])
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.assign(label=frame["label"].astype(float)).to_csv(tmp_path / "float.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t", encoding="utf-16")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.assign(label=frame["label"].astype(float)).to_parquet(tmp_path / "float.parquet")
    Dataset.from_pandas(frame).save_to_disk(str(tmp_path / "saved"))
    DatasetDict(train=Dataset.from_pandas(frame)).save_to_disk(str(tmp_path / "saved dict"))
    (tmp_path / "folder").mkdir()
    frame.to_csv(tmp_path / "folder" / "train.csv", index=False)
    for i, part in enumerate((frame[:25], frame[25:])):
        (tmp_path / "shards").mkdir(exist_ok=True)
        part.to_parquet(tmp_path / "shards" / f"train-0000{i}-of-00002.parquet")
    places = sorted(tmp_path.iterdir())
    assert len(places) == 10
    assert len({load(place).corpus.fingerprint for place in places}) == 1


def test_splits_of_a_folder_and_further_files(tmp_path):
    frame = rows(30).rename(columns={"text": "premise", "sentiment": "label"}).assign(hypothesis="so it is")
    (tmp_path / "folder").mkdir()
    csv(tmp_path / "folder" / "train.csv", frame[:20]), csv(tmp_path / "folder" / "dev.csv", frame[20:26])
    ood = csv(tmp_path / "o.csv", frame[26:])
    held = load(tmp_path / "folder", ood=str(ood))
    assert held.corpus.splits["train"].text_pair is not None
    assert sizes(held) == {"train": 20, "test": 6, "ood": 4}
    assert held.corpus.card.origin == "folder, ood o.csv"
    assert any("dev.csv is the test split" in s for s in held.decisions)
    csv(tmp_path / "folder" / "validation.csv", frame[20:26])
    with pytest.raises(CorpusError, match=r"several splits may be 'validation'; found validation, dev") as one:
        load(tmp_path / "folder")
    name = re.search(r"--split validation=(\w+)", str(one.value))[1]
    assert sizes(load(tmp_path / "folder", splits={"validation": name})) == {"train": 20, "test": 6}
    (tmp_path / "folder" / "train.csv").rename(tmp_path / "folder" / "everything.csv")
    with pytest.raises(CorpusError, match=r"no split for 'train'; found dev, everything, validation") as one:
        load(tmp_path / "folder", splits={"validation": ()})
    name = re.search(r"--split train=(\w+)", str(one.value))[1]
    assert sizes(load(tmp_path / "folder", splits={"validation": "dev", "train": name})) == {"train": 20, "test": 6}


def test_mistakes_come_in_one_list_and_following_the_hints_drops_the_rows(tmp_path):
    bad = pd.DataFrame({"text": ["", "fine"], "sentiment": [0, ""]}, dtype=object)
    frame = pd.concat([rows(40).astype(object), bad])
    path = csv(tmp_path / "a.csv", frame)
    test = csv(tmp_path / "t.csv", pd.concat([frame[:3], rows(4, start=90, labels=(0, 7))]))
    with pytest.raises(CorpusError) as one:
        load(path, test=str(test))
    said = str(one.value)
    assert said.startswith("4 problems: (1) ")
    assert re.search(r"a.csv: rows without text; found 1: row 41 \(line 42\)", said)
    assert re.search(r"a.csv: rows without label; found 1: row 42 ", said)
    assert re.search(r"t.csv: rows with labels that the training data do not contain \('7'\); found 2: row 5 ", said)
    assert re.search(r"t.csv: rows whose text occurs in an earlier split; found 3: row 1 .*, row 2 .*, row 3 ", said)
    assert "\n" not in said
    kinds = tuple(re.findall(r"--drop ([\w-]+)", said))
    found = load(path, test=str(test), drop=tuple(dict.fromkeys(kinds)))  # as in the hints
    assert sizes(found) == {"train": 40, "test": 2}
    assert "a.csv: 42 rows read, 40 used; left out: 1 without text; left out: 1 without label" in found.decisions
    assert any(s.startswith("t.csv: 7 rows read, 2 used; left out: 2 with labels") for s in found.decisions)


# --- labels ---------------------------------------------------------------------------------------------------------


def option(found, name: str) -> dict[str, str]:
    """Return the labels of the `--label-names` in a caution."""
    (sentence,) = [s for s in found.decisions if name in s and s.startswith("caution")]
    words = shlex.split(sentence[sentence.index("--label-names") :])
    return dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--label-names")


def test_equal_numbers_are_one_class_unless_named(tmp_path):
    path = csv(tmp_path / "a.csv", labelled(40, ("0", "1", "0.0", "1.0", "01")))
    found = load(path)
    assert found.corpus.labels == ("0", "1")
    cautions = [s for s in found.decisions if s.startswith("caution")]
    assert len(cautions) == 2
    assert '"01", "1", "1.0" are equal numbers' in cautions[1]
    assert load(path, labels={"1.0": "other"}).corpus.labels == ("0", "1", "other")
    whole = load(csv(tmp_path / "b.csv", labelled(40, ("1.0", "2.0"))))
    assert whole.corpus.labels == ("1", "2")
    assert not [s for s in whole.decisions if s.startswith("caution")]
    assert load(csv(tmp_path / "c.csv", labelled(40, ("001", "002")))).corpus.labels == ("001", "002")
    many = load(csv(tmp_path / "d.csv", labelled(60, list(range(12)))))
    assert many.corpus.labels == tuple(map(str, range(12)))  # in the order of numbers


def test_similar_labels_give_a_caution_and_the_hint_merges_them(tmp_path):
    labels = ("positive", "Positive", " positive", "negative", "NEGATIVE ", "neutral", "\u200bneutral\ufeff")
    path = csv(tmp_path / "a.csv", labelled(42, labels))
    found = load(path)
    assert len(found.corpus.labels) == 5
    names = option(found, '"positive"') | option(found, '"negative"')
    assert load(path, labels=names).corpus.labels == ("negative", "neutral", "positive")
    assert "caution: no row has the label 'postive' (--label-names)" in load(path, labels={"postive": "good"}).decisions
    composed = csv(tmp_path / "b.csv", labelled(42, ("caf\u00e9", "cafe\u0301", "bar")))
    assert len(load(composed, labels=option(load(composed), "case or spelling")).corpus.labels) == 2


@pytest.mark.parametrize("value", ["-", -1, "#N/A"])
def test_a_label_that_may_mean_no_label_gives_a_caution(tmp_path, value):
    frame = pd.DataFrame(labelled(40, (0, 1, value, 2)))
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    found = load(tmp_path / "a.jsonl")
    assert str(value) in found.corpus.labels
    names = option(found, "no label")
    assert names == {str(value): ""}
    left = load(tmp_path / "a.jsonl", labels=names, drop=("empty",))
    assert left.corpus.labels == ("0", "1", "2")
    assert sum(sizes(left).values()) == 30
    plain = load(csv(tmp_path / "b.csv", labelled(40, (-1, 1))))  # both are classes
    assert not [s for s in plain.decisions if s.startswith("caution")]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_lists_of_tokens_and_objects_are_rejected(tmp_path, suffix):
    to_json = partial(pd.DataFrame.to_json, orient="records", lines=True)
    write = {".jsonl": to_json, ".parquet": pd.DataFrame.to_parquet}[suffix]
    for name, value in (("text", ["some", "tokens"]), ("label", {"name": "yes"})):
        write(labelled(20, ("no", "yes")).assign(**{name: [value] * 20}), tmp_path / f"{name}{suffix}")
        with pytest.raises(CorpusError, match=f"column '{name}' does not hold plain values; found .* in row 1"):
            load(tmp_path / f"{name}{suffix}")
    assert load(csv(tmp_path / "a.csv", labelled(20, ("[/neg]", "[pos]")))).corpus.labels == ("[/neg]", "[pos]")


@pytest.mark.parametrize("form", ["saved", "parquet"])
@pytest.mark.parametrize("hidden", [True, False])
def test_label_names_in_the_file_and_hidden_test_labels(tmp_path, form, hidden):
    from datasets import ClassLabel, Dataset, DatasetDict

    parts = {}
    for split, n, start in (("train", 40, 0), ("validation", 12, 100), ("test", 10, 200)):
        frame = labelled(n, (0, 1), start)
        frame = frame.assign(label=-1) if split == "test" and hidden else frame
        parts[split] = Dataset.from_pandas(frame).cast_column("label", ClassLabel(names=["bad", "good"]))
        (tmp_path / "parquet").mkdir(exist_ok=True)
        parts[split].to_parquet(str(tmp_path / "parquet" / f"{split}.parquet"))
    DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    found = load(tmp_path / form)
    assert found.corpus.labels == ("bad", "good")
    expected = {"train": 40, "test": 12} if hidden else {"train": 40, "validation": 12, "test": 10}
    assert sizes(found) == expected
    assert any("hidden" in s for s in found.decisions) == hidden
    assert any("validation" in s and "is the test split" in s for s in found.decisions) == hidden
    named = load(tmp_path / form, labels={"0": "worse", "good": "better"})
    assert named.corpus.labels == ("better", "worse")


# --- which rows -----------------------------------------------------------------------------------------------------


def test_only_some_rows_are_used(tmp_path):
    frame = labelled(300, ("a", "b"))
    found = load(csv(tmp_path / "a.csv", frame.sort_values("label")), rows=60)
    assert sum(sizes(found).values()) == 60
    assert set(found.corpus.labels) == {"a", "b"}  # not the first of a sorted file
    assert any("60 of 300 train rows" in s for s in found.decisions)
    again = load(csv(tmp_path / "b.csv", frame.sample(frac=1, random_state=1)), rows=60)
    assert set(again.corpus.splits["train"].text) == set(found.corpus.splits["train"].text)
    test = csv(tmp_path / "t.csv", labelled(80, ("a", "b"), 500))
    assert sizes(load(tmp_path / "a.csv", test=str(test), rows=50)) == {"train": 50, "test": 50}
    # with few rows of many classes, some classes are lost, which is not an error
    many = csv(tmp_path / "m.csv", labelled(300, [f"c{i}" for i in range(50)]))
    found = load(many, rows=100, test=str(csv(tmp_path / "n.csv", labelled(100, [f"c{i}" for i in range(50)], 500))))
    assert sizes(found)["test"] < 100
    assert any("with labels that --rows left out" in s for s in found.decisions)
