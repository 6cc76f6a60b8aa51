"""The reproduction of the paper: corpora, grid, claims, pages and build.

It is built on the library's public modules and is not part of its wheel. Importing it registers its corpora and
profiles with the library.
"""

from pathlib import Path

from paper import datasets
from soi_lib.runs import config

ROOT = Path(__file__).resolve().parent.parent
"""The root of the checkout."""

config.add_profiles(ROOT / "paper" / "profiles")

__all__ = ["ROOT", "datasets"]
