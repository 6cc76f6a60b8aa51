"""Load a corpus: read rows from a file, a folder or the hub, and check them.

Everything that was guessed, chosen or left out is a sentence in `LoadedDataset.decisions`, to be printed before
training. All problems are raised as one list, with file and row. The same rows give the same corpus, with the same
fingerprint, wherever they come from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soi_lib.data.columns import (
    NO_LABEL,
    OPTIONS,
    READERS,
    cautions,
    choose_columns,
    equal_numbers,
    label_order,
)
from soi_lib.data.dataset import SPLITS, Card, Corpus, Split, assign, fingerprint, hashed, id_order, is_text, normalise
from soi_lib.data.places import DatasetSpec, Drop
from soi_lib.data.table_files import Table, some, tables_of
from soi_lib.errors import CorpusError, raise_all

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = 0.2
"""The share of the training rows that is held out for testing if no test rows are given."""
FEWEST = 10
"""The minimum number of training rows."""


@dataclass(frozen=True)
class LoadedDataset:
    """A loaded dataset: its corpus, its spec (with the commit of a hub dataset), and the decisions made."""

    corpus: Corpus
    spec: DatasetSpec
    decisions: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name in a comparison."""
        return self.corpus.name


def load_dataset(name: str, spec: DatasetSpec) -> LoadedDataset:
    """Read and check a dataset.

    Args:
        name: its name in a comparison, in files and in messages.
        spec: where it is and how to read it; everything that it does not name is guessed.

    Returns:
        The dataset with the splits `train`, `test` and, if there are such rows, `validation` and `ood`. Without test
        rows, the validation rows are the test split; without either, a fifth of the training rows is held out.

    Raises:
        CorpusError: lists everything that is wrong, where it is, and the options that help.
    """
    work = _Loading(name, spec)
    work.choose_test()
    work.name_labels()
    work.drop_incomplete_rows()
    work.check_training()
    work.take_rows()
    labels = label_order(work.train["label"])
    work.drop_unknown_labels(labels)
    work.drop_cross_split_duplicates()
    raise_all(work.problems)
    work.count_rows()
    return LoadedDataset(work.corpus(labels), work.spec, tuple(work.decisions))


class _Loading:
    """The state while a dataset is read: decisions, problems, and how many rows of each table were left out and why.

    `rows` holds the rows of all splits: split, table (the split that they were read as), row (from 0), id, text,
    [text_pair], label (None if missing), group, and key (equal for equal texts).
    """

    def __init__(self, name: str, spec: DatasetSpec) -> None:
        import pandas as pd

        self.name = name
        self.tables: dict[Any, Table]
        self.tables, self.origin, self.spec = tables_of(name, spec)
        self.problems: list[CorpusError] = []
        self.left_out: dict[Any, Counter[str]] = {split: Counter() for split in self.tables}
        for split, table in self.tables.items():
            if not len(table.frame):
                found = "only a header" if len(table.frame.columns) else "an empty file"
                self.refuse(split, "there are no rows", found=found)
        raise_all(self.problems)
        self.decisions = [f"{Path(t.where).name}: {note}" for t in self.tables.values() for note in t.notes]
        self.columns, decisions = choose_columns(self.tables["train"], self.spec)
        self.decisions += decisions
        self.rows = pd.concat([self.read_table(split) for split in self.tables], ignore_index=True)
        raise_all(self.problems)

    @property
    def train(self) -> pd.DataFrame:
        """The rows of the training split."""
        return self.rows[self.rows["split"] == "train"]

    def refuse(self, table: Any, what: str, **parts: Any) -> None:
        """Add a problem with the rows of a table; `parts` as in `SoiError`."""
        self.problems.append(CorpusError(what, where=self.tables[table].where, **parts))

    def is_given(self, split: Any) -> bool:
        """Return whether a split must have labels: the training split, and those that the spec names."""
        return split == "train" or split in self.spec.splits or getattr(self.spec, split, None) is not None

    def read_table(self, split: str) -> pd.DataFrame:
        """Return the rows of a table. Its columns must be those of the training rows, but hidden labels may be
        missing."""
        import pandas as pd

        table, n = self.tables[split], len(self.tables[split].frame)
        parts: dict[str, Any] = {"split": split, "table": split, "row": range(n), "id": [f"{i:06d}" for i in range(n)]}
        for part, name in self.columns.items():
            try:
                if name not in table.frame:
                    what, found = f"the {split} rows lack the column {name!r}", some(list(table.frame.columns))
                    raise CorpusError(what, where=table.where, found=found, hint="rename the column")
                table.check_columns({name: OPTIONS[part]})
                parts[part] = READERS[part](table, name)
            except CorpusError as problem:
                if part == "id":
                    self.decisions.append(f"ids of the {split} rows: row numbers from 0 ({problem.what})")
                    continue
                parts[part] = [None] * n
                if part != "label" or name in table.frame or self.is_given(split):
                    self.problems.append(problem)
        return pd.DataFrame(parts, dtype=object)

    def leave_out(self, bad: pd.Series[bool], kind: Drop, why: str, expected: str) -> None:
        """Remove the `bad` rows, and count them; add a problem unless the spec drops this kind."""
        for (split, name), part in self.rows[bad].groupby(["split", "table"], sort=False):
            n, table = len(part), self.tables[name]
            if kind not in self.spec.drop:
                found = f"{n}: {some([table.row(i) for i in part['row'].head(6)], n)}"
                hint = f"correct them, or leave them out with --drop {kind}"
                self.refuse(name, f"rows {why}", found=found, expected=expected, hint=hint)
            elif n == (self.rows["split"] == split).sum():
                self.refuse(name, f"no row is left: {n} rows {why}", expected=expected, hint="give other rows")
            self.left_out[name][why] += n
        self.rows = self.rows[~bad]

    def choose_test(self) -> None:
        """Leave out splits whose labels are all hidden; without test rows, use the validation rows for testing."""
        known = set(self.train["label"])
        for split, labels in self.rows.groupby("split", sort=False)["label"]:
            where = Path(self.tables[split].where).name
            hidden = all(one is None or (one.casefold() in NO_LABEL and one not in known) for one in set(labels))
            if hidden and not self.is_given(split):
                self.decisions.append(f"the labels of the {split} rows are hidden, so {where} is not used")
                self.rows = self.rows.drop(labels.index)
                del self.tables[split]
        if "test" not in self.tables and "validation" in self.tables:
            self.decisions.append(f"no test rows: {Path(self.tables['validation'].where).name} is the test split")
            self.rows = self.rows.replace({"split": "validation"}, "test")

    def name_labels(self) -> None:
        """Name every label: equal numbers get one name, then the spec may rename the value or the name."""
        equal = equal_numbers(self.rows["label"].dropna())
        name_of = {str(i): name for i, name in enumerate(self.tables["train"].names.get(self.columns["label"], ()))}
        names = {name_of.get(form, form): name for form, name in self.spec.labels.items()}
        forms, found = set[str](), dict[str, str]()
        for written in self.rows["label"].dropna().unique():
            label = equal.get(written, written)
            form = written if written in names else label
            forms.add(form)
            found[written] = names.get(form, label)
        self.label_names = {written: found[written] for written in self.train["label"].dropna().unique()}
        self.rows = self.rows.assign(label=self.rows["label"].map(found))
        if unused := [repr(form) for form in names if form not in forms]:
            self.decisions.append(f"caution: no row has the label {some(unused)} (--label-names)")
        if names and self.spec.strict and (unnamed := forms - set(names)):
            hint = "add them to the labels of the dataset"
            expected = some(list(names))
            self.refuse("train", "labels have no name", found=some(label_order(unnamed)), expected=expected, hint=hint)

    def drop_incomplete_rows(self) -> None:
        """Keep the rows that have texts and a label, and add `key` and `group`."""
        before = set(self.rows["split"])
        for part in [p for p in ("text", "text_pair", "label") if p in self.rows]:
            bad = ~self.rows[part].map(lambda value: is_text(value) and bool(value.strip())).astype(bool)
            expected = f"a value in column {self.columns[part]!r}"
            self.leave_out(bad, "empty", f"without {part.replace('_', ' ')}", expected)
        if set(self.rows["split"]) != before:
            raise_all(self.problems)
        other = self.rows["text_pair"] if "text_pair" in self.rows else [""] * len(self.rows)
        keys = [f"{normalise(a)}\t{normalise(b)}" for a, b in zip(self.rows["text"], other, strict=True)]
        groups = self.rows["group"].map(str) if "group" in self.rows else [hashed(key, "file")[:16] for key in keys]
        self.rows = self.rows.assign(key=keys, group=groups)

    def check_training(self) -> None:
        """Add a problem if the rows cannot be trained on: too few, only one class, or nearly as many labels as rows."""
        labels, column = self.train["label"], f"column {self.columns['label']!r}"
        self.label_counts = Counter(labels)
        n, classes = len(labels), len(self.label_counts)
        if n < FEWEST and not self.problems:
            self.refuse("train", "there are too few rows to train on", found=n, expected=f"at least {FEWEST}")
        if classes < 2:
            what, found = "all rows have the same label", f"{labels.iloc[0]!r} in {column}"
            self.refuse("train", what, found=found, expected="at least two classes", hint="choose another --label")
        elif classes * 2 > n:
            what, found = f"{column} has nearly as many values as rows", f"{classes} values in {n} rows"
            hint = "choose another --label, or name groups of values with --label-names VALUE=NAME"
            self.refuse("train", what, found=found, expected="labels that several rows share", hint=hint)

    def take_rows(self) -> None:
        """Keep at most `rows` rows of each split; without test rows, hold out some training rows.

        Both are chosen by a hash of the text or group, whatever the order of the file; equal texts stay together.
        """
        n = self.spec.rows
        for split, keys in self.rows.groupby("split", sort=False)["key"]:
            if n is not None and n < len(keys):
                self.decisions.append(f"{n} of {len(keys)} {split} rows are used, chosen by text hash (--rows)")
                self.rows = self.rows.drop(keys.index[id_order(keys)[n:]])
        if "test" in set(self.rows["split"]):
            return
        train, by = self.train, "group" if "group" in self.columns else "text"
        codes = {label: i for i, label in enumerate(label_order(train["label"]))}
        groups = train["group"] if "group" in self.columns else train["key"].map(lambda key: hashed(key, "held out"))
        shares = {"train": 1 - HELD_OUT, "test": HELD_OUT}
        divided = assign(groups.to_numpy(), train["label"].map(codes).to_numpy(), shares, "held out")
        self.rows.loc[train.index, "split"] = divided
        held = int((divided == "test").sum())
        self.decisions.append(
            f"no test rows: {held} of {len(train)} rows ({held / len(train):.0%}) are held out for testing, evenly "
            f"over the labels by a hash of the {by}: the same rows every time"
        )

    def drop_unknown_labels(self, labels: tuple[str, ...]) -> None:
        """Keep the rows whose label the training data contain. Labels that --rows removed are no problem."""
        lost = ~self.rows["label"].isin(labels) & self.rows["label"].isin(list(self.label_counts))
        for name, n in self.rows["table"][lost].value_counts().items():
            self.left_out[name]["with labels that --rows left out"] += n
        self.rows = self.rows[~lost]
        for split, found in self.rows.groupby("split", sort=False)["label"]:
            unknown = some([repr(label) for label in label_order(set(found) - set(labels))])
            why = f"with labels that the training data do not contain ({unknown})"
            bad = (self.rows["split"] == split) & ~self.rows["label"].isin(labels)
            self.leave_out(bad, "unknown-labels", why, some([repr(label) for label in labels]))

    def drop_cross_split_duplicates(self) -> None:
        """Keep a text or a group that occurs in several splits only in the first of them."""
        texts, groups = set[str](), set[str]()
        for split in SPLITS:
            bad = self.rows["key"].isin(texts) | self.rows["group"].isin(groups)
            bad &= self.rows["split"] == split
            self.leave_out(bad, "duplicates", "whose text occurs in an earlier split", "no text in two splits")
            kept = self.rows[self.rows["split"] == split]
            texts, groups = texts | set(kept["key"]), groups | set(kept["group"])

    def count_rows(self) -> None:
        """Report how many rows were read, used and left out, and what may be unintended about them."""
        used = Counter(self.rows["table"])
        for name, table in self.tables.items():
            why = "".join(f"; left out: {count} {why}" for why, count in self.left_out[name].items())
            self.decisions.append(f"{Path(table.where).name}: {len(table.frame)} rows read, {used[name]} used{why}")
        labels = self.train.groupby("key")["label"]
        many, conflicting = int((labels.size() > 1).sum()), int((labels.nunique() > 1).sum())
        if many:
            also = f", {conflicting} of them with different labels" if conflicting else ""
            self.decisions.append(f"note: {many} training texts occur more than once{also}")
        written = {form: name for form, name in self.label_names.items() if form not in self.spec.labels}
        self.decisions += [f"caution: {sentence}" for sentence in cautions(self.label_counts, written)]

    def corpus(self, labels: tuple[str, ...]) -> Corpus:
        """Make a corpus from the rows."""
        codes = self.rows["label"].map({label: i for i, label in enumerate(labels)})
        parts = {str(split): part for split, part in self.rows.assign(label=codes).groupby("split")}
        splits = {split: Split.from_frame(parts[split]) for split in SPLITS if split in parts}
        options = {name: getattr(self.spec, name) for name in ("separator", "encoding", "header")}
        card = Card(
            title=self.name,
            question=f"Which label does {self.columns['label']!r} have?",
            origin=self.origin,
            licence="not recorded",
            language="not recorded",
            construction="read as it is; columns "
            + ", ".join(f"{part} = {name!r}" for part, name in self.columns.items()),
            group_by=f"column {self.columns['group']!r}" if "group" in self.columns else "the text",
            ood="as given" if "ood" in splits else "none",
            counts={f"left out: {table}, {why}": n for table, c in self.left_out.items() for why, n in c.items()},
            reading={"columns": dict.fromkeys(OPTIONS) | self.columns, "labels": self.label_names, "options": options},
        )
        return Corpus(self.name, "user", labels, splits, card, fingerprint(labels, splits, {}, "user"))
