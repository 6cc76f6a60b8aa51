"""The corpora of the reproduction, built from pinned packages with group splits.

A corpus is built once and cached as one Parquet file; the file's name contains a hash of its sources and of the code
that builds it. Importing this package registers the corpora, so that profiles and runs find them by name.
"""

from __future__ import annotations

from functools import partial

from paper.datasets import flipped, registry
from soi_lib.data import cache
from soi_lib.data.cache import load

COMPARISONS = {
    "task": ("entailment", "paraphrase", "sentiment", "opinions", "questions", "questions_fine"),
    "source": ("tweets", "amazon", "movie"),
    "lingual": ("en", "fr", "fa"),
}

for _name in registry.BUILD:
    cache.register(_name, partial(registry.load, _name))
for _name in (*COMPARISONS["task"][:5], *COMPARISONS["source"]):
    cache.register(f"{_name}{flipped.SUFFIX}", partial(flipped.build, _name))

__all__ = ["COMPARISONS", "load"]
