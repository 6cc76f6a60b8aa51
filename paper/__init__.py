"""The reproduction of the paper: corpora, grid, claims, pages and build.

It is built on the library's public modules and is never part of its wheel. Importing it makes its corpora and its
profiles known to the library by name.
"""

from pathlib import Path

from paper import datasets
from soi_lib.runs import config

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

config.add_profiles(ROOT / "paper" / "profiles")

__all__ = ["ROOT", "datasets"]
