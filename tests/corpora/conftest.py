"""Builders of small corpora and files that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest

from soi_lib.data.dataset import Card, Split

CARD = Card("title", "question", "origin", "licence", "en", "construction", "group", "ood")


def split_of(rows: list[tuple[str, str, int, str]]) -> Split:
    """A split of single texts from (id, text, label, group)."""
    ids, text, label, group = (list(c) for c in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Split(
        np.array(ids, dtype=object), text, None, np.array(label, dtype=np.int16), np.array(group, dtype=object)
    )


@pytest.fixture
def parts() -> dict[str, Split]:
    """Four sound splits of eight texts each."""
    return {
        name: split_of([(f"{name}/{i}", f"text {i} of {name}", i % 2, f"{name}:{i}") for i in range(8)])
        for name in ("train", "validation", "test", "ood")
    }
