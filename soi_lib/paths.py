"""Where things are: the cache that survives clones, and the files that ship with the library.

The cache is `$SOI_CACHE`, or the platform's user cache. It holds fetched packages, built corpora and converted
encoders, each under a name that contains its hash, so that nothing in it ever has to be invalidated.
"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

_PACKAGE = Path(__file__).resolve().parent


def cache_dir() -> Path:
    """The root of the cache (not created here)."""
    return Path(os.environ["SOI_CACHE"]).expanduser() if os.environ.get("SOI_CACHE") else user_cache_path("soi_lib")


def resource(name: str) -> Path:
    """A file that ships with the library, such as `packages.txt`.

    In an installed wheel it lies inside the package; in a checkout it is the file at the top level.
    """
    inside = _PACKAGE / "resources" / name
    if inside.exists():
        return inside
    return _PACKAGE.parent / "data" / name
