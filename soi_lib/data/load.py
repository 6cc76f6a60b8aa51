"""Load a corpus: read rows from a file, a folder or the hub, and check them.

Everything that was guessed, chosen or left out is a sentence in `LoadedDataset.decisions`, to be printed before
training. All problems are raised as one list, with file and row. The same rows give the same corpus, with the same
fingerprint, wherever they come from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soi_lib.data.columns import (
    NO_LABEL,
    are_nested,
    cautions,
    choose_columns,
    equal_numbers,
    id_problem,
    ids_of,
    label_lists,
    label_order,
    label_texts,
    text_of,
)
from soi_lib.data.dataset import SPLITS, Card, Corpus, Split, assign, fingerprint, hashed, id_order, is_text, normalise
from soi_lib.data.places import DatasetSpec, Drop
from soi_lib.data.table_files import some, tables_of
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
    return _Loading(name, spec).load()


class _Loading:
    """The state while a dataset is read: decisions, problems, and how many rows of each split were left out and why."""

    def __init__(self, name: str, spec: DatasetSpec) -> None:
        self.name = name
        self.tables, self.origin, self.spec = tables_of(name, spec)
        self.decisions: list[str] = []
        self.problems: list[CorpusError] = []
        self.left_out: dict[str, Counter[str]] = {split: Counter() for split in self.tables}
        self.label_names: dict[str, str] = {}
        self.label_counts: Counter[str] = Counter()

    def load(self) -> LoadedDataset:
        """Run all steps in order; each adds to the decisions and the problems."""
        for split, table in self.tables.items():
            if not len(table.frame):
                found = "only a header" if len(table.frame.columns) else "an empty file"
                self.refuse(split, "there are no rows", found=found)
        raise_all(self.problems)
        self.columns, decisions = choose_columns(self.tables["train"], self.spec)
        self.decisions += [f"{Path(t.where).name}: {note}" for t in self.tables.values() for note in t.notes]
        self.decisions += decisions
        rows = {split: self.rows_of(split) for split in self.tables}
        raise_all(self.problems)
        self.choose_test(rows)
        self.name_labels(rows)
        rows = {split: self.drop_incomplete_rows(split, part) for split, part in rows.items()}
        self.check_training(rows["train"])
        rows = self.take_rows(rows)
        rows = rows if "test" in rows else rows | self.hold_out(rows["train"])
        labels = label_order(rows["train"]["label"])
        rows = {split: self.drop_unknown_labels(split, part, labels) for split, part in rows.items()}
        rows = self.drop_cross_split_duplicates(rows)
        raise_all(self.problems)
        self.count_rows(rows)
        return LoadedDataset(self.corpus(rows, labels), self.spec, tuple(self.decisions))

    def refuse(self, split: str, what: str, **parts: Any) -> None:
        """Add a problem with the rows of a split; `parts` as in `SoiError`."""
        self.problems.append(CorpusError(what, where=self.tables.get(split, self.tables["train"]).where, **parts))

    def is_given(self, split: str) -> bool:
        """Return whether a split must have labels: the training split, and those that the spec names."""
        return split == "train" or split in self.spec.splits or getattr(self.spec, split, None) is not None

    def leave_out(self, split: str, rows: pd.DataFrame, bad: Any, kind: Drop, why: str, expected: str) -> pd.DataFrame:
        """Return the rows without the `bad` ones, and count those; add a problem unless the spec drops this kind."""
        n = int(bad.sum())
        source = split if split in self.tables else "train"  # held-out rows come from the training rows
        if n and kind not in self.spec.drop:
            found = f"{n}: {some([self.tables[source].row(i) for i in rows['row'][bad].head(6)], n)}"
            hint = f"correct them, or leave them out with --drop {kind}"
            self.refuse(split, f"rows {why}", found=found, expected=expected, hint=hint)
        elif n and n == len(rows):
            self.refuse(split, f"no row is left: {n} rows {why}", expected=expected, hint="give other rows")
        self.left_out[source] += Counter({why: n})
        return rows[~bad] if n else rows

    def rows_of(self, split: str) -> pd.DataFrame:
        """Return the columns row (from 0), id, text, [text_pair], label and written (None if missing), [group].

        `label` is the name that the file gives to a number, `written` the number itself. A missing column is a
        problem, except for the labels of rows that were not named as test rows: these count as hidden.
        """
        import pandas as pd

        table, columns = self.tables[split], self.columns
        frame, n = table.frame, len(table.frame)
        parts: dict[str, Any] = {"row": range(n), "id": [f"{i:06d}" for i in range(n)]}
        if columns.id is not None and (problem := id_problem(table, columns.id)) is not None:
            self.decisions.append(f"ids of the {split} rows: row numbers from 0 ({problem.what})")
        elif columns.id is not None:
            parts["id"] = ids_of(frame[columns.id])
        values: dict[str, list[Any]] = {"label": [None] * n}
        for part in ("text", "text_pair", "label", "group"):
            name = getattr(columns, part)
            if name is not None and name in frame:
                values[part] = list(frame[name])
            elif name is not None and (part != "label" or self.is_given(split)):
                what, found = f"the {split} rows lack a column of the training rows", some(list(frame.columns))
                self.refuse(split, what, found=found, expected=repr(name), hint="rename the column")
        for part, cells in values.items():
            if are_nested(cells, lists=part == "label"):  # several labels are handled below
                what, found = f"column {getattr(columns, part)!r} does not hold plain values", str(cells[0])[:60]
                hint = "save one text or label per row, or choose another column"
                self.refuse(split, what, found=f"{found} in {table.row(0)}", hint=hint)
                raise_all(self.problems)
        parts |= {part: [text_of(value) for value in values[part]] for part in ("text", "text_pair") if part in values}
        if "group" in values:
            parts["group"] = [str(text_of(value)) for value in values["group"]]
        lists = label_lists(values["label"])
        for row in [row for row, labels in enumerate(lists) if len(labels) > 1][:1]:
            what, found = f"column {columns.label!r} has several labels per row", f"{lists[row]} in {table.row(row)}"
            self.refuse(split, what, found=found, expected="one label per row", hint="give another --label")
        written, label = label_texts(lists), label_texts(lists, table.names.get(columns.label, ()))
        return pd.DataFrame(parts | {"written": written, "label": label}, dtype=object)

    def choose_test(self, rows: dict[str, pd.DataFrame]) -> None:
        """Leave out splits whose labels are all hidden; without test rows, use the validation rows for testing."""
        known = set(rows["train"]["label"])
        for split in [s for s in rows if not self.is_given(s)]:
            labels = set(rows[split]["label"])
            if all(label is None or (label.casefold() in NO_LABEL and label not in known) for label in labels):
                where = Path(self.tables[split].where).name
                self.decisions.append(f"the labels of the {split} rows are hidden, so {where} is not used")
                del rows[split], self.tables[split]
        if "test" not in rows and "validation" in rows:
            self.decisions.append(f"no test rows: {Path(self.tables['validation'].where).name} is the test split")
            rows["test"], self.tables["test"] = rows.pop("validation"), self.tables.pop("validation")
            self.left_out["test"] = Counter()

    def name_labels(self, rows: dict[str, pd.DataFrame]) -> None:
        """Name every label: equal numbers get one name, then the spec may rename the value or the name."""
        equal = equal_numbers(name for part in rows.values() for name in part["label"].dropna())
        names, unnamed, known = self.spec.labels, set(), set()
        for split, part in rows.items():
            found: dict[Any, str | None] = {}
            for written, label in part[["written", "label"]].dropna().drop_duplicates().itertuples(index=False):
                label = equal.get(label, label)
                form = next((form for form in (written, label) if form in names), None)
                known.add(form)
                if names and form is None and self.spec.strict:
                    unnamed.add(label)
                found[written] = (label if form is None else names[form]) or None
            part["label"] = part["written"].map(found).astype(object).where(part["label"].notna(), None)
            if split == "train":
                self.label_names = {written: name or "" for written, name in found.items()}
        if unused := [form for form in names if form not in known]:
            self.decisions.append(
                f"caution: no row has the label {some([repr(one) for one in unused])} (--label-names)"
            )
        if unnamed:
            found_in, hint = some(label_order(unnamed)), "add them to the labels of the dataset"
            self.refuse("train", "labels have no name", found=found_in, expected=some(list(names)), hint=hint)

    def drop_incomplete_rows(self, split: str, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that have texts and a label, and add a `key` (equal for equal texts) and a `group`."""
        for part in [p for p in ("text", "text_pair", "label") if p in rows]:
            bad = ~rows[part].map(lambda value: is_text(value) and bool(value.strip())).astype(bool)
            expected = f"a value in column {getattr(self.columns, part)!r}"
            rows = self.leave_out(split, rows, bad, "empty", f"without {part.replace('_', ' ')}", expected)
        if not len(rows):
            raise_all(self.problems)
        other = rows["text_pair"] if "text_pair" in rows else [""] * len(rows)
        rows = rows.assign(key=[f"{normalise(a)}\t{normalise(b)}" for a, b in zip(rows["text"], other, strict=True)])
        return rows if "group" in rows else rows.assign(group=[hashed(key, "file")[:16] for key in rows["key"]])

    def check_training(self, rows: pd.DataFrame) -> None:
        """Add a problem if the rows cannot be trained on: too few, only one class, or nearly as many labels as rows."""
        self.label_counts = Counter(rows["label"])
        classes, column = len(self.label_counts), f"column {self.columns.label!r}"
        if len(rows) < FEWEST and not self.problems:
            self.refuse("train", "there are too few rows to train on", found=len(rows), expected=f"at least {FEWEST}")
        if classes < 2:
            what, found = "all rows have the same label", f"{rows['label'].iloc[0]!r} in {column}"
            self.refuse("train", what, found=found, expected="at least two classes", hint="choose another --label")
        elif classes * 2 > len(rows):
            what, found = f"{column} has nearly as many values as rows", f"{classes} values in {len(rows)} rows"
            hint = "choose another --label, or name groups of values with --label-names VALUE=NAME"
            self.refuse("train", what, found=found, expected="labels that several rows share", hint=hint)

    def take_rows(self, rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """Keep at most `rows` rows of each split, chosen by a hash of the text, whatever the order of the file."""
        n = self.spec.rows
        for split in [s for s in rows if n is not None and n < len(rows[s])]:
            self.decisions.append(f"{n} of {len(rows[split])} {split} rows are used, chosen by text hash (--rows)")
            rows[split] = rows[split].iloc[sorted(id_order(rows[split]["key"])[:n])]
        return rows

    def hold_out(self, train: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Split the training rows into train and test by a hash of text or group; equal texts stay together."""
        codes = {label: i for i, label in enumerate(label_order(train["label"]))}
        groups = train["group"] if self.columns.group else train["key"].map(lambda key: hashed(key, "held out"))
        shares = {"train": 1 - HELD_OUT, "test": HELD_OUT}
        split = assign(groups.to_numpy(), train["label"].map(codes).to_numpy(), shares, "held out")
        held, by = int((split == "test").sum()), "group" if self.columns.group else "text"
        self.decisions.append(
            f"no test rows: {held} of {len(train)} rows ({held / len(train):.0%}) are held out for testing, evenly "
            f"over the labels by a hash of the {by}: the same rows every time"
        )
        return {name: train[split == name] for name in shares}

    def drop_unknown_labels(self, split: str, rows: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
        """Return the rows whose label the training data contain. Labels that --rows removed are no problem."""
        bad = ~rows["label"].isin(labels)
        lost = bad & rows["label"].isin(list(self.label_counts))
        self.left_out[split if split in self.tables else "train"] += Counter(
            {"with labels that --rows left out": int(lost.sum())}
        )
        unknown = label_order(rows["label"][bad & ~lost])
        why = f"with labels that the training data do not contain ({some([repr(label) for label in unknown])})"
        expected = some([repr(label) for label in labels])
        return self.leave_out(split, rows[~lost], bad[~lost], "unknown-labels", why, expected)

    def drop_cross_split_duplicates(self, rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """Keep a text or a group that occurs in several splits only in the first of them."""
        texts, groups, out = set[str](), set[str](), {}
        for split in [s for s in SPLITS if s in rows]:
            bad = rows[split]["key"].isin(texts) | rows[split]["group"].isin(groups)
            why = "whose text occurs in an earlier split"
            out[split] = self.leave_out(split, rows[split], bad, "duplicates", why, "no text in two splits")
            texts |= set(out[split]["key"])
            groups |= set(out[split]["group"])
        return out

    def count_rows(self, rows: dict[str, pd.DataFrame]) -> None:
        """Report how many rows were read, used and left out, and what may be unintended about them."""
        for split, table in self.tables.items():
            n = len(rows[split]) + (len(rows["test"]) if split == "train" and "test" not in self.tables else 0)
            why = "".join(f"; left out: {count} {why}" for why, count in self.left_out[split].items() if count)
            self.decisions.append(f"{Path(table.where).name}: {len(table.frame)} rows read, {n} used{why}")
        repeated = rows["train"].groupby("key")["label"].agg(["size", "nunique"])
        many, conflicting = int((repeated["size"] > 1).sum()), int((repeated["nunique"] > 1).sum())
        if many:
            also = f", {conflicting} of them with different labels" if conflicting else ""
            self.decisions.append(f"note: {many} training texts occur more than once{also}")
        written = {form: name for form, name in self.label_names.items() if form not in self.spec.labels}
        self.decisions += cautions(self.label_counts, written)

    def corpus(self, rows: dict[str, pd.DataFrame], labels: tuple[str, ...]) -> Corpus:
        """Make a corpus from the rows."""
        codes = {label: i for i, label in enumerate(labels)}
        splits = {s: Split.from_frame(part.assign(label=part["label"].map(codes))) for s, part in rows.items()}
        options = {name: getattr(self.spec, name) for name in ("separator", "encoding", "header")}
        card = Card(
            title=self.name,
            question=f"Which label does {self.columns.label!r} have?",
            origin=self.origin,
            licence="not recorded",
            language="not recorded",
            construction=f"read as it is; columns {self.columns}",
            group_by=f"column {self.columns.group!r}" if self.columns.group else "the text",
            ood="as given" if "ood" in splits else "none",
            counts={f"left out: {s}, {why}": n for s, c in self.left_out.items() for why, n in c.items() if n},
            reading={"columns": asdict(self.columns), "labels": self.label_names, "options": options},
        )
        return Corpus(self.name, "user", labels, splits, card, fingerprint(labels, splits, {}, "user"))
