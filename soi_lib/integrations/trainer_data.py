"""Read the ids and labels of a Trainer's training set, and add row numbers to its batches.

The user's dataset is not modified; its transforms and columns stay as they are. The loader reads it through a wrapper
that returns each item with its row number, and the numbers are added to the batch after the user's collator has made
it, so no collator, column removal or padding can lose them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm.auto import tqdm

from soi_lib.errors import FormatError, located
from soi_lib.recorder import class_numbers, last_of

KEY = "soi_rows"
"""The key of the row numbers in a batch, from the collator to the training step."""


@dataclass(frozen=True)
class Examples:
    """Ids (N,), gold labels (N,) int64, class names (empty if unknown) and datasets (N,) str of a training set.

    `labels` are the names that the labels may have in a batch.
    """

    ids: list[Any]
    gold: np.ndarray
    labels: tuple[str, ...]
    names: tuple[str, ...] = ()
    datasets: np.ndarray | None = None

    @cached_property
    def dataset_names(self) -> list[str]:
        """The names of the datasets, sorted."""
        return [] if self.datasets is None else sorted(set(self.datasets.tolist()))


def examples_of(
    dataset: Any,
    id_column: str | None,
    ids: Sequence[Any] | None,
    gold: Any,
    label_names: Sequence[str],
    dataset_column: str | None = None,
) -> Examples:
    """Read ids and labels of a `datasets.Dataset` (single columns) or of any other sized dataset (in one pass).

    The label is the first that exists of `label_names`, "label" and "label_ids". Raises FormatError if there is no such
    column, or no length.
    """
    if dataset is None or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        what = "the rows of the training set cannot be distinguished"
        hint = "give the Trainer a train_dataset that is not iterable-only"
        raise FormatError(what, found=type(dataset).__name__, expected="a dataset with a length", hint=hint)
    if id_column is not None and ids is not None:
        raise FormatError("both id_column and ids are given", hint="give one of them")
    labels = tuple(dict.fromkeys([*label_names, "label", "label_ids"])) if gold is None else ()
    read = _columns if hasattr(dataset, "column_names") and hasattr(dataset, "with_format") else _items
    id_names, source_names = (() if column is None else (column,) for column in (id_column, dataset_column))
    (_, keys), (label, values), (source, sources) = read(dataset, [id_names, labels, source_names])
    with located(f"column {label!r}" if label else None):
        golds = class_numbers(values if label else gold, len(dataset))
    return Examples(
        ids=keys if id_names else list(range(len(dataset)) if ids is None else ids),
        gold=golds,
        labels=tuple(label_names),
        names=_class_names(dataset, label) if label else (),
        datasets=_sources(dataset, source, sources) if source else None,
    )


def _class_names(dataset: Any, column: str) -> tuple[str, ...]:
    """Return the class names of a ClassLabel column; empty for any other column."""
    return tuple(getattr((getattr(dataset, "features", None) or {}).get(column), "names", None) or ())


def _sources(dataset: Any, column: str, values: list[Any]) -> np.ndarray:
    """Return the name of every row's dataset: (N,) str."""
    names = _class_names(dataset, column)
    without = [row for row, value in enumerate(values) if value is None or (names and value < 0)]
    if without:
        where = f"row {without[0]}"
        raise FormatError(f"column {column!r} does not name a dataset", where=where, expected="a name in every row")
    return np.array([names[value] if names else str(value) for value in values], dtype=object)


def _columns(dataset: Any, wanted: list[tuple[str, ...]]) -> list[tuple[str, list[Any]]]:
    """Return the name and values of the first existing column of a `datasets.Dataset`, for each choice of names."""
    plain = dataset.with_format(None)  # no transform, no tensors
    chosen = [_first(names, dataset.column_names) for names in wanted]
    return [(name, list(plain[name][:]) if name else []) for name in chosen]


def _items(dataset: Any, wanted: list[tuple[str, ...]]) -> list[tuple[str, list[Any]]]:
    """Like `_columns`, from the items of a dataset, which must be mappings."""
    columns: list[tuple[str, list[Any]]] = [] if any(wanted) else [("", []) for _ in wanted]
    with torch.random.fork_rng(devices=[]):  # reading must not change the random numbers of training
        for row in tqdm(range(len(dataset) if any(wanted) else 0), desc="reading labels", delay=2, leave=False):
            item = dataset[row]
            if not isinstance(item, Mapping):
                what, found = "the items of the training set have no named fields", type(item).__name__
                where, hint = f"row {row}", "give ids=... and gold=..."
                raise FormatError(what, where=where, found=found, expected="a mapping", hint=hint)
            columns = columns or [(_first(names, list(item)), []) for names in wanted]
            for name, values in columns:
                value = item.get(name)
                values.append(value.item() if isinstance(value, Tensor | np.generic) else value)
    return columns


def _first(names: tuple[str, ...], have: Sequence[str]) -> str:
    """Return the first of `names` that exists, or "" if none is wanted."""
    found = [name for name in names if name in have] if names else [""]
    if not found:
        what = "the training set has no such column"
        hint = "name one of these, give ids=... or gold=..., or rename the column"
        raise FormatError(what, found=", ".join(have), expected=" or ".join(names), hint=hint)
    return found[0]


class Numbered(Dataset[tuple[int, Any]]):
    """A dataset whose items come with their row numbers; everything else is delegated to `inner`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, row: Any) -> tuple[int, Any]:
        return int(row), self.inner[row]

    def __getitems__(self, rows: Sequence[Any]) -> list[tuple[int, Any]]:
        fetch = getattr(self.inner, "__getitems__", None)
        items = fetch(rows) if fetch else [self.inner[row] for row in rows]
        return [(int(row), item) for row, item in zip(rows, items, strict=True)]

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # during unpickling in a worker
            raise AttributeError(name)
        return getattr(self.inner, name)


@dataclass(frozen=True)
class NumberedCollator:
    """Call the user's collator and add the row numbers to the batch; check the batch's labels against gold."""

    inner: Callable[[list[Any]], Any]
    examples: Examples

    def __call__(self, numbered: list[tuple[int, Any]]) -> MutableMapping[str, Any]:
        """Return the batch of `numbered` items, with `KEY`: int64 (B,)."""
        rows = np.array([row for row, _ in numbered], dtype=np.int64)
        batch = self.inner([item for _, item in numbered])
        if not isinstance(batch, MutableMapping):
            found = type(batch).__name__
            raise FormatError("the collator does not return a mapping", found=found, expected="a dict of tensors")
        labels = next((batch[name] for name in self.examples.labels if name in batch), None)
        if isinstance(labels, Tensor) and labels.shape == rows.shape and not labels.is_floating_point():
            wrong = np.flatnonzero(labels.numpy() != self.examples.gold[rows])
            if len(wrong):
                row = int(rows[wrong[0]])
                raise FormatError(
                    "a label in a batch differs from the training set",
                    where=f"id {self.examples.ids[row]!r}",
                    found=int(labels[int(wrong[0])]),
                    expected=int(self.examples.gold[row]),
                    hint="give the labels used in training as gold=..., in the order of the training set",
                )
        batch[KEY] = torch.from_numpy(last_of(rows, len(self.examples.ids)))
        return batch


def number(loader: Any, examples: Examples) -> Any:
    """Make a (prepared) DataLoader return row numbers; its sampling, workers and collator are unchanged."""
    base = getattr(loader, "base_dataloader", loader)  # accelerate wraps the real one
    if not isinstance(base, DataLoader) or isinstance(base.dataset, IterableDataset):
        found = type(base).__name__
        raise FormatError("the training loader does not reveal its rows", found=found, expected="a DataLoader")
    if not isinstance(base.dataset, Numbered):
        if len(base.dataset) != len(examples.ids):  # type: ignore[arg-type]
            what = "the Trainer's training set has changed since record(trainer)"
            hint = "call record(trainer) after the training set is chosen"
            found = f"{len(base.dataset)} rows"  # type: ignore[arg-type]
            raise FormatError(what, found=found, expected=len(examples.ids), hint=hint)
        vars(base)["dataset"] = Numbered(base.dataset)  # DataLoader does not allow a plain assignment
        base.collate_fn = NumberedCollator(base.collate_fn, examples)
    return loader
