"""A whole reproduction that takes seconds: generated corpora, a random BERT, runs, second stages, two comparisons.

It needs no fetched package: corpora and encoder are folders that a profile names, and the cache is its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from authors_data import as_parquet, tiny_bert

MEMBERS = ("twitter", "yelp", "en")
LABELS = {"twitter": "sentiment", "yelp": "label", "en": "intent"}


def make(folder: Path, **changes: Any) -> Path:
    """Corpora, an encoder and a profile in `folder`; returns the profile. `changes` replace fields of it."""
    corpora = {}
    for member in MEMBERS:
        as_parquet(member, folder / "data" / member)
        source = {"path": str(folder / "data" / member), "label": LABELS[member], "splits": {"ood": ["OOD"]}}
        corpora[member] = source | {
            "text": "utt" if member == "en" else "text",
            "drop": ["duplicates", "empty", "unknown-labels"],
        }
    encoder = tiny_bert(folder / "encoder")
    values = {
        "name": "tiny",
        "seeds": [0],
        "data": {"train": 40, "evaluate": 20},
        "training": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3},
        "comparisons": {
            "source": {"encoder": "tiny", "members": ["twitter", "yelp"], "settings": ["single", "all"]},
            "lingual": {"encoder": "tiny", "members": ["en"], "settings": ["single"]},
        },
        "stages": {"subsets": ["ambiguous"], "controls": ["random"], "epochs": 2, "balance": False},
        "corpora": corpora,
        "encoders": {"tiny": {"path": str(encoder)}},
    } | changes
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def environment(cache: Path, **more: str) -> dict[str, str]:
    """The environment of a command that keeps its cache in `cache` and stays off hub and GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "COV_"))}
    return kept | {"SOI_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"} | more


def soi(*words: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the `soi` command in `cwd`, with `cwd`/cache as its cache unless `env` says otherwise."""
    command = [sys.executable, "-m", "soi_lib.cli", *map(str, words)]
    more.setdefault("env", environment(cwd / "cache"))
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **more)
